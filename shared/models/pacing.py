"""How often a stream is read. Words that would wait for the next interval anyway wait where that costs nothing.

A token that comes alone costs a wake-up of the process: a read, a callback, a task. So between two reads the socket
rests, and what comes meanwhile gathers in the kernel: one wake-up for all of it. Rests end on a common grid, so that
the streams of a host wake together, and their appends to the journal become one commit.

A host with more streams than its processor can serve that often lets them rest longer, up to three intervals: words
that come in larger pieces, but come, instead of later and later ones.
"""

import asyncio
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from shared.models.connections import Answer

MUCH = 16 * 1024
"""Bytes of one read that tell of more to come at once: a server that speaks faster than it is heard is not left
waiting."""
GRID = 5
"""Wake-ups in an interval: streams share them."""
MOST = 3.0
"""Intervals that a rest is stretched to while the event loop is late."""
LATE = 0.5
"""Of the grid's step: how late, on average, a wake-up is while the processor is short."""
_MEMORY = 0.2
"""How much the last wake-up counts in that average."""
_STRETCH, _RELAX = 1.1, 0.98
"""What a wake-up changes: longer at once, shorter again within seconds."""
_FIRST = 1 / 8
"""Of an interval: the first rest; each one is twice as long, up to the whole. A short answer hardly waits."""
BEHIND = 0.1
"""Of the grid's step: how late wake-ups are, on average, where the first rests are no shorter than the others: their
wake-ups would take the time of the turns that begin beside them."""


class Pace:
    """The rests of one stream."""

    __slots__ = ("_interval", "_share")

    def __init__(self, interval: float) -> None:
        self._interval = interval
        """Seconds; 0: no rests."""
        self._share = _FIRST

    async def rest(self, answer: "Answer", size: int) -> None:
        """After a read of so many bytes that said something: let the socket rest for a while."""
        if not self._interval or size > MUCH or not answer.pause():
            return
        grid = _grid()
        try:
            await _until(grid, self._end(grid), self._interval / GRID)
        finally:
            answer.resume()

    def _end(self, grid: "_Grid") -> float:
        """The point of the grid that is nearest to when the rest should end."""
        if grid.late > self._interval / GRID * BEHIND:
            self._share = 1.0
        wanted = self._interval * self._share * grid.stretch
        self._share = min(1.0, self._share * 2)
        step = self._interval / GRID
        return math.floor((asyncio.get_running_loop().time() + wanted) / step + 0.5) * step


@dataclass(slots=True)
class _Grid:
    """The rests of one event loop."""

    points: dict[float, list[asyncio.Future[None]]] = field(default_factory=dict[float, list[asyncio.Future[None]]])
    """Who rests until which point. They share a timer: timers of their own would not end in the same pass of the loop,
    and what they wake would not be written in the same commit."""
    stretch: float = 1.0
    late: float = 0.0
    """Seconds, a moving average."""

    def look(self, late: float, step: float) -> None:
        """At how late a wake-up was."""
        self.late += (late - self.late) * _MEMORY
        change = _STRETCH if self.late > step * LATE else _RELAX
        self.stretch = min(MOST, max(1.0, self.stretch * change))


_grids: WeakKeyDictionary[asyncio.AbstractEventLoop, _Grid] = WeakKeyDictionary()


def _grid() -> _Grid:
    return _grids.setdefault(asyncio.get_running_loop(), _Grid())


async def _until(grid: _Grid, end: float, step: float) -> None:
    loop = asyncio.get_running_loop()
    resting = grid.points.get(end)
    if resting is None:
        resting = grid.points[end] = []
        loop.call_at(end, _wake, loop, grid, end, step)
    rest: asyncio.Future[None] = loop.create_future()
    resting.append(rest)
    await rest


def _wake(loop: asyncio.AbstractEventLoop, grid: _Grid, end: float, step: float) -> None:
    grid.look(loop.time() - end, step)
    for rest in grid.points.pop(end):
        if not rest.done():  # its stream was given up
            rest.set_result(None)
