"""What a host takes on. Time is virtual."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from shared.errors import ModelUnavailable
from shared.models.gate import FEW, GROUP, MOST_PASSES, Gate
from shared.stages import Beginning, stage
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


# the processor is what is short


class Core:
    """One core: time is what the work on it takes, and it passes while somebody works or all wait for the next."""

    def __init__(self) -> None:
        self.time = 0.0
        self.longest_pass = 0.0
        self.waits: dict[str, list[tuple[float, float | None]]] = defaultdict(list)
        """Of each owner: when a turn was asked, and how long it waited; None: refused."""

    async def work(self, steps: int = 10) -> None:
        """A turn costs 10 ms, in ten passes of the loop: at most 100 a second."""
        for _ in range(steps):
            self.time += 0.001
            await asyncio.sleep(0)

    async def serve(self, seconds: float, rates: dict[str, float]) -> None:
        """Turns of each owner at its rate, whatever comes back."""
        gate = Gate(now=lambda: self.time, is_adaptive=False)
        asked = dict.fromkeys(rates, 0)
        turns: list[asyncio.Task[None]] = []
        while self.time < seconds:
            began = self.time
            for owner, rate in rates.items():
                while asked[owner] < self.time * rate:
                    asked[owner] += 1
                    turns.append(asyncio.create_task(self._turn(gate, owner)))
            await asyncio.sleep(0)
            if self.time == began:
                self.time += 0.0005
            elif self.time > 1:
                self.longest_pass = max(self.longest_pass, self.time - began)
        await asyncio.gather(*turns)

    async def _turn(self, gate: Gate, owner: str) -> None:
        began = self.time
        try:
            ticket = await gate.enter(owner)
        except ModelUnavailable:
            self.waits[owner].append((began, None))
            return
        self.waits[owner].append((began, self.time - began))
        await self.work()
        ticket.leave()


def test_four_times_what_the_processor_can_do_leaves_its_passes_short_and_its_turns_at_their_peak() -> None:
    core = Core()

    virtually(lambda: core.serve(20, {f"o{number}": 10 for number in range(40)}))

    served = [(began, wait) for each in core.waits.values() for began, wait in each if wait is not None]
    assert len(served) >= 0.95 * 100 * 20
    assert core.longest_pass <= 0.015
    assert max(wait for began, wait in served if began > 6) <= 2.0


def test_a_quiet_owner_is_let_in_at_once_where_a_noisy_one_takes_all_the_processor() -> None:
    core = Core()

    virtually(lambda: core.serve(10, {"quiet": 25, "noisy": 500}))

    waits = [wait for _, wait in core.waits["quiet"]]
    assert None not in waits
    assert max(wait for wait in waits if wait is not None) <= 0.05


def test_hundreds_that_one_owner_asks_at_once_are_no_overload() -> None:
    core = Core()

    virtually(lambda: core.serve(0.5, {"ada": 512}))

    waits = [wait for _, wait in core.waits["ada"]]
    assert len(waits) > 250
    assert None not in waits


def test_a_loop_that_has_time_lets_everybody_in_in_the_order_they_came() -> None:
    async def program() -> tuple[list[int], float]:
        gate, order = Gate(is_adaptive=False), list[int]()

        async def turn(number: int) -> None:
            await gate.enter("ada")
            order.append(number)

        await asyncio.gather(*(turn(number) for number in range(50)))
        return order, asyncio.get_running_loop().time()

    assert virtually(program) == (list(range(50)), 0.0)


def test_several_noisy_owners_leave_room_in_the_line_for_one_who_comes_later() -> None:
    async def program() -> list[int]:
        gate = Gate(most=8, is_adaptive=False)
        places = [gate.take("somebody") for _ in range(8)]
        waiting = [asyncio.create_task(gate.enter(f"noisy{n % 3}")) for n in range(30)]
        await asyncio.sleep(0)
        newcomer = asyncio.create_task(gate.enter("late"))
        await asyncio.sleep(0)
        refused = [task for task in waiting if task.done()]
        assert not newcomer.done()
        for place in places:
            place.leave()
        (await newcomer).leave()
        for task in {*waiting} - {*refused}:
            (await task).leave()
        await asyncio.gather(*refused, return_exceptions=True)
        return [len(refused), gate.in_flight, gate.waiting]

    refused, in_flight, waiting = virtually(program)
    assert refused > 20
    assert (in_flight, waiting) == (0, 0)


def test_who_holds_little_beside_one_who_holds_much_waits_for_no_pass() -> None:
    """Until it holds half of what they hold on average; the others wait for their passes."""

    async def program() -> tuple[bool, int]:
        gate = Gate(is_adaptive=False)
        for _ in range(20):
            gate.take("noisy")
        noisy = asyncio.create_task(gate.enter("noisy"))
        quiet = [asyncio.create_task(gate.enter("quiet")) for _ in range(12)]
        await asyncio.sleep(0)
        return noisy.done(), sum(each.done() for each in quiet)

    assert virtually(program) == (False, 7)


@pytest.mark.parametrize(("ago", "together"), [(0.5, FEW), (1.5, GROUP)])
def test_while_one_holds_little_beside_one_who_holds_much_fewer_are_let_in_together(ago: float, together: int) -> None:
    core = Core()

    async def program() -> int:
        gate = Gate(now=lambda: core.time, is_adaptive=False)
        for _ in range(20):
            gate.take("noisy")
        await gate.enter("quiet")
        for _ in range(100):
            await asyncio.sleep(0)
        core.time += ago
        newcomers = [asyncio.create_task(gate.enter("noisy")) for _ in range(20)]
        await asyncio.sleep(0)
        return sum(each.done() for each in newcomers)

    assert virtually(program) == together


def test_where_each_of_many_owners_holds_little_all_wait_for_passes() -> None:
    async def program() -> int:
        gate = Gate(is_adaptive=False)
        for number in range(60):
            gate.take(f"o{number % 20}")
        newcomers = [asyncio.create_task(gate.enter(f"new{number}")) for number in range(10)]
        await asyncio.sleep(0)
        return sum(each.done() for each in newcomers)

    assert virtually(program) == 0


@pytest.mark.parametrize(("seconds", "passes"), [(0.0005, GROUP), (0.003, GROUP * MOST_PASSES)])
def test_the_next_ones_wait_for_more_passes_while_passes_are_long(seconds: float, passes: int) -> None:
    core = Core()

    async def program() -> int:
        gate = Gate(now=lambda: core.time, is_adaptive=False)
        group = [asyncio.create_task(gate.enter("ada")) for _ in range(GROUP)]
        next_one, gone_by = asyncio.create_task(gate.enter("ada")), 0
        while not next_one.done():
            core.time += seconds
            gone_by += 1
            await asyncio.sleep(0)
        assert all(each.done() for each in group)
        return gone_by

    assert virtually(program) == pytest.approx(passes, abs=2)


@pytest.fixture
def nobody_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever other tests left behind."""
    monkeypatch.setattr(Beginning, "count", 0)


