"""What a turn holds of its owner's money, from its acceptance to its end, however long it takes."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from shared.app import App
from shared.clock import SystemClock
from shared.errors import AssistantError, RateLimited
from shared.models.base import Finished, ItemDone, ItemStarted, ModelEvent, ModelRequest, TextDelta, Usage
from shared.principal import Principal
from shared.storage.base import STATE
from shared.turns import ledger
from shared.turns.begin import begin_turn
from shared.turns.follow import finished
from shared.turns.live import LiveTurn
from shared.turns.prepare import TurnRequest
from shared.turns.takeover import run_queued
from shared.usage import meter
from shared.usage.records import UsageRecord
from shared.wire.responses import CreateResponse
from tests.unit.turns.conftest import MakeApp

DOLLAR_A_DAY = json.dumps(
    {"default": {"usd_per_day": 1, "requests_per_minute": None, "tokens_per_minute": None, "concurrent_turns": None}}
)
LIMITED = {
    "COMPANION_PLANS": DOLLAR_A_DAY,
    "COMPANION_PRICES": json.dumps({"*": {"output": 100}}),
    "COMPANION_BACKGROUND_SLOTS": "1",
}
"""A turn of 4,000 tokens costs 40 cents."""


class Ahead(SystemClock):
    """The time, and so many seconds more."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> float:
        return super().now() + self.seconds


@dataclass
class Slow:
    """Says one word when told to; each answer costs 40 cents."""

    may_answer: asyncio.Event = field(default_factory=asyncio.Event)

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        await self.may_answer.wait()
        for event in (ItemStarted(0, "message"), TextDelta(0, "word"), ItemDone(0)):
            yield event
        yield Finished(usage=Usage(output_tokens=4000), model=request.model)

    async def close(self) -> None:
        pass


async def send(app: App, **fields: object) -> LiveTurn:
    create = CreateResponse.model_validate({"input": "hi", "max_output_tokens": 4000, **fields})
    return await begin_turn(app, Principal(owner="ada", plan="default"), TurnRequest(create=create))


async def as_many_as_accepted(app: App, **fields: object) -> list[LiveTurn]:
    accepted: list[LiveTurn] = []
    try:
        while len(accepted) < 20:
            accepted.append(await send(app, **fields))
    except AssistantError as refusal:
        assert refusal.status == 429
    return accepted


async def usage(app: App) -> UsageRecord:
    stored = await app.store.read(STATE, "ada", meter.month_id(app.clock.now()))
    assert stored is not None
    return UsageRecord.of(stored.body)


async def test_background_turns_that_wait_for_hours_do_not_let_others_overspend(make_app: MakeApp) -> None:
    clock, model = Ahead(), Slow()
    model.may_answer.set()
    app = make_app(model, clock=clock, **LIMITED)
    accepted: list[LiveTurn] = []
    for _ in range(3):
        accepted += await as_many_as_accepted(app, background=True)
        clock.seconds += 3600
    for turn in accepted:
        live = await run_queued(app, "ada", turn.record.id)
        assert live is not None
        await live.finished()

    record = await usage(app)
    spent = sum(spent.cost for models in record.days.values() for spent in models.values())
    assert (len(accepted), round(spent, 2)) == (3, 1.2)  # the last one begins below the ceiling, and ends above it
    assert (record.reserved, record.background, record.waiting) == ({}, [], [])


async def test_a_turn_of_many_calls_holds_its_money_as_long_as_they_may_take(make_app: MakeApp) -> None:
    clock, model = Ahead(), Slow()
    app = make_app(model, clock=clock, **LIMITED)
    accepted = await as_many_as_accepted(app)
    clock.seconds += 9_000
    with pytest.raises(RateLimited):
        await send(app)
    model.may_answer.set()
    for turn in accepted:
        await finished(app, "ada", turn)

    assert (await usage(app)).reserved == {}


async def test_a_turn_without_a_record_holds_its_money_while_its_process_lives(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "RENEW_SECONDS", 0.05)
    model = Slow()
    app = make_app(model, **LIMITED)
    live = await send(app, store=False)
    first = (await usage(app)).reserved[live.record.id].expires
    await asyncio.sleep(0.3)
    renewed = (await usage(app)).reserved[live.record.id].expires
    model.may_answer.set()
    await live.finished()
    await asyncio.sleep(0.1)

    assert renewed > first
    assert (await usage(app)).reserved == {}


async def test_a_turn_without_a_record_that_was_given_up_is_not_held_for_ever(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "RENEW_SECONDS", 0.05)
    app = make_app(Slow(), **LIMITED)
    live = await send(app, store=False)
    assert live.task is not None
    live.task.cancel()
    await asyncio.wait([live.task])
    until = (await usage(app)).reserved[live.record.id].expires
    await asyncio.sleep(0.3)

    assert (await usage(app)).reserved[live.record.id].expires == until
    assert until - live.record.created_at < ledger.UNKEPT_SECONDS + 60
