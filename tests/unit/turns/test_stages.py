"""Turns that begin at one moment do each stage one after the other, and then the next: its code is loaded once."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from shared.models.base import ModelEvent, ModelRequest
from shared.stages import Beginning
from shared.turns.begin import begin_turn
from shared.turns.follow import finished
from shared.turns.live import LiveTurn
from shared.turns.prepare import TurnRequest
from shared.wire.responses import CreateResponse
from tests.unit.turns.asking import CALLER
from tests.unit.turns.conftest import MakeApp


async def test_turns_that_begin_together_have_all_read_before_the_first_asks_its_model(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, done = make_app(), list[str]()
    read, stream = app.store.read, app.models.stream

    def reading(*key: str) -> Any:
        done.append("read")
        return read(*key)

    def asking(request: ModelRequest) -> AsyncIterator[ModelEvent]:
        done.append("ask")
        return stream(request)

    monkeypatch.setattr(app.store, "read", reading)
    monkeypatch.setattr(app.models, "stream", asking)
    monkeypatch.setattr(Beginning, "count", 0)  # whatever other tests left behind
    gate = app.models.gate

    async def turn(checked: int) -> None:
        ticket = await gate.enter(CALLER.owner, checked=checked)  # as the edge does
        live = await begin_turn(app, CALLER, TurnRequest(create=CreateResponse(input="Hello")), ticket)
        await finished(app, CALLER.owner, live)

    await asyncio.gather(*(turn(checked) for checked in [gate.check(CALLER.owner) for _ in range(4)]))

    assert done[:8] == ["read"] * 4 + ["ask"] * 4


@pytest.mark.parametrize("passes", range(24))
async def test_who_leaves_in_whatever_pass_leaves_no_model_call_and_no_place_behind(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, passes: int
) -> None:
    app, open_calls = make_app(), set[int]()
    stream = app.models.stream

    async def asking(request: ModelRequest) -> AsyncIterator[ModelEvent]:
        open_calls.add(1)
        try:
            await asyncio.sleep(3600)
            async for event in stream(request):
                yield event
        finally:
            open_calls.discard(1)

    monkeypatch.setattr(app.models, "stream", asking)
    monkeypatch.setattr(Beginning, "count", 5)  # so that stages end
    begun = asyncio.create_task(begin_turn(app, CALLER, TurnRequest(create=CreateResponse(input="Hello"))))
    for _ in range(passes):
        await asyncio.sleep(0)
    begun.cancel()
    left = await asyncio.gather(begun, return_exceptions=True)
    for live in left:
        if isinstance(live, LiveTurn):  # it was accepted before, so it runs on
            assert live.task is not None
            await asyncio.sleep(0)
            live.cancel()
            await live.task

    assert (open_calls, app.models.gate.in_flight, Beginning.count) == (set(), 0, 5)
