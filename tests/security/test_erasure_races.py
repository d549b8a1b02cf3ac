"""An erasure while something else is going on: a turn, an export, an import, an adoption. Nothing comes after it."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from shared.adoption import service as adoption
from shared.app import App
from shared.clock import SystemClock
from shared.errors import Conflict
from shared.identity import guests
from shared.models.offline import OfflineModel
from shared.principal import Principal
from shared.privacy import service as privacy
from shared.privacy.pages import everything
from shared.projects.service import create_project
from shared.storage.base import DIRECTORY, EVENTS, STATE, Delete, Query, Store
from shared.turns.cancel import cancel_turn
from tests.owners import ANN, ask, conversation, service
from tests.security.deaths import process
from tests.security.test_data_rights import CANARY, bytes_with, exported, fill
from tests.security.test_deaths import SECRET, erase, export

SURFACES: list[tuple[str, dict[str, Any]]] = [
    ("/v1/responses", {"input": f"Say much of {CANARY}.", "stream": True}),
    ("/v1/responses", {"input": f"Say much of {CANARY}.", "stream": True, "store": False, "conversation": "?"}),
    (
        "/v1/chat/completions",
        {
            "model": "companion",
            "stream": True,
            "store": True,
            "messages": [{"role": "user", "content": f"Say much of {CANARY}."}],
        },
    ),
]


async def until_found(look: Callable[[], Awaitable[list[str]]]) -> list[str]:
    """What there is to be seen in the store, as soon as there is something; a store tells nobody."""
    async with asyncio.timeout(30):
        while not (found := await look()):  # noqa: ASYNC110 - a store tells nobody
            await asyncio.sleep(0.01)
    return found


async def now(found: list[str]) -> list[str]:
    return found


async def blobs_of(app: App, owner: str) -> list[str]:
    return [name async for name in app.blobs.list(owner)]


async def whole(app: App, owner: str) -> list[str]:
    return [each.body["kind"] async for page in everything(app.store, STATE, owner) for each in page]


@pytest.mark.parametrize(("path", "body"), SURFACES, ids=["response", "not stored, in a conversation", "chat"])
async def test_a_turn_that_runs_on_another_host_writes_nothing_after_an_erasure(
    tmp_path: Path, path: str, body: dict[str, Any]
) -> None:
    model = OfflineModel(word_delay=0.03)
    async with service(tmp_path, model=model) as here, here.client() as ann:
        if "conversation" in body:
            body = {**body, "conversation": await conversation(ann)}
        running = asyncio.create_task(ann.post(path, json=body))
        before = await until_found(lambda: now(bytes_with(tmp_path, CANARY)))
        await asyncio.sleep(0.3)
        await ann.post("/v1/me/erase", json={"confirm": "erase everything"})
        async with process(tmp_path, SystemClock()) as other:
            await erase(other)
            kinds = await whole(other, "ann")
        after = bytes_with(tmp_path, CANARY)
        with_end = await asyncio.wait_for(running, 30)
        await asyncio.sleep(0.2)
        later = bytes_with(tmp_path, CANARY)
        left = await whole(here.app, "ann")

    assert before != []
    assert after == []
    assert later == []
    assert kinds == []
    assert set(left) <= {"usage"}  # of a turn that no record is kept of, its use may be noted after
    assert with_end.status_code == 200


@pytest.mark.parametrize(("path", "body"), SURFACES, ids=["response", "not stored, in a conversation", "chat"])
async def test_a_turn_that_another_host_accepts_during_an_erasure_goes_with_its_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, body: dict[str, Any]
) -> None:
    running: list[asyncio.Task[httpx.Response]] = []
    erase_once = privacy.erase_once
    model = OfflineModel(word_delay=0.03)
    async with service(tmp_path, model=model) as here, here.client() as ann:
        await ask(ann, "Hello.")
        if "conversation" in body:
            body = {**body, "conversation": await conversation(ann)}

        async def slowly(app: App, owner: str, note: Any) -> bool:
            async def noted(found: dict[str, int]) -> None:
                await note(found)
                if not running:  # what there is has been looked for, and nothing of it is gone
                    running.append(asyncio.create_task(ann.post(path, json=body)))
                    await until_found(lambda: now(bytes_with(tmp_path, CANARY)))
                    await asyncio.sleep(0.3)

            return await erase_once(app, owner, noted)

        monkeypatch.setattr(privacy, "erase_once", slowly)  # the moment in between has no seam of its own
        await ann.post("/v1/me/erase", json={"confirm": "erase everything"})
        async with process(tmp_path, SystemClock()) as other:
            await erase(other)
        after = bytes_with(tmp_path, CANARY)
        await asyncio.wait_for(running[0], 30)
        await asyncio.sleep(0.2)
        later = bytes_with(tmp_path, CANARY)
        left = await whole(here.app, "ann")

    assert after == []
    assert later == []
    assert set(left) <= {"usage"}


async def test_a_host_that_does_not_know_its_turn_was_cancelled_writes_nothing_after_an_erasure(tmp_path: Path) -> None:
    async with service(tmp_path, model=OfflineModel(word_delay=1.5)) as here, here.client() as ann:
        running = asyncio.create_task(ann.post("/v1/responses", json=SURFACES[0][1]))
        async with process(tmp_path, SystemClock()) as other:
            found = await until_found(lambda: turns_of(other, "ann"))
            await cancel_turn(other, "ann", found[0])
            await privacy.start_erase(other, "ann")
            await erase(other)
            await asyncio.wait_for(running, 30)
            written = [each.body["sse"] for each in await other.store.scan(EVENTS, found[0])]

    assert written
    assert set(written) == {""}


async def turns_of(app: App, owner: str) -> list[str]:
    return [stored.body["id"] for stored in await app.store.query(STATE, owner, Query(kind="turn"))]


async def test_a_turn_that_cannot_be_ended_goes_all_the_same(tmp_path: Path) -> None:
    """A part of its record is missing, so that nobody can read it; the host that runs it need not."""
    model = OfflineModel(word_delay=0.03)
    async with service(tmp_path, model=model) as here, here.client() as ann:
        body = {"input": f"Say much of {CANARY}. {'x' * 80_000}", "stream": True}
        running = asyncio.create_task(ann.post("/v1/responses", json=body))
        names = await until_found(lambda: blobs_of(here.app, "ann"))
        await asyncio.sleep(0.3)
        receipt = (await ann.post("/v1/me/erase", json={"confirm": "erase everything"})).json()["id"]
        async with process(tmp_path, SystemClock()) as other:
            await other.blobs.delete("ann", names[0])
            await erase(other)
            job = await privacy.get_job(other, "ann", receipt)
        after = bytes_with(tmp_path, CANARY)
        await asyncio.wait_for(running, 30)
        await asyncio.sleep(0.2)
        later = bytes_with(tmp_path, CANARY)
        left = await whole(here.app, "ann")

    assert (job.status, job.counts["state/turn"]) == ("completed", 1)
    assert after == []
    assert later == []
    assert set(left) <= {"usage"}


async def test_what_is_deleted_during_an_erasure_does_not_stop_it(tmp_path: Path) -> None:
    async with process(tmp_path, SystemClock()) as app:
        one, _ = [await create_project(app, "ann", name="p", instructions=None, metadata={}) for _ in range(2)]

        async def delete_one(found: dict[str, int]) -> None:
            await app.store.batch(STATE, "ann", [Delete(one.id)])

        rounds = [await privacy.erase_once(app, "ann", delete_one) for _ in range(2)]
        left = await whole(app, "ann")

    assert rounds == [True, False]
    assert left == []


async def test_an_export_that_ends_after_an_erasure_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with service(tmp_path) as here:
        await fill(here, ANN, CANARY)
        await privacy.start_export(here.app, "ann")
        await privacy.start_erase(here.app, "ann")
        put = here.app.blobs.put

        async def slowly(owner: str, name: str, data: bytes, *, content_type: str) -> None:
            if name.endswith(".zip"):
                async with process(tmp_path, SystemClock()) as other:
                    await erase(other)
            await put(owner, name, data, content_type=content_type)

        monkeypatch.setattr(here.app.blobs, "put", slowly)  # the moment in between has no seam of its own
        await export(here.app)
        names = [name async for name in here.app.blobs.list("ann")]

    assert names == []
    assert bytes_with(tmp_path, CANARY) == []


async def test_an_import_stops_when_its_owner_is_erased(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with service(tmp_path / "source") as source:
        await fill(source, ANN, CANARY)
        data = await exported(source, ANN)
    folder = tmp_path / "data"
    async with process(folder, SystemClock()) as app, process(folder, SystemClock()) as other:
        await privacy.start_import(app, "ann", data)
        await privacy.start_erase(app, "ann")
        batch, count = app.store.batch, 0

        async def slowly(container: str, partition: str, operations: Any) -> list[str]:
            nonlocal count
            count += 1
            if count == 2:  # between the claim of the job and its first records
                await erase(other)
            return await batch(container, partition, operations)

        monkeypatch.setattr(app.store, "batch", slowly)  # the moment in between has no seam of its own
        await export(app)
        kinds = await whole(other, "ann")

    assert kinds == []
    assert bytes_with(folder, CANARY) == []


async def guest_with_a_conversation(folder: Path) -> tuple[str, str]:
    """Token and owner."""
    async with service(folder, **SECRET) as here:
        async with here.client(None) as anybody:
            token: str = (await anybody.post("/v1/guests")).json()["token"]
        async with here.client(token) as guest:
            await ask(guest, f"{CANARY} {'x' * 90_000}", conversation=await conversation(guest))
        owner = guests.read(here.app.settings.caller.guest_secret, token, now=here.app.clock.now()).owner
    return token, owner


async def test_what_a_guest_left_behind_goes_with_the_account_that_adopted_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, owner = await guest_with_a_conversation(tmp_path)
    async with process(tmp_path, SystemClock(), **SECRET) as app, process(tmp_path, SystemClock(), **SECRET) as other:
        await privacy.start_erase(app, "ann")
        batch, count = app.store.batch, 0

        async def slowly(container: str, partition: str, operations: Any) -> list[str]:
            nonlocal count
            count += 1
            if (container, partition) == (STATE, "ann") and count > 3:  # claimed; about to copy
                await erase(other)
            return await batch(container, partition, operations)

        monkeypatch.setattr(adoption, "is_being_erased", not_yet)
        monkeypatch.setattr(app.store, "batch", slowly)  # the moment in between has no seam of its own
        await adoption.adopt(app, Principal(owner="ann"), token)
        monkeypatch.undo()
        await adoption.finish_adoptions(app)
        kinds = [await whole(other, each) for each in ("ann", owner)]
        claim = await other.store.read(DIRECTORY, owner, owner)

    assert kinds == [[], []]
    assert claim is None
    assert bytes_with(tmp_path, CANARY) == []
    assert bytes_with(tmp_path, "ann") == []


async def not_yet(store: Store, *owners: str) -> bool:
    return False


async def test_whoever_did_not_get_a_guest_cannot_erase_them(tmp_path: Path) -> None:
    token, _ = await guest_with_a_conversation(tmp_path)
    async with process(tmp_path, SystemClock(), **SECRET) as app:
        await adoption.adopt(app, Principal(owner="ann"), token)
        with pytest.raises(Conflict):
            await adoption.adopt(app, Principal(owner="bob"), token)
        await privacy.start_erase(app, "bob")
        await erase(app)
        with pytest.raises(Conflict):
            await adoption.adopt(app, Principal(owner="bob"), token)
        kinds = await whole(app, "ann")

    assert "turn" in kinds


async def test_nobody_is_adopted_while_either_is_being_erased(tmp_path: Path) -> None:
    token, owner = await guest_with_a_conversation(tmp_path)
    async with process(tmp_path, SystemClock(), **SECRET) as app:
        for each in ("ann", owner):
            await privacy.start_erase(app, each)
            with pytest.raises(Conflict):
                await adoption.adopt(app, Principal(owner="ann"), token)
            await erase(app)
        kinds = [await whole(app, each) for each in ("ann", owner)]

    assert kinds == [[], []]