@pytest.mark.usefixtures("nobody_begins")
def test_who_comes_in_one_pass_is_let_in_before_the_first_of_them_goes_on() -> None:
    """So they go on from stage to stage together; who is alone, or the last, goes straight on."""

    async def program() -> tuple[list[str], int]:
        gate, done = Gate(is_adaptive=False), list[str]()

        async def turn(name: str, checked: int) -> None:
            ticket = await gate.enter("ada", checked=checked)
            for number in range(2):
                done.append(f"{name}{number}")
                await stage()
            ticket.hold()
            done.append(f"{name} accepted")
            await stage()
            ticket.leave()

        await asyncio.gather(turn("a", gate.check("ada")), turn("b", gate.check("ada")))
        await turn("c", gate.check("ada"))
        return done, Beginning.count

    together = ["b0", "a0", "b1", "a1", "b accepted", "a accepted"]  # b knew that nobody comes behind it
    assert virtually(program) == ([*together, "c0", "c1", "c accepted"], 0)


@pytest.mark.usefixtures("nobody_begins")
@pytest.mark.parametrize("passes", [0, 1])
def test_who_leaves_while_it_is_let_in_gives_its_place_back(passes: int) -> None:
    async def program() -> tuple[int, int]:
        gate = Gate(most=1, is_adaptive=False)
        checked = gate.check("ada")
        gate.check("ada")
        task = asyncio.create_task(gate.enter("ada", checked=checked))
        for _ in range(passes):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return gate.in_flight, Beginning.count

    assert virtually(program) == (0, 0)


@pytest.mark.usefixtures("nobody_begins")
def test_who_holds_little_beside_others_who_hold_much_waits_at_no_stage() -> None:
    async def program() -> list[str]:
        gate, done = Gate(is_adaptive=False), list[str]()
        for _ in range(8):
            gate.take("noisy")

        async def turn(owner: str) -> None:
            ticket = await gate.enter(owner)
            for number in range(3):
                done.append(f"{owner}{number}")
                await stage()
            ticket.leave()

        noisy = [asyncio.create_task(turn("noisy")) for _ in range(2)]
        for _ in range(20):
            await asyncio.sleep(0)
            if done:
                break
        await turn("quiet")
        await asyncio.gather(*noisy)
        return done

    done = virtually(program)
    first = done.index("quiet0")
    assert done[first : first + 3] == ["quiet0", "quiet1", "quiet2"]
    assert done.index("noisy0") < first < done.index("noisy2")
