"""`make bench-overload`: four times the load that the host can serve, and an owner who asks for twenty times its share.

    python -m bench.overload            fifteen seconds each
    python -m bench.overload --full     a minute each
    python -m bench.overload --cpu      as many places as by default: the processor is what is short
    python -m bench.overload --instant  the same, and the model answers at once

What is short is the host's places (COMPANION_CONCURRENCY) or its core, so that the load and the model, which share the
other core, are no part of what is measured.
"""

import argparse
import asyncio
import dataclasses
import gc
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from bench.servers import LOAD_CORE, SERVER_CORE, Server, pin
from bench.unreliable import Unreliable, serving
from shared.settings import Limits
from tests.processes import free_port, running

OWNERS = 40
PLACES = 24
WIDTHS = (24, 48, 96, 192)
"""Turns at a time among which the processor's peak is looked for."""
WORDS, PAUSE = 20, 0.03


@dataclass(slots=True)
class Tally:
    """What came back."""

    served: list[float] = field(default_factory=list[float])
    """Seconds each."""
    in_time: int = 0
    """Served before the load ended: what was answered later had only been queued."""
    refused: list[float] = field(default_factory=list[float])
    unsaid: int = 0
    """Refusals without Retry-After."""
    failed: int = 0
    how: Counter[str] = field(default_factory=Counter[str])


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.overload", description=__doc__)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--instant", action="store_true")
    options = parser.parse_args()
    seconds = 60.0 if options.full else 15.0
    pause = 0.0 if options.instant else PAUSE
    return asyncio.run(_run(seconds, pause, None if options.cpu or options.instant else PLACES))


async def _run(seconds: float, pause: float, places: int | None) -> int:
    async with serving(Unreliable(words=WORDS, pause=pause)) as url:
        with tempfile.TemporaryDirectory() as data:
            port = free_port()
            env = _settings(url, places)
            command = [sys.executable, "-m", "localhost", "--port", str(port), "--data", data]
            server = running(command, ready=f"http://127.0.0.1:{port}/healthz", env=env)
            pin(SERVER_CORE)  # inherited
            process = await asyncio.to_thread(server.__enter__)
            pin(LOAD_CORE)
            try:
                async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
                    load = Load(session, f"http://127.0.0.1:{port}/v1")
                    companion = Server("companion", port, process, Path(data))
                    rows = await _measure(load, companion, seconds, [places] if places else WIDTHS)
            finally:
                await asyncio.to_thread(server.__exit__, None, None, None)
    print("\n| | measured | promised |\n|---|---|---|")
    for what, measured, promised, is_kept in rows:
        print(f"| {what} | {measured} | {promised}{'' if is_kept else ' **broken**'} |")
    return 0 if all(is_kept for *_, is_kept in rows) else 1


def _settings(url: str, places: int | None) -> dict[str, str]:
    routes = {"deployments": {"only": {"endpoint": url, "model": "m"}}, "models": {"companion": {"chain": ["only"]}}}
    return {
        "COMPANION_ROUTES": json.dumps(routes),
        "COMPANION_TITLES": "off",
        **({"COMPANION_CONCURRENCY": str(places)} if places else {}),
        "COMPANION_PLANS": json.dumps({"default": {each.name: None for each in dataclasses.fields(Limits)}}),
        "COMPANION_API_KEYS": ",".join(f"key{number}=owner{number}" for number in range(OWNERS)),
    }


