"""When what a model said is shown. Time is virtual; the parts around the writer are stand-ins that note the moment."""

import asyncio
from typing import Any

import pytest

from shared.turns.writer import Writer
from tests.sim.loop import VirtualLoop, run_virtual

INTERVAL = 0.1
STEP = INTERVAL / 5
"""Of the grid on which models are read."""


class Parts:
    """Output, live turn and journal in one: a read is told, and then shown, by the moment it happened at."""

    number = 1
    readers = 1
    is_ending = False

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._told: list[float] = []
        self.waits: list[float] = []
        """Of each read: seconds until it was shown."""

    @property
    def is_dirty(self) -> bool:
        return bool(self._told)

    def tell(self) -> None:
        self._told.append(self._loop.time())

    def drain(self) -> list[Any]:
        self.waits += [self._loop.time() - moment for moment in self._told]
        self._told = []
        return []

    async def append(self, *_: Any, **__: Any) -> None: ...

    async def sign_of_life(self) -> None: ...


async def follow(loop: VirtualLoop, reads: list[float]) -> tuple[list[float], list[float]]:
    """The moments of the flushes and the waits of what was read at those moments."""
    parts: Any = Parts(loop)
    writer = Writer(parts, parts, parts, interval=INTERVAL, lease=60.0)
    flushes: list[float] = []
    flush = parts.drain

    def drain() -> list[Any]:
        flushes.append(loop.time())
        return flush()

    parts.drain = drain
    writer.start(None)
    for moment in reads:
        await asyncio.sleep(max(0.0, moment - loop.time()))
        parts.tell()
        writer.touch()
    await asyncio.sleep(INTERVAL * 2)
    await writer.stop()
    return flushes, parts.waits


@pytest.mark.parametrize("first", [0.0, 0.001, 0.013, 0.0199])
@pytest.mark.parametrize("late", [0.0005, 0.003, 0.009, 0.015])
def test_what_is_read_once_an_interval_is_shown_at_once(first: float, late: float) -> None:
    """The first words at any moment, then at points of the grid: a step later, two, and then one an interval."""
    begun = 10.0

    async def program(loop: VirtualLoop) -> tuple[list[float], list[float]]:
        points = [begun + STEP, begun + 2 * STEP, *(begun + INTERVAL * count for count in range(1, 40))]
        return await follow(loop, [begun + first, *(point + late for point in points)])

    flushes, waits = run_virtual(program)
    assert waits[0] == pytest.approx(0, abs=0.001), "the first words go at once"
    assert max(waits[1:3]) <= INTERVAL
    assert max(waits[3:]) <= INTERVAL * 0.06, "what is read then waits no interval more"
    assert len(flushes) == 1 + 39, "and still there is one append an interval"


def test_what_comes_without_a_pause_is_appended_once_an_interval() -> None:
    async def program(loop: VirtualLoop) -> tuple[list[float], list[float]]:
        return await follow(loop, [10 + count * 0.004 for count in range(500)])

    flushes, waits = run_virtual(program)
    assert len(flushes) <= 2.0 / INTERVAL + 2
    assert max(waits) <= INTERVAL * 1.3
    assert sum(waits) / len(waits) <= INTERVAL * 0.6
