"""Bugs that the sweep and the simulation have found, each as the shortest story that shows it."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from shared.clock import ManualClock
from shared.conversations.records import TurnRecord
from shared.errors import StorageUnavailable
from shared.models.base import ItemStarted, TextDelta
from shared.storage.base import EVENTS
from shared.turns.cancel import cancel_turn
from shared.turns.journal import Journal
from shared.turns.live import LiveTurn
from shared.turns.output import Output
from shared.turns.recovery import recover
from shared.turns.writer import Writer
from tests.sim.client import Client
from tests.sim.flows import COMPANION, FLOWS
from tests.sim.hosts import Host
from tests.sim.invariants import check_world, turns_of
from tests.sim.loop import VirtualLoop, run_virtual
from tests.sim.store import FAIR, HostStore, MemoryStore, Weather
from tests.sim.sweep import run_flow
from tests.sim.world import OWNER, Machine, World


def test_a_turn_ends_though_its_conversation_was_deleted() -> None:
    """Its commit used to fail for ever: the header that it wants to let go of is not there any more."""
    assert not run_flow(FLOWS["conversation deleted"]).violations


@pytest.mark.parametrize("name", ["tool with an effect", "idempotent tool"])
def test_no_call_of_a_resumed_tool_loop_is_shown_what_was_torn(name: str) -> None:
    """The first one was not; those after a tool's output were."""
    assert not run_flow(FLOWS[name], A=("model.ArgumentsDelta after", 1)).violations


@pytest.mark.parametrize("number", [2, 3, 4, 5])
def test_torn_text_stays_torn_when_the_next_host_dies_too(number: int) -> None:
    """That it was torn was known to that host alone, so the third one took it for the answer."""
    outcome = run_flow(FLOWS["streamed"], A=("model.TextDelta after", 3), B=("store.batch after", number))

    assert not outcome.violations


def test_a_response_that_was_half_deleted_can_be_deleted_again() -> None:
    """Its record went first, so the retry found nothing, and its events stayed for a day."""
    for number in range(1, 9):
        assert not run_flow(FLOWS["delete"], A=28 + number, B=number).violations


def test_a_stream_is_whole_when_a_turn_was_taken_twice_before_its_end() -> None:
    """The follower had taken the turn over, lost it to a canceller, and skipped what that one had appended."""
    outcome = run_flow(FLOWS["cancel, canceller dies"], A=("store.batch after", 3), B=("model.TextDelta after", 1))

    assert not outcome.violations


def test_a_turn_that_is_given_up_leaves_no_call_open() -> None:
    """The call that killed three hosts stayed `in_progress` in a response that had failed."""
    deadly = ("tool.safe before", 1)

    assert not run_flow(FLOWS["idempotent tool"], A=deadly, B=deadly, C=deadly).violations


def story(tell: Callable[[World, Machine, Machine], Awaitable[None]], *, seed: str = "") -> list[str]:
    """A world with two processes, what happens in it, and what that broke."""

    async def program(loop: VirtualLoop) -> list[str]:
        world = World(loop, seed=seed)
        a, b = world.start("A"), world.start("B")
        await tell(world, a, b)
        a.host.thaw()
        b.host.thaw()
        await asyncio.sleep(120)
        await check_world(world, world.start("judge"))
        world.end()
        return world.violations

    return run_virtual(program)


def test_a_background_turn_that_ends_while_it_is_sent_again_leaves_its_slot() -> None:
    """A slow recovery timer gave it another one, for ever; four of those and the owner's line stood still."""

    async def tell(world: World, a: Machine, b: Machine) -> None:
        shown = await Client(world, [a]).stream(input="say 2", background=True, hang_up=lambda _: True, come_back=False)
        world.queue.messages.clear()
        await asyncio.sleep(40)
        reads = 0

        def stand_still(host: Host, label: str) -> None:
            nonlocal reads
            reads += label == "store.read after"
            if reads == 2 and label == "store.read after":
                host.freeze()

        b.host.on_point = stand_still
        timer = b.host.spawn(recover(b.app))
        await asyncio.sleep(1)
        assert b.host.is_frozen
        world.queue.put({"owner": OWNER, "turn": shown.id}, delay=0)
        a.serve_background()
        await asyncio.sleep(5)
        b.host.thaw()
        await timer

    assert not story(tell)


def test_a_store_that_refuses_for_a_moment_tears_no_answer() -> None:
    """One refused append used to end the turn on its host: a pause, a take-over and a torn text."""

    async def tell(world: World, a: Machine, b: Machine) -> None:
        del b

        async def trouble() -> None:
            await asyncio.sleep(0.3)
            a.store.weather = Weather(throttled=1.0)
            await asyncio.sleep(0.5)
            a.store.weather = FAIR

        asyncio.get_running_loop().create_task(trouble())
        turn = await Client(world, [a]).stream(input="say 20")
        record = turns_of(world)[turn.id or ""]
        if record.attempt != 1 or record.torn:
            world.accuse(f"attempt {record.attempt}, torn {record.torn}")

    assert not story(tell)


def test_a_late_retry_of_a_send_whose_response_was_deleted_makes_no_new_one() -> None:
    async def tell(world: World, a: Machine, b: Machine) -> None:
        client = Client(world, [a])
        shown = await client.stream(key="k", input="say 2")
        await client.delete(shown.id or "")
        client.machines = [b]
        again = await client.stream(key="k", input="say 2")
        if not again.is_gone or turns_of(world):
            world.accuse("it was made again")

    assert not story(tell)


