"""`make bench`: Companion beside the limit and its peers, in one run, as ratios.

    python -m bench.run            every figure, some rounds (about a quarter of an hour)
    python -m bench.run --quick    one round (about two minutes)

The upstream and the load have one core, the server under test the other; all servers are up all the time, and each
round asks them one after the other, so that whatever else the machine does befalls all alike.
"""

import argparse
import asyncio
import contextlib
import json
import re
import sys
import time
from pathlib import Path
from typing import cast

import uvloop

from bench import budgets, cold, growth, report
from bench.load import Target
from bench.measure import Figures, Subject, answers, first_among_many, first_at_once, first_token, flat_out, paced, warm
from bench.peers import PEERS, WORK, start
from bench.servers import LOAD_CORE, Server, free_port, pin, serving

COUNTS = (1, 16, 64, 256)
AMONG = 64
"""Streams that are open while others begin, and that begin all at one moment."""
_ASKED: dict[str, object] = {"messages": [{"role": "user", "content": "Hello"}]}


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--rounds", type=int, help="default: 3, or 1 with --quick")
    parser.add_argument(
        "--peers", action=argparse.BooleanOptionalAction, default=True, help="measure LiteLLM and ogx too"
    )
    parser.add_argument("--only", help="subjects whose name this pattern finds, besides the limit")
    parser.add_argument("--plot", type=Path, default=WORK / "report.svg")
    options = parser.parse_args()
    rounds = options.rounds or (1 if options.quick else 3)
    WORK.mkdir(exist_ok=True)
    began = time.monotonic()
    pin(LOAD_CORE)
    figures, notes = uvloop.run(streams(rounds, peers=options.peers, only=options.only))
    result = cast(report.Result, {"streams": figures, "notes": notes})
    if not options.only:
        result["starts"] = cold.all_starts(repeats=5 if options.quick else 15)
        result["modules"] = cold.breakdown()
        result["first_request"] = uvloop.run(cold.first_request())
        result["growth"] = asyncio.run(growth.growth(repeats=15 if options.quick else 40))
        result["plain_charge"] = asyncio.run(growth.ten_second_answer())
    print(report.tables(result))
    print(f"\n{time.monotonic() - began:.0f} s, {rounds} rounds")
    options.plot.write_text(report.plot(result))
    (WORK / "report.json").write_text(json.dumps({name: each.values for name, each in figures.items()}, indent=1))
    broken = [] if options.only else budgets.broken(result)
    for line in broken:
        print(f"over budget: {line}", file=sys.stderr)
    return 1 if broken else 0


async def streams(rounds: int, *, peers: bool, only: str | None) -> tuple[dict[str, Figures], list[str]]:
    """Every subject at every number of streams."""
    notes: list[str] = []
    async with contextlib.AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(
            _python("upstream", "-m", "bench.upstream", "--port", "{port}", core=LOAD_CORE)
        )
        subjects = await _subjects(stack, upstream, notes, peers=peers)
        subjects = [
            each
            for each in subjects
            if not only or re.search(only, each.target.name) or each.target.name in ("direct", "limit")
        ]
        figures = {subject.target.name: Figures() for subject in subjects}
        for subject in subjects:
            await warm(subject)
        for _ in range(rounds):
            await _round(subjects, figures)
        for subject in subjects:
            if subject.server is not None:
                figures[subject.target.name].add("mb_after_load", subject.server.memory())
    return figures, notes


async def _round(subjects: list[Subject], figures: dict[str, Figures]) -> None:
    for subject in subjects:
        await first_token(subject, figures[subject.target.name])
    for count in COUNTS:
        for subject in subjects:
            if count <= subject.most:
                await paced(subject, figures[subject.target.name], count)
                await asyncio.sleep(0.2)
        for subject in subjects:
            if count == AMONG and count <= subject.most:
                await first_among_many(subject, figures[subject.target.name], count)
                await asyncio.sleep(0.2)
                await first_at_once(subject, figures[subject.target.name], count)
                await asyncio.sleep(0.2)
        for subject in subjects:
            if count <= subject.most:
                await flat_out(subject, figures[subject.target.name], count)
    for subject in subjects:
        await answers(subject, figures[subject.target.name])


async def _subjects(
    stack: contextlib.AsyncExitStack, upstream: Server, notes: list[str], *, peers: bool
) -> list[Subject]:
    url = f"http://127.0.0.1:{upstream.port}/v1"
    limit = await stack.enter_async_context(
        _python("limit", "-m", "bench.passthrough", "--port", "{port}", env={"UPSTREAM": url})
    )
    environ = {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": "bench", "COMPANION_TITLES": "off"}
    ours = await stack.enter_async_context(
        _python("companion", "-m", "localhost", "--port", "{port}", "--data", "{data}", env=environ)
    )
    chat, responses = "/v1/chat/completions", "/v1/responses"
    delta, said = b'"delta":"token', {"input": "Hello"}

    def of_ours(name: str, path: str, body: dict[str, object], token: bytes) -> Subject:
        return Subject(target=Target(name=name, port=ours.port, path=path, body=body, token=token), server=ours)

    subjects = [
        Subject(target=Target(name="direct", port=upstream.port, path=chat, body=_ASKED), server=None),
        Subject(target=Target(name="limit", port=limit.port, path=chat, body=_ASKED), server=limit),
        of_ours("responses, stored", responses, {**said, "store": True}, token=delta),
        of_ours("chat, stored", chat, {**_ASKED, "store": True}, token=b'"content":"token'),
        of_ours("responses, store=false", responses, {**said, "store": False}, token=delta),
    ]
    for peer in PEERS if peers else ():
        subject = await start(peer, stack, url, notes)
        subjects += [subject] if subject else []
    return subjects


def _python(
    name: str, *command: str, env: dict[str, str] | None = None, core: int | None = None
) -> contextlib.AbstractAsyncContextManager[Server]:
    port = free_port()
    places = {} if core is None else {"core": core}
    return serving(name, [sys.executable, *command], env=env or {}, port=port, **places)


if __name__ == "__main__":
    sys.exit(main())