async def _measure(
    load: "Load", server: Server, seconds: float, widths: Sequence[int]
) -> list[tuple[str, str, str, bool]]:
    await load.closed(4, 2.0)
    each = seconds / len(widths)
    found = [(await load.closed(width, each)).in_time / each for width in widths]
    rate = max(found)
    before = server.memory()
    over = await load.open(rate * 4, seconds, lambda number: number % OWNERS)
    memory = server.memory()
    await asyncio.sleep(2)
    goodput = over.in_time / seconds
    share = rate / 4
    alone = await load.open(share, seconds, lambda number: 0)
    quiet, noisy = await asyncio.gather(
        load.open(share, seconds, lambda number: 0), load.open(share * 20, seconds, lambda number: 1)
    )
    slowest_refusal = _p99(over.refused)
    rows = [
        (f"peak: {widths[found.index(rate)]} at a time", f"{rate:.1f} turns/s", "", True),
        ("offered", f"{rate * 4:.0f} turns/s for {seconds:.0f} s", "", True),
        ("goodput", f"{goodput:.1f} turns/s, {goodput / rate:.0%} of the peak", ">= 80 %", goodput >= 0.8 * rate),
        ("refused with 503", f"{len(over.refused)}", "", True),
        ("failed otherwise", _failures(over), "0", over.failed == 0),
        ("refusals without Retry-After", f"{over.unsaid}", "0", over.unsaid == 0),
        ("p99 of a refusal", f"{slowest_refusal * 1000:.0f} ms", "< 100 ms", slowest_refusal < 0.1),
        ("p99 of an answer", f"{_p99(over.served):.2f} s", "", True),
        ("lateness of the load itself, p99 and most", _lateness(load), "", True),
        ("memory before and after", f"{before:.0f} MB, {memory:.0f} MB", "bounded", memory < before * 1.5 + 50),
    ]
    ratio = _p99(quiet.served) / _p99(alone.served)
    return [
        *rows,
        ("a quiet owner alone: p99", f"{_p99(alone.served):.2f} s", "", True),
        (
            "beside one at twenty times its share: p99",
            f"{_p99(quiet.served):.2f} s, {ratio:.2f} times",
            "<= 1.5 times",
            ratio <= 1.5,
        ),
        ("the quiet owner's refusals", f"{len(quiet.refused)}", "", True),
        ("the noisy owner's", f"{len(noisy.refused)} of {len(noisy.refused) + len(noisy.served)}", "", True),
    ]


class Load:
    """Asks plain, short turns."""

    def __init__(self, session: aiohttp.ClientSession, base: str) -> None:
        self._session = session
        self._base = base
        self.lateness: list[float] = []
        """Of its own loop: where it is much, what was measured is the load."""

    async def closed(self, workers: int, seconds: float) -> Tally:
        """So many at a time."""
        tally, end = Tally(), time.monotonic() + seconds

        async def work(owner: int) -> None:
            while time.monotonic() < end:
                await self._ask(owner % OWNERS, tally, end)

        await asyncio.gather(*(work(number) for number in range(workers)))
        return tally

    async def open(self, rate: float, seconds: float, owner: Callable[[int], int]) -> Tally:
        """So many a second, whatever comes back. Python's collector waits until the end: with thousands of requests
        open it would stop the load for a tenth of a second and more, and what was measured would be that."""
        gc.collect()
        gc.disable()
        try:
            return await self._open(rate, seconds, owner)
        finally:
            gc.enable()

    async def _open(self, rate: float, seconds: float, owner: Callable[[int], int]) -> Tally:
        tally, began = Tally(), time.monotonic()
        tasks: list[asyncio.Task[None]] = []
        number = 0
        while (now := time.monotonic() - began) < seconds:
            while number < now * rate:
                tasks.append(asyncio.create_task(self._ask(owner(number), tally, began + seconds)))
                number += 1
            expected = time.monotonic() + 0.005
            await asyncio.sleep(0.005)
            self.lateness.append(time.monotonic() - expected)
        await asyncio.gather(*tasks)
        return tally

    async def _ask(self, owner: int, tally: Tally, end: float) -> None:
        began = time.monotonic()
        headers = {"authorization": f"Bearer key{owner}"}
        body = {"input": f"go {began}"}
        try:
            async with self._session.post(f"{self._base}/responses", json=body, headers=headers) as answer:
                said = await answer.json()
        except aiohttp.ClientError as error:
            tally.failed += 1
            tally.how[repr(error)[:80]] += 1
            return
        took = time.monotonic() - began
        if answer.status == 200 and said["status"] == "completed":
            tally.served.append(took)
            tally.in_time += time.monotonic() < end
        elif answer.status == 503:
            tally.refused.append(took)
            tally.unsaid += "retry-after" not in answer.headers
        else:
            tally.failed += 1
            tally.how[f"{answer.status} {str(said)[:80]}"] += 1


def _failures(tally: Tally) -> str:
    return ", ".join([f"{tally.failed}", *(f"{count} x {how}" for how, count in tally.how.most_common(3))])


def _lateness(load: Load) -> str:
    return f"{_p99(load.lateness) * 1000:.0f} ms, {max(load.lateness) * 1000:.0f} ms"


def _p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)] if values else 0.0


if __name__ == "__main__":
    raise SystemExit(main())
