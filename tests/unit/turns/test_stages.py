"""Turns that begin at one moment do each stage one after the other, and then the next: its code is loaded once."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from shared.models.base import ModelEvent, ModelRequest
from shared.stages import Beginning
from shared.turns.begin import begin_turn
from shared.turns.follow import finished
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
