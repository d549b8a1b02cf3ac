"""What a host takes on. Time is virtual."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from shared.errors import ModelUnavailable
from shared.models.gate import Gate
from tests.sim.loop import VirtualLoop, run_virtual


def virtually[T](program: Callable[[], Coroutine[Any, Any, T]]) -> T:
    async def run(loop: VirtualLoop) -> T:
        return await program()

    return run_virtual(run)


async def work(gate: Gate, owner: str, seconds: float = 1.0) -> float | None:
    """Seconds from wish to place; None: refused, which must be at once."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        ticket = await gate.enter(owner)
    except ModelUnavailable as refusal:
        assert refusal.retry_after is not None
        assert refusal.retry_after >= 1
        assert loop.time() == began
        return None
    waited = loop.time() - began
    await asyncio.sleep(seconds)
    ticket.leave()
    return waited


async def after(seconds: float, doing: Coroutine[Any, Any, float | None]) -> float | None:
    await asyncio.sleep(seconds)
    return await doing


def test_four_times_what_it_can_do_leaves_it_at_its_peak() -> None:
    """20 places, a second each: 20 a second at best; 80 a second come, of many owners."""

    async def program() -> list[float | None]:
        gate = Gate(most=20)
        return await asyncio.gather(*(after(n / 80, work(gate, f"o{n}")) for n in range(80 * 30)))

    waits = [wait for wait in virtually(program) if wait is not None]
    assert len(waits) >= 0.8 * 20 * 30
    assert max(waits) <= 2.0


def test_a_noisy_owner_leaves_a_quiet_one_almost_undisturbed() -> None:
    """The noisy one asks for twenty times its half of the places; the quiet one once a second."""

    async def program() -> list[float | None]:
        gate = Gate(most=20)
        noisy = [after(n / 200, work(gate, "noisy")) for n in range(200 * 20)]
        quiet = [after(2 + n, work(gate, "quiet")) for n in range(18)]
        results = await asyncio.gather(*noisy, *quiet)
        return results[len(noisy) :]

    waits = virtually(program)
    assert None not in waits
    assert max(wait for wait in waits if wait is not None) <= 0.5


def test_who_leaves_the_line_makes_room() -> None:
    async def program() -> tuple[int, int]:
        gate = Gate(most=1)
        holder = await gate.enter("a")
        waiting = asyncio.create_task(gate.enter("b"))
        await asyncio.sleep(0.01)
        assert gate.waiting == 1
        waiting.cancel()
        await asyncio.wait([waiting])
        holder.leave()
        holder.leave()
        return gate.waiting, gate.in_flight

    assert virtually(program) == (0, 0)


def test_a_late_event_loop_shrinks_it_and_a_timely_one_lets_it_grow_back() -> None:
    late = 0.0

    async def program() -> tuple[float, float]:
        nonlocal late
        loop = asyncio.get_running_loop()
        gate = Gate(most=100, now=lambda: loop.time() * (1 + late))
        tickets = [gate.take("a") for _ in range(80)]
        late = 10.0
        await asyncio.sleep(2)
        shrunk = gate.limit
        late = 0.0
        await asyncio.sleep(120)
        for ticket in tickets:
            ticket.leave()
        await asyncio.sleep(1)
        return shrunk, gate.limit

    shrunk, grown = virtually(program)
    assert shrunk < 70
    assert grown == 100


@pytest.mark.parametrize("most", [1, 2, 4])
def test_even_the_smallest_serves_everyone_in_the_end(most: int) -> None:
    async def program() -> list[float | None]:
        gate = Gate(most=most, patience=60)
        return await asyncio.gather(*(work(gate, f"o{n % 3}") for n in range(12)))

    assert None not in virtually(program)


def test_what_would_be_refused_is_known_before_anything_is_done_for_it() -> None:
    """One place, taken, and a line that is full: the check says what `enter` would, and counts it as refused."""

    async def program() -> tuple[bool, int]:
        gate = Gate(most=1, is_adaptive=False)
        gate.check("ada")
        ticket = await gate.enter("ada")
        waiting = asyncio.create_task(gate.enter("bob"))
        await asyncio.sleep(0)
        with pytest.raises(ModelUnavailable):
            gate.check("ada")
        is_refused = gate.refused == 1
        ticket.leave()
        (await waiting).leave()
        gate.check("ada")
        return is_refused, gate.in_flight

    assert virtually(program) == (True, 0)
