"""How long streams rest. Time is virtual, and there is one core."""

import asyncio
from typing import Any, cast

import pytest

from shared.models.pacing import Pace
from tests.sim.loop import VirtualLoop, run_virtual

INTERVAL = 0.1
COST = 0.0005
"""Seconds of the core for what was read after one rest."""


class Socket:
    """Of a model that speaks slowly; counts who rests."""

    def __init__(self) -> None:
        self.resting = 0

    def pause(self) -> bool:
        self.resting += 1
        return True

    def resume(self) -> None:
        self.resting -= 1


class Host:
    """So many streams until a moment, then one of them goes on alone."""

    def __init__(self, loop: VirtualLoop, streams: int) -> None:
        self.loop = loop
        self.streams = streams
        self.socket = Socket()
        self.rests: list[tuple[float, float]] = []
        """When each began, and its seconds."""
        self.lateness: list[float] = []
        """Of somebody beside them who wants to wake every 10 ms."""

    async def run(self, until: float, alone_until: float = 0.0) -> None:
        ends = [max(until, alone_until), *[until] * (self.streams - 1)]
        await asyncio.gather(self._bystander(until), *(self._stream(end) for end in ends))

    async def _stream(self, end: float) -> None:
        pace = Pace(INTERVAL)
        while (began := self.loop.time()) < end:
            await pace.rest(cast(Any, self.socket), 500)
            self.rests.append((began, self.loop.time() - began))
            self.loop.work(COST)

    async def _bystander(self, end: float) -> None:
        while self.loop.time() < end:
            due = self.loop.time() + 0.01
            await asyncio.sleep(0.01)
            self.lateness.append(self.loop.time() - due)

    def mean_rest(self, since: float, until: float) -> float:
        found = [seconds for began, seconds in self.rests if since <= began < until]
        return sum(found) / len(found)


@pytest.mark.parametrize("streams", [1, 64])
def test_where_the_core_has_time_a_rest_is_an_interval(streams: int) -> None:
    async def program(loop: VirtualLoop) -> Host:
        host = Host(loop, streams)
        await host.run(5)
        return host

    host = run_virtual(program)
    assert host.mean_rest(1, 5) == pytest.approx(INTERVAL, rel=0.15)
    assert host.socket.resting == 0


def test_where_it_has_none_rests_are_longer_and_the_loop_stays_on_time() -> None:
    """400 streams, of half a millisecond each: twice of what an interval holds."""

    async def program(loop: VirtualLoop) -> Host:
        host = Host(loop, 400)
        await host.run(10)
        return host

    host = run_virtual(program)
    assert 2 * INTERVAL <= host.mean_rest(3, 10) <= 3 * INTERVAL
    late = host.lateness[len(host.lateness) // 3 :]
    assert sum(late) / len(late) <= INTERVAL / 2


def test_when_there_is_time_again_they_are_as_long_as_before_within_seconds() -> None:
    async def program(loop: VirtualLoop) -> Host:
        host = Host(loop, 400)
        await host.run(5, alone_until=15)
        return host

    host = run_virtual(program)
    assert host.mean_rest(3, 5) >= 2 * INTERVAL
    assert host.mean_rest(12, 15) == pytest.approx(INTERVAL, rel=0.15)


@pytest.mark.parametrize(("busy", "first"), [(0.0, INTERVAL / 8), (0.009, INTERVAL)])
def test_the_first_rests_are_short_where_wake_ups_are_on_time(busy: float, first: float) -> None:
    """What else the host does takes so long at a time, and again after 5 ms; one stream is open, another begins."""

    async def program(loop: VirtualLoop) -> float:
        host = Host(loop, 1)
        running = asyncio.create_task(host.run(3))
        while loop.time() < 2.5:
            loop.work(busy)
            await asyncio.sleep(0.0047)
        pace, began = Pace(INTERVAL), loop.time()
        await pace.rest(cast(Any, host.socket), 500)
        rested = loop.time() - began
        await running
        return rested

    assert run_virtual(program) == pytest.approx(first, abs=INTERVAL / 5)
