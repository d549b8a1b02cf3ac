"""Deleting a conversation: what goes with it, what stays, and what a purge that was broken off leaves."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from shared.clock import ManualClock
from shared.conversations import deletion
from shared.conversations.records import TurnRecord
from shared.conversations.repository import FoundTurn
from shared.conversations.service import delete_conversation
from shared.models.offline import OfflineModel
from shared.principal import Principal
from shared.privacy.service import run_due
from shared.storage.base import STATE, Operation
from shared.turns.begin import begin_turn
from shared.turns.live import LiveTurn
from shared.turns.prepare import TurnRequest
from shared.wire.responses import CreateResponse
from tests.owners import Service, ask, conversation, service

WEEK = 8 * 86_400


async def kinds(here: Service) -> list[str]:
    return sorted(each.body["kind"] for each in await here.app.store.scan(STATE, "ann"))


async def begin(here: Service, text: str, **fields: Any) -> LiveTurn:
    create = CreateResponse.model_validate({"input": text, **fields})
    return await begin_turn(here.app, Principal(owner="ann"), TurnRequest(create=create))


async def test_forks_outlive_the_conversation_with_the_history_they_go_on_from(tmp_path: Path) -> None:
    clock = ManualClock()
    async with service(tmp_path, clock=clock) as here, here.client() as ann:
        conv = await conversation(ann)
        first = await ask(ann, "My name is Ada.", conversation=conv)
        fork = await ask(ann, "Hello.", previous_response_id=first["id"])
        last = await ask(ann, "Goodbye.", conversation=conv)
        await ann.delete(f"/v1/conversations/{conv}")
        clock.advance(WEEK)
        await run_due(here.app)
        found = [(await ann.get(f"/v1/responses/{each['id']}")).status_code for each in (first, fork, last)]
        went_on = await ask(ann, "What is my name?", previous_response_id=fork["id"])
        left = await kinds(here)

    assert found == [404, 200, 404]
    assert "Ada" in str(went_on["output"])
    assert left.count("turn") == 3  # what the fork goes on from, the fork, and what went on
    assert not any(kind.startswith("conversation") for kind in left)


async def test_what_is_left_to_a_fork_is_left_by_a_purge_that_runs_again(tmp_path: Path) -> None:
    async with service(tmp_path, COMPANION_UNDO_DAYS="0") as here, here.client() as ann:
        conv = await conversation(ann)
        first = await ask(ann, "My name is Ada.", conversation=conv)
        fork = await ask(ann, "Hello.", previous_response_id=first["id"])
        await die(here, writes=4, of=delete_conversation(here.app, "ann", conv))
        await run_due(here.app)
        went_on = await ask(ann, "What is my name?", previous_response_id=fork["id"])
        left = await kinds(here)

    assert "Ada" in str(went_on["output"])
    assert not any(kind.startswith("conversation") for kind in left)


async def test_a_purge_that_dies_is_finished_and_never_undone(tmp_path: Path) -> None:
    clock = ManualClock()
    async with service(tmp_path, clock=clock) as here, here.client() as ann:
        conv = await conversation(ann)
        for number in range(100):
            item = {"type": "message", "role": "user", "content": str(number)}
            await ann.post(f"/v1/conversations/{conv}/items", json={"items": [item]})
        await ann.delete(f"/v1/conversations/{conv}")
        clock.advance(WEEK)
        await die(here, writes=3, of=run_due(here.app))
        broken_off = (await kinds(here)).count("turn")
        restored = await ann.post(f"/v1/conversations/{conv}/restore")
        await run_due(here.app)
        left = await kinds(here)

    assert 0 < broken_off < 100
    assert restored.status_code == 404
    assert set(left) == {"tombstone"}


async def test_a_conversation_that_was_restored_is_not_hidden_again_by_its_purge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Patched: the moment between what the purge reads and what it writes."""
    clock = ManualClock()
    async with service(tmp_path, clock=clock, model=OfflineModel(word_delay=0.02)) as here, here.client() as ann:
        conv = await conversation(ann)
        running = await begin(here, "Say some words, please.", conversation=conv)
        await ann.delete(f"/v1/conversations/{conv}")
        real, restored = deletion.turns, list[int]()

        async def turns(*what: Any, **how: Any) -> list[TurnRecord]:
            found = await real(*what, **how)
            restored.append((await ann.post(f"/v1/conversations/{conv}/restore")).status_code)
            return found

        monkeypatch.setattr(deletion, "turns", turns)
        is_purged = await deletion.purge(here.app.store, clock, "ann", conv)
        shown = await ann.get(f"/v1/conversations/{conv}")
        await running.finished()

    assert not is_purged
    assert restored == [shown.status_code]


async def test_a_turn_that_ends_while_its_conversation_is_restored_lets_go_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Patched: the moment between what the restore reads and what it writes."""
    async with service(tmp_path, model=OfflineModel(word_delay=0.02)) as here, here.client() as ann:
        conv = await conversation(ann)
        running = await begin(here, "Say some words, please.", conversation=conv)
        await ann.delete(f"/v1/conversations/{conv}")
        real = deletion.find_turn

        async def find_turn(*what: Any) -> FoundTurn | None:
            found = await real(*what)
            assert found is not None
            assert not found.record.is_final
            monkeypatch.undo()
            await running.finished()
            return found

        monkeypatch.setattr(deletion, "find_turn", find_turn)
        restored = (await ann.post(f"/v1/conversations/{conv}/restore")).json()
        next_one = await ask(ann, "And now?", conversation=conv)

    assert (restored["running"], restored["head"]) == (None, running.record.id)
    assert next_one["status"] == "completed"


class Died(BaseException):
    """The process is no more."""


async def die(here: Service, *, writes: int, of: Any) -> None:
    """Run something that dies at this write to the owner's records."""
    store, left = here.app.store, writes
    real = store.batch

    async def batch(container: str, partition: str, operations: Sequence[Operation]) -> list[str]:
        nonlocal left
        left -= container == STATE
        if left == 0:
            raise Died
        return await real(container, partition, operations)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Died):
        patch.setattr(store, "batch", batch)
        await of


async def test_a_turn_lets_go_of_a_conversation_that_was_hidden_while_it_ran(tmp_path: Path) -> None:
    """Else one that is restored between its end's reading and writing would be held for ever."""
    async with service(tmp_path, model=OfflineModel(word_delay=0.02)) as here, here.client() as ann:
        conv = await conversation(ann)
        running = await begin(here, "Say some words.", conversation=conv)
        await ann.delete(f"/v1/conversations/{conv}")
        await running.finished()
        hidden = await here.app.store.read(STATE, "ann", conv)

    assert hidden is not None
    assert (hidden.body["kind"], hidden.body["head"]) == ("conversation.deleted", running.record.id)
    assert "running" not in hidden.body
