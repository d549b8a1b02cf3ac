"""Turns that begin at one moment do each stage one after the other, and then the next: its code is loaded once."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from shared.models.base import ModelEvent, ModelRequest
from tests.unit.turns.asking import ask
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

    await asyncio.gather(*(ask(app, f"Hello {number}") for number in range(4)))

    assert done[:8] == ["read"] * 4 + ["ask"] * 4
