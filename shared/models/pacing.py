"""How often a stream is read. Words that would wait for the next interval anyway wait where that costs nothing.

A token that comes alone costs a wake-up of the process: a read, a callback, a task. So between two reads the socket
rests, and what comes meanwhile gathers in the kernel: one wake-up for all of it. Rests end on a common grid, so that
the streams of a host wake together, and their appends to the journal become one commit.
"""

import asyncio
import math
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from shared.models.connections import Answer

MUCH = 16 * 1024
"""Bytes of one read that tell of more to come at once: a server that speaks faster than it is heard is not left
waiting."""
GRID = 5
"""Wake-ups in an interval: streams share them."""
_FIRST = 1 / 8
"""Of an interval: the first rest; each one is twice as long, up to the whole. A short answer hardly waits."""


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
        try:
            await _until(self._end())
        finally:
            answer.resume()

    def _end(self) -> float:
        """The point of the grid that is nearest to when the rest should end."""
        wanted = self._interval * self._share
        self._share = min(1.0, self._share * 2)
        step = self._interval / GRID
        return math.floor((asyncio.get_running_loop().time() + wanted) / step + 0.5) * step


def point_before(moment: float, interval: float) -> float:
    """The last point of the grid up to a moment of the event loop's clock."""
    step = interval / GRID
    return math.floor(moment / step) * step


_points: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[float, list[asyncio.Future[None]]]] = WeakKeyDictionary()
"""Who rests until which point of the grid. They share a timer: timers of their own would not end in the same pass of
the loop, and what they wake would not be written in the same commit."""


async def _until(end: float) -> None:
    loop = asyncio.get_running_loop()
    points = _points.setdefault(loop, {})
    resting = points.get(end)
    if resting is None:
        resting = points[end] = []
        loop.call_at(end, _wake, points, end)
    rest: asyncio.Future[None] = loop.create_future()
    resting.append(rest)
    await rest


def _wake(points: dict[float, list[asyncio.Future[None]]], end: float) -> None:
    for rest in points.pop(end):
        if not rest.done():  # its stream was given up
            rest.set_result(None)
