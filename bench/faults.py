"""`make bench-faults`: what of a model's failures its users notice.

    python -m bench.faults            some hundred turns, an outage of fifteen seconds (about two minutes)
    python -m bench.faults --full     two thousand turns, an outage of a minute

1. Three calls in ten fail: 429, 500, hang, cut, garbage, slow, in equal parts.
2. The model is down, ten turns a second are asked all the same.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp

from bench.unreliable import Unreliable, is_whole, serving
from tests.processes import companion

type Json = dict[str, Any]

WORKERS = 20
PER_SECOND = 10
HEALTHY = 24
"""Turns, one after the other, before anything fails: their median is the normal time, and the host learns from them
what is usual."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.faults", description=__doc__)
    parser.add_argument("--full", action="store_true")
    options = parser.parse_args()
    turns, outage = (2000, 60.0) if options.full else (500, 15.0)
    return asyncio.run(_run(turns, outage))


async def _run(turns: int, outage: float) -> int:
    upstream = Unreliable()
    async with serving(upstream) as url:
        routes = {
            "deployments": {"only": {"endpoint": url, "model": "m"}},
            "models": {"companion": {"chain": ["only"]}},
        }
        with tempfile.TemporaryDirectory() as data:
            settings = {"COMPANION_ROUTES": json.dumps(routes), "COMPANION_TITLES": "off", "OPENAI_BASE_URL": ""}
            server = companion(Path(data), **settings)
            base = await asyncio.to_thread(server.__enter__)
            try:
                async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
                    rows = [
                        *await _failing(session, base, upstream, turns),
                        *await _down(session, base, upstream, outage),
                    ]
            finally:
                await asyncio.to_thread(server.__exit__, None, None, None)
    _table(rows)
    return 0 if all(is_kept for *_, is_kept in rows) else 1


type Row = tuple[str, str, str, bool]


async def _failing(session: aiohttp.ClientSession, base: str, upstream: Unreliable, turns: int) -> list[Row]:
    normal = statistics.median([(await _ask(session, base))[1] for _ in range(HEALTHY)])
    upstream.failing, before = 0.3, upstream.calls
    left = iter(range(turns))
    results: list[tuple[Json, float]] = []

    async def work() -> None:
        for _ in left:
            results.append(await _ask(session, base))

    await asyncio.gather(*(work() for _ in range(WORKERS)))
    upstream.failing = 0.0
    calls = upstream.calls - before
    answered = [(answer, seconds) for answer, seconds in results if answer.get("status") == "completed"]
    others = Counter(
        json.dumps(answer.get("error"))[:120] for answer, _ in results if answer.get("status") != "completed"
    )
    in_time = sum(seconds <= 3 * normal for _, seconds in answered)
    spliced = sum(not is_whole(text, upstream.words) for answer, _ in results for text in _completed(answer))
    slowest = sorted([0.0, *(seconds for _, seconds in answered)])[int(len(answered) * 0.99)]
    return [
        ("turns, of which three calls in ten fail", f"{turns}", "", True),
        ("normal time", f"{normal:.2f} s", "", True),
        ("answered", f"{len(answered) / turns:.1%}", "", True),
        ("answered within three times the normal time", f"{in_time / turns:.1%}", ">= 99 %", in_time / turns >= 0.99),
        ("not answered", ", ".join(f"{count} {why}" for why, count in others.most_common(3)) or "none", "", True),
        ("p99 of those answered", f"{slowest:.2f} s", "", True),
        ("calls a turn", f"{calls / turns:.2f}", "<= 1.6", calls / turns <= 1.6),
        ("spliced answers", f"{spliced}", "0", spliced == 0),
    ]


async def _down(session: aiohttp.ClientSession, base: str, upstream: Unreliable, outage: float) -> list[Row]:
    asked = 0
    tasks: list[asyncio.Task[tuple[Json, float]]] = []
    is_over = asyncio.Event()

    async def send() -> None:
        nonlocal asked
        while not is_over.is_set():
            asked += 1
            tasks.append(asyncio.create_task(_ask(session, base)))
            await asyncio.sleep(1 / PER_SECOND)

    sending = asyncio.create_task(send())
    await asyncio.sleep(5)
    upstream.is_down, asked_before, calls_before, began = True, asked, upstream.calls, time.monotonic()
    opened = await _until_breaker(session, base, "closed", is_not=True, most=outage)
    await asyncio.sleep(max(0.0, outage - (time.monotonic() - began)))
    asked_then, calls_then = asked - asked_before, upstream.calls - calls_before
    upstream.is_down = False
    recovered = await _until_breaker(session, base, "closed", is_not=False, most=30)
    is_over.set()
    await sending
    await asyncio.gather(*tasks)
    extra = calls_then / asked_then - 1
    return [
        (f"model down for {outage:.0f} s: turns asked", f"{asked_then}", "", True),
        ("calls made meanwhile, more than turns", f"{extra:+.0%}", "<= +10 %", extra <= 0.1),
        ("breaker open after", f"{opened:.1f} s", "< 5 s", opened < 5),
        ("recovered after it was back", f"{recovered:.1f} s", "< 10 s", recovered < 10),
    ]


async def _until_breaker(session: aiohttp.ClientSession, base: str, state: str, *, is_not: bool, most: float) -> float:
    began = time.monotonic()
    while time.monotonic() - began < most:
        async with session.get(f"{base}/admin/routes") as answer:
            now = (await answer.json())["deployments"]["only"]["breaker"]
        if (now == state) != is_not:
            return time.monotonic() - began
        await asyncio.sleep(0.1)
    return most


async def _ask(session: aiohttp.ClientSession, base: str) -> tuple[Json, float]:
    began = time.monotonic()
    async with session.post(f"{base}/responses", json={"input": "go", "store": True}) as answer:
        return await answer.json(), time.monotonic() - began


def _completed(answer: Json) -> list[str]:
    output: list[Json] = answer.get("output") or []
    return [
        item["content"][0]["text"] for item in output if item["type"] == "message" and item["status"] == "completed"
    ]


def _table(rows: list[Row]) -> None:
    print("\n| | measured | promised |\n|---|---|---|")
    for what, measured, promised, is_kept in rows:
        print(f"| {what} | {measured} | {promised}{'' if is_kept else ' **broken**'} |")


if __name__ == "__main__":
    raise SystemExit(main())
