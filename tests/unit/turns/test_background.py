"""Background turns: accepted at once, run by whoever gets the message, fair between owners, found again when lost."""

import asyncio
import json
from typing import Any

import pytest

from shared.app import App
from shared.conversations.records import TurnRecord
from shared.errors import InvalidRequest
from shared.jobs.store_queue import StoreQueue
from shared.models.offline import OfflineModel
from shared.models.scripted import ScriptedModel, says
from shared.principal import Principal
from shared.storage import overdue
from shared.storage.base import EVENTS, STATE, Create, Upsert
from shared.turns import queued
from shared.turns.begin import begin_turn
from shared.turns.cancel import cancel_turn
from shared.turns.follow import follow_live, get_turn
from shared.turns.prepare import TurnRequest
from shared.turns.recovery import GRACE_SECONDS, recover
from shared.turns.takeover import give_up, run_queued
from shared.usage import limits
from shared.usage.records import UsageRecord
from shared.wire.responses import CreateResponse, refuse_unsupported
from tests.unit.turns.asking import CALLER, ask, begin, events, text_of
from tests.unit.turns.conftest import MakeApp


async def deliver(app: App, queue: str = "turns") -> str | None:
    """What a queue trigger does: one message, its turn to the end; the turn's id."""
    assert isinstance(app.queue, StoreQueue)
    message = await app.queue.receive(queue)
    if message is None:
        return None
    body = json.loads(message.body)
    live = await run_queued(app, body["owner"], body["turn"])
    if live is not None:
        await live.finished()
    await app.queue.complete(queue, message)
    await app.live.drain(1.0)  # the message of the next in line
    return body["turn"]


async def send(app: App, owner: str, text: str, **fields: Any) -> TurnRecord:
    create = CreateResponse.model_validate({"input": text, "background": True, **fields})
    return (await begin_turn(app, Principal(owner=owner), TurnRequest(create=create))).record


async def test_is_queued_and_then_completed_elsewhere(make_app: MakeApp) -> None:
    here, there = make_app(ScriptedModel()), make_app(ScriptedModel([says("done")]))
    turn = await send(here, "ada", "go")
    assert turn.status == "queued"
    await deliver(there)

    stored = (await get_turn(here, "ada", turn.id)).record
    assert (stored.status, text_of(stored), stored.attempt) == ("completed", "done", 1)


async def test_its_stream_begins_queued(make_app: MakeApp) -> None:
    app = make_app(ScriptedModel([says("done")]))
    turn = await send(app, "ada", "go")
    await deliver(app)
    seen = await events(app, turn.id)

    assert [event["type"] for event in seen[:3]] == ["response.created", "response.queued", "response.in_progress"]
    assert [event["sequence_number"] for event in seen] == list(range(len(seen)))
    assert seen[0]["response"]["status"] == "queued"


async def test_a_message_that_comes_twice_runs_it_once(make_app: MakeApp) -> None:
    model = ScriptedModel([says("done")])
    app = make_app(model)
    turn = await send(app, "ada", "go")
    await app.queue.send("turns", {"owner": "ada", "turn": turn.id})
    await deliver(app)
    await deliver(app)

    assert len(model.requests) == 1


async def test_a_hundred_of_one_owner_do_not_starve_another_s_one(make_app: MakeApp) -> None:
    app = make_app(OfflineModel(word_delay=0.0), COMPANION_BACKGROUND_SLOTS="4")
    for number in range(100):
        await send(app, "noisy", f"n{number}")
    one = await send(app, "quiet", "please")

    order = [await deliver(app) for _ in range(5)]
    assert one.id in order


async def test_those_who_wait_are_let_in_one_by_one(make_app: MakeApp) -> None:
    app = make_app(OfflineModel(word_delay=0.0), COMPANION_BACKGROUND_SLOTS="2")
    sent = [(await send(app, "ada", f"n{number}")).id for number in range(7)]
    run = [id_ for _ in range(7) if (id_ := await deliver(app))]

    assert sorted(run) == sorted(sent)
    assert {(await get_turn(app, "ada", id_)).record.status for id_ in sent} == {"completed"}


async def test_priority_goes_ahead_in_the_line(make_app: MakeApp) -> None:
    app = make_app(OfflineModel(word_delay=0.0), COMPANION_BACKGROUND_SLOTS="1")
    await send(app, "ada", "first")
    await send(app, "ada", "second")
    urgent = await send(app, "ada", "urgent", service_tier="priority")
    await deliver(app)

    assert await deliver(app) == urgent.id


async def test_a_queued_turn_can_be_cancelled_and_frees_its_place(make_app: MakeApp) -> None:
    app = make_app(OfflineModel(word_delay=0.0), COMPANION_BACKGROUND_SLOTS="1")
    first = await send(app, "ada", "first")
    second = await send(app, "ada", "second")
    cancelled = await cancel_turn(app, "ada", first.id)
    await app.live.drain(1.0)
    run = [await deliver(app), await deliver(app)]

    assert cancelled.status == "cancelled"
    assert second.id in run
    assert (await get_turn(app, "ada", first.id)).record.status == "cancelled"


