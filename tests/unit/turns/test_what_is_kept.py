"""What a turn holds while it runs, and that nothing is left of it afterwards; counted in objects, not in bytes."""

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from shared.app import App
from shared.conversations.records import TurnRecord
from shared.models.base import Finished, ItemDone, ItemStarted, ModelEvent, ModelRequest, TextDelta
from shared.turns.context import Context
from shared.turns.events import Batch, encode
from shared.turns.journal import Journal
from shared.turns.ledger import KnownUsage, Ledger
from shared.turns.live import LiveTurn
from shared.turns.output import Output
from shared.turns.prepare import Plan
from shared.turns.run import Run
from shared.turns.writer import Writer
from shared.usage.records import Reservation
from tests.unit.turns.asking import begin
from tests.unit.turns.conftest import MakeApp

MANY = 12


class WaitingModel:
    """Says a word, waits until it may go on, and ends."""

    def __init__(self) -> None:
        self.may_end = asyncio.Event()

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        yield ItemStarted(0, "message")
        yield TextDelta(0, "Hello")
        await self.may_end.wait()
        yield ItemDone(0)
        yield Finished(usage=None, model=request.model)

    async def close(self) -> None: ...


def _alive(*kinds: type) -> Counter[str]:
    gc.collect()
    return Counter(type(each).__name__ for each in gc.get_objects() if type(each) in kinds)


def _encoded(event: dict[str, Any]) -> Batch:
    """As the journal leaves it."""
    return Batch(event["sequence_number"], event["sequence_number"], data=encode([event]))


async def _stream(app: App) -> None:
    live = await begin(app, "Hi", stream=True)
    assert [event async for event in _events(live)]


async def _events(live: LiveTurn) -> AsyncIterator[str]:
    async for batch in live.follow():
        for event in batch.events:
            yield event["type"]


async def test_turns_that_run_at_once_share_what_is_known_of_usage(make_app: MakeApp) -> None:
    model = WaitingModel()
    app = make_app(model)
    before = _alive(Reservation, KnownUsage, Plan, Context)
    lives = [await begin(app, "Hi") for _ in range(MANY)]
    held = _alive(Reservation, KnownUsage, Plan, Context) - before
    model.may_end.set()
    await asyncio.gather(*(live.finished() for live in lives))

    assert held == {"Reservation": MANY, "KnownUsage": 1}


async def test_nothing_is_left_of_turns_that_ended(make_app: MakeApp) -> None:
    model = WaitingModel()
    model.may_end.set()
    app = make_app(model)
    kinds = (Run, LiveTurn, Writer, Output, Journal, Ledger, KnownUsage, TurnRecord, Batch, Reservation, asyncio.Task)
    await _stream(app)
    await asyncio.sleep(0.1)
    before = _alive(*kinds)
    for _ in range(3):
        await asyncio.gather(*(_stream(app) for _ in range(MANY)))
    await asyncio.sleep(0.1)

    assert not _alive(*kinds) - before


@pytest.mark.parametrize("after", [-1, 0, 7, 250, 298])
async def test_who_comes_late_gets_every_event_of_a_long_turn(after: int) -> None:
    live = LiveTurn(TurnRecord(id="resp_1", group="g", sort="s", depth=0, status="in_progress", created_at=0.0))
    told = [{"type": "told", "sequence_number": number, "text": f"word {number}" * 5} for number in range(300)]
    before = _alive(Batch)
    for event in told:
        live.publish(_encoded(event))
    live.end()

    assert [event async for batch in live.follow(after) for event in batch.events] == told[after + 1 :]
    assert 0 < (_alive(Batch) - before)["Batch"] < 100


async def test_a_follower_keeps_up_while_batches_are_put_away() -> None:
    live = LiveTurn(TurnRecord(id="resp_1", group="g", sort="s", depth=0, status="in_progress", created_at=0.0))
    seen: list[int] = []

    async def follow() -> None:
        async for batch in live.follow():
            seen.extend(event["sequence_number"] for event in batch.events)
            if len(seen) % 50 == 0:
                await asyncio.sleep(0.005)

    follower = asyncio.create_task(follow())
    for number in range(300):
        live.publish(_encoded({"type": "told", "sequence_number": number, "text": "word " * 20}))
        if number % 7 == 0:
            await asyncio.sleep(0)
    live.end()
    await follower

    assert seen == list(range(300))
