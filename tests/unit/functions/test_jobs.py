"""Queue triggers: what fails again and again is parked with a reason, and its turn ends."""

import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from azure.functions.queue import QueueMessage

from functions import jobs
from functions._edge import override_app
from shared.app import App
from shared.bootstrap import build_app
from shared.errors import StorageUnavailable
from shared.jobs.base import TRIES
from shared.jobs.store_queue import Delivery, StoreQueue
from shared.models.router import Router
from shared.models.scripted import ScriptedModel
from shared.principal import Principal
from shared.settings import Settings
from shared.storage.base import STATE, Upsert
from shared.turns.begin import begin_turn
from shared.turns.follow import get_turn
from shared.turns.prepare import TurnRequest
from shared.turns.recovery import GRACE_SECONDS, recover
from shared.wire.responses import CreateResponse

ROOT = Path(__file__).parents[3]


@pytest.fixture
async def app(tmp_path: Path) -> AsyncGenerator[App]:
    settings = Settings.read({"COMPANION_DATA": str(tmp_path), "COMPANION_TITLES": "off"})
    app = build_app(settings, models=Router.over(ScriptedModel()))
    with override_app(app):
        yield app
    await app.close(seconds=0.2)


async def queued(app: App, text: str = "go") -> str:
    create = CreateResponse.model_validate({"input": text, "background": True})
    return (await begin_turn(app, Principal(owner="ada"), TurnRequest(create=create))).record.id


async def deliver(turn: str, tries: int) -> None:
    body = json.dumps({"owner": "ada", "turn": turn})
    await jobs._tried(QueueMessage(body=body, dequeue_count=tries), "turns", jobs._run)  # pyright: ignore[reportPrivateUsage]


async def parked(app: App) -> Delivery | None:
    assert isinstance(app.queue, StoreQueue)
    return await app.queue.receive("turns-poison")


def fails_with(monkeypatch: pytest.MonkeyPatch, failure: Exception) -> None:
    async def fails(*_: object) -> Any:
        raise failure

    monkeypatch.setattr("shared.turns.takeover.run_queued", fails)


def test_the_host_is_told_the_same_number_of_tries() -> None:
    host = json.loads((ROOT / "host.json").read_text())

    assert host["extensions"]["queues"]["maxDequeueCount"] == TRIES


async def test_a_message_that_fails_is_tried_again(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    turn = await queued(app)
    fails_with(monkeypatch, RuntimeError("a secret"))
    with pytest.raises(RuntimeError):
        await deliver(turn, TRIES - 1)

    assert await parked(app) is None
    assert (await get_turn(app, "ada", turn)).record.status == "queued"


async def test_one_that_fails_for_the_last_time_is_parked_with_a_reason(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn = await queued(app)
    fails_with(monkeypatch, RuntimeError("a secret"))
    await deliver(turn, TRIES)

    message = await parked(app)
    assert message is not None
    reason = "The work failed with RuntimeError."
    assert json.loads(message.body) == {"owner": "ada", "turn": turn, "tries": TRIES, "reason": reason}


async def test_its_turn_ends_failed_and_says_why(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    turn = await queued(app)
    fails_with(monkeypatch, RuntimeError("a secret"))
    await deliver(turn, TRIES)

    record = (await get_turn(app, "ada", turn)).record
    assert record.status == "failed"
    assert record.error == {
        "code": "server_error",
        "message": "The response was given up: The work failed with RuntimeError.",
    }


async def test_a_store_in_trouble_is_the_reason_and_ends_no_turn(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    turn = await queued(app)
    fails_with(monkeypatch, StorageUnavailable("The store does not answer."))
    await deliver(turn, TRIES)

    message = await parked(app)
    assert message is not None
    assert json.loads(message.body)["reason"] == "The store does not answer."
    assert (await get_turn(app, "ada", turn)).record.status == "queued"


async def test_one_turn_that_cannot_be_read_keeps_recovery_from_no_other(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = await queued(app), await queued(app)
    for turn in (bad, good):
        stored = await app.store.read(STATE, "ada", turn)
        assert stored is not None
        changes = {"due": app.clock.now() - GRACE_SECONDS - 1, **({"attempt": "none"} if turn == bad else {})}
        await app.store.batch(STATE, "ada", [Upsert({**stored.body, **changes})])

    assert await recover(app) == 1