async def test_a_turn_that_is_cancelled_in_the_queue_costs_nothing(make_app: MakeApp) -> None:
    app = make_app(OfflineModel(word_delay=0.0), COMPANION_PRICES='{"*": {"input": 1, "output": 2}}')
    turn = await send(app, "ada", "a question that no model was asked")
    cancelled = await cancel_turn(app, "ada", turn.id)
    await app.live.drain(1.0)
    usage = await app.store.read(STATE, "ada", cancelled.usage_id)

    assert cancelled.cost == 0
    assert cancelled.usage is not None
    assert cancelled.usage["total_tokens"] == 0
    assert usage is not None
    assert limits.totals(UsageRecord.model_validate(usage.body)).cost == 0


async def test_a_turn_that_no_worker_could_begin_costs_nothing(make_app: MakeApp) -> None:
    app = make_app(OfflineModel(word_delay=0.0), COMPANION_PRICES='{"*": {"input": 1, "output": 2}}')
    turn = await send(app, "ada", "a question that no model was asked")
    await give_up(app, "ada", turn.id, "It cannot be read.")
    given_up = (await get_turn(app, "ada", turn.id)).record

    assert (given_up.status, given_up.cost) == ("failed", 0)
    assert given_up.usage is not None
    assert given_up.usage["total_tokens"] == 0


async def test_a_lost_message_is_found_again(make_app: MakeApp) -> None:
    app = make_app(ScriptedModel([says("done")]))
    turn = await send(app, "ada", "go")
    assert isinstance(app.queue, StoreQueue)
    lost = await app.queue.receive("turns")
    assert lost is not None
    await app.queue.complete("turns", lost)
    stored = await app.store.read(STATE, "ada", turn.id)
    assert stored is not None
    overdue = {**stored.body, "due": app.clock.now() - GRACE_SECONDS - 1}
    await app.store.batch(STATE, "ada", [Upsert(overdue)])

    assert await recover(app) == 1
    assert await deliver(app) == turn.id


async def test_many_that_live_hide_none_that_died(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overdue, "PAGE", 3)
    app = make_app(ScriptedModel([says("one"), says("done")]))
    template = (await ask(app, "one")).document()
    now = app.clock.now()
    for number in range(8):  # they began earlier, at one moment, and renewed their lease in the journal just now
        turn = _running_elsewhere(template, f"{number:032x}", due=now - 100)
        entry = {"id": "b000001", "first": 0, "last": -1, "writer": "x", "attempt": 1, "until": now + 100, "sse": ""}
        await app.store.batch(STATE, f"owner{number}", [Create(turn)])
        await app.store.batch(EVENTS, turn["id"], [Create(entry)])
    died = _running_elsewhere(template, "f" * 32, due=now - 50)
    await app.store.batch(STATE, "ada", [Create(died)])

    assert await recover(app) == 1
    assert (await get_turn(app, "ada", died["id"])).record.status == "completed"


def _running_elsewhere(template: dict[str, Any], token: str, *, due: float) -> dict[str, Any]:
    ended = ("completed_at", "next_sequence", "output")
    running = {name: value for name, value in template.items() if name not in ended}
    place = {"id": f"resp_{token}", "group": f"resp_{token}", "sort": f"00000000.{token}"}
    return {**running, **place, "host": "other", "status": "in_progress", "due": due}


async def test_who_follows_a_turn_that_its_worker_took_to_its_death_has_it_sent_again(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queued, "NUDGE_SECONDS", 0.05)
    app = make_app(ScriptedModel([says("done")]))
    turn = await send(app, "ada", "go")
    assert isinstance(app.queue, StoreQueue)
    assert await app.queue.receive("turns")  # and the worker is no more
    following = asyncio.create_task(events(app, turn.id))
    await asyncio.sleep(1.0)
    await deliver(app)

    assert (await following)[-1]["type"] == "response.completed"


async def test_who_follows_a_turn_in_the_line_does_not_help_it_forward(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queued, "NUDGE_SECONDS", 0.05)
    app = make_app(ScriptedModel([]), COMPANION_BACKGROUND_SLOTS="1")
    await send(app, "ada", "first")
    second = await send(app, "ada", "second")
    assert isinstance(app.queue, StoreQueue)
    assert await app.queue.receive("turns")  # of the first
    following = asyncio.create_task(events(app, second.id))
    await asyncio.sleep(0.5)
    following.cancel()

    assert await app.queue.receive("turns") is None


async def test_a_send_that_comes_again_tells_the_workers_again(make_app: MakeApp) -> None:
    """The first host may have died between the two."""
    app = make_app(ScriptedModel([says("done")]))
    first = await begin(app, "go", background=True, send_key="k", body_hash="h")
    assert isinstance(app.queue, StoreQueue)
    assert await app.queue.receive("turns")
    await begin(app, "go", background=True, send_key="k", body_hash="h")

    assert await deliver(app) == first.record.id


async def test_needs_to_be_stored() -> None:
    with pytest.raises(InvalidRequest):
        refuse_unsupported(CreateResponse(input="x", background=True, store=False))


async def test_streams_while_another_host_runs_it(make_app: MakeApp) -> None:
    here, there = make_app(ScriptedModel()), make_app(ScriptedModel([[*says("one ")[:2], 0.3, *says("two")[1:]]]))
    live = await begin(here, "go", background=True, stream=True)
    running = await run_queued(there, CALLER.owner, live.record.id)
    assert running is not None
    seen = [event async for batch in follow_live(here, CALLER.owner, live) for event in batch.events]

    assert seen[-1]["type"] == "response.completed"  # seen in the store, maybe before its host knows
    assert text_of(await running.finished()) == "one two"