def test_a_twin_is_joined_by_a_host_whose_replica_lags_behind() -> None:
    """It found the key taken but no turn, and told its client that there was none."""

    async def tell(world: World, a: Machine, b: Machine) -> None:
        b.store.weather = Weather(lag=0.2)
        clients = Client(world, [a]), Client(world, [b])
        first, second = await asyncio.gather(*(client.stream(key="k", input="say 9") for client in clients))
        if first.blocks != second.blocks:
            world.accuse("two tabs were shown different streams")

    for _ in range(5):
        assert not story(tell)


def test_cancelling_during_an_append_loses_no_event() -> None:
    """The events had their numbers already: the stream went on behind a gap."""

    async def tell(world: World, a: Machine, b: Machine) -> None:
        del b
        a.store.weather = Weather(latency=(0.03, 0.03))
        for moment in range(24):
            client = Client(world, [a])
            reading = asyncio.create_task(client.stream(input="use once", tools=COMPANION))
            await asyncio.sleep(0.2 + moment * 0.01)
            await client.cancel(client.shown[0].id or "")
            await reading

    assert not story(tell)


def test_two_sends_with_one_key_on_one_host_are_one_turn_though_the_store_times_out() -> None:
    """The second took the first one's record for its own lost try, and wrote another answer into the same journal."""

    async def tell(world: World, a: Machine, b: Machine) -> None:
        del b
        first, second = Client(world, [a]), Client(world, [a])
        reading = asyncio.create_task(first.stream(key="k", input="say 9"))
        await asyncio.sleep(0.003)
        a.store.weather = Weather(latency=(0.002, 0.002), throttled=0.3)
        again = await second.stream(key="k", input="say 9")
        a.store.weather = FAIR
        if (await reading).blocks != again.blocks:
            world.accuse("the two are shown different streams")

    for number in range(40):
        assert not story(tell, seed=str(number))


async def test_nothing_is_appended_behind_an_append_that_failed() -> None:
    """A tool call that was waiting to be noted went in at the place of the events that were lost."""
    clock = ManualClock()
    store = MemoryStore(clock)
    chance = random.Random(0)
    troubled = HostStore(store, Host("A"), weather=Weather(latency=(0, 0), throttled=1.0), chance=chance)
    record = TurnRecord(id="resp_t", group="g", sort="s", depth=0, status="in_progress", created_at=0)
    output = Output("t")
    journal = Journal(troubled, "resp_t", clock, writer="A.1", lease=1.0)
    writer = Writer(output, LiveTurn(record), journal, interval=0.1, lease=1.0)

    output.feed(ItemStarted(0, "message"))
    with pytest.raises(StorageUnavailable):
        await writer.flush()
    troubled.weather = FAIR
    output.feed(TextDelta(0, "Hello"))
    with pytest.raises(StorageUnavailable):
        await writer.flush()

    assert not store.all(EVENTS, "resp_t")


def test_a_zombie_of_a_deleted_turn_runs_no_tool() -> None:
    """With the journal its fence was deleted: a host that had stood still went on, and the tool took effect twice."""

    async def tell(world: World, a: Machine, b: Machine) -> None:
        def stand_still(host: Host, label: str) -> None:
            if label == "model.ArgumentsDelta after":
                host.freeze()

        a.host.on_point = stand_still
        client = Client(world, [a, b])
        client.patience = 3.0
        shown = await client.stream(key="k", input="use once", tools=COMPANION)
        client.machines = [b]
        await client.delete(shown.id or "")
        a.host.on_point = None
        a.host.thaw()
        await asyncio.sleep(10)
        if sum(world.tool_runs.values()) != 1:
            world.accuse(f"{world.tool_runs}")

    assert not story(tell)


def test_a_message_that_is_faster_than_the_replica_is_not_dropped() -> None:
    """The worker did not find the turn yet, took it for done, and its owner waited for the recovery timer."""

    async def tell(world: World, a: Machine, b: Machine) -> None:
        b.store.weather = Weather(lag=0.2)
        b.serve_background()
        began = world.loop.time()
        await Client(world, [a]).stream(input="say 2", background=True)
        if world.loop.time() - began > 5:
            world.accuse(f"it took {world.loop.time() - began:.1f} s")

    for number in range(10):
        assert not story(tell, seed=str(number))


def test_a_cancel_that_stood_still_while_another_was_faster_tells_the_same_end() -> None:
    """Its append failed on the fence, as it should, and that reached its client as an error of the server."""

    async def tell(world: World, a: Machine, b: Machine) -> None:
        c = world.start("C")
        shown = await Client(world, [a]).stream(input="say 20", hang_up=lambda _: True, come_back=False)
        assert shown.id is not None
        a.host.freeze()
        await asyncio.sleep(5)
        scans = 0

        def stand_still(host: Host, label: str) -> None:
            nonlocal scans
            scans += label == "store.scan after"
            if scans == 2 and label == "store.scan after":  # it has claimed the turn, sealed the journal and read it
                host.freeze()

        b.host.on_point = stand_still
        slow = b.host.spawn(cancel_turn(b.app, OWNER, shown.id))
        await asyncio.sleep(5)
        assert b.host.is_frozen
        fast = await c.host.spawn(cancel_turn(c.app, OWNER, shown.id))
        b.host.thaw()

        assert (await slow).status == fast.status == "cancelled"

    assert not story(tell)
