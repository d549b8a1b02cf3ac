"""The worker of a data job, or the process that adopts a guest, dies before any of its calls: the next one goes on."""

from pathlib import Path
from typing import Any

import pytest

from shared.adoption import service as adoption
from shared.app import App
from shared.clock import ManualClock
from shared.conversations.service import list_items
from shared.identity import guests
from shared.principal import Principal
from shared.privacy import service as privacy
from shared.privacy.pages import everything
from shared.projects.service import create_project, list_projects
from shared.sharing.service import read_shared
from shared.storage.base import DIRECTORY, STATE
from shared.usage.limits import totals
from shared.usage.records import UsageRecord
from tests.owners import ANN, ask, conversation, service
from tests.security.deaths import each_death, process
from tests.security.test_data_rights import CANARY, bytes_with, exported, fill, normal

pytestmark = pytest.mark.timeout(300)

SECRET: dict[str, Any] = {"COMPANION_GUESTS": "on", "COMPANION_GUEST_SECRET": "g" * 40}


async def erase(app: App) -> None:
    for due in await app.store.due(DIRECTORY, "erasure", before=1e12):
        await privacy.run_message(app, {"erasure": due.stored.body["id"]})


async def test_an_erasure_goes_on_wherever_its_worker_died_and_its_receipt_is_the_same(tmp_path: Path) -> None:
    clock, start = ManualClock(), tmp_path / "start"
    async with service(start, clock=clock) as here:
        await fill(here, ANN, CANARY)
        async with here.client() as ann:
            receipt: str = (await ann.post("/v1/me/erase", json={"confirm": "erase everything"})).json()["id"]

    counts: list[dict[str, int]] = []
    wrong: list[tuple[int, object]] = []
    async for point, folder in each_death(start, clock, erase):
        async with process(folder, clock) as other:
            await erase(other)
            job = await privacy.get_job(other, "ann", receipt)
        counts.append(job.counts)
        left = bytes_with(folder, CANARY)
        if left or job.status != "completed" or job.counts != counts[0]:
            wrong.append((point, left or job))

    assert len(counts) > 20
    assert wrong == []


async def test_what_one_owner_hits_stops_no_other_owners_erasure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock()
    async with process(tmp_path, clock) as app:
        for owner in ("eve", "ada"):
            await create_project(app, owner, name="p", instructions=None, metadata={})
            receipt = await privacy.start_erase(app, owner)
            clock.advance(1)
        clock.advance(privacy.CLAIM_SECONDS)
        erase_once = privacy.erase_once

        async def unlucky(app: App, owner: str, note: Any) -> bool:
            if owner == "eve":
                raise TypeError("a bug")
            return await erase_once(app, owner, note)

        monkeypatch.setattr(privacy, "erase_once", unlucky)  # no bug that could be relied on
        looked_at = await privacy.run_due(app)
        job = await privacy.get_job(app, "ada", receipt.id)

    assert looked_at == 2
    assert job.status == "completed"


async def export(app: App) -> None:
    for due in await app.store.due(STATE, "data_job", before=1e12):
        await privacy.run_message(app, {"owner": due.partition, "job": due.stored.body["id"]})


async def test_an_import_goes_on_wherever_its_worker_died(tmp_path: Path) -> None:
    clock, start = ManualClock(), tmp_path / "start"
    async with service(tmp_path / "source", clock=clock) as here:
        await fill(here, ANN, CANARY)
        async with here.client() as ann:
            await ann.delete(f"/v1/shares/{(await ann.get('/v1/shares')).json()['data'][0]['id']}")
        first = await exported(here, ANN)
    async with process(start, clock) as app:
        await privacy.start_import(app, "bob", first)

    wrong: list[int] = []
    points = 0
    async for point, folder in each_death(start, clock, export):
        async with process(folder, clock) as other:
            await export(other)
            job = await privacy.start_export(other, "bob")
            await export(other)
            if normal(await privacy.read_export(other, "bob", job.id)) != normal(first):
                wrong.append(point)
        points += 1

    assert points > 10
    assert wrong == []


async def test_an_adoption_goes_on_wherever_its_process_died(tmp_path: Path) -> None:
    clock, start = ManualClock(), tmp_path / "start"
    async with service(start, clock=clock, **SECRET) as here:
        async with here.client(None) as anybody:
            token: str = (await anybody.post("/v1/guests")).json()["token"]
        async with here.client() as ann:
            await ask(ann, "Mine.")
        async with here.client(token) as guest:
            conv = await conversation(guest)
            await ask(guest, f"Hello. {'x' * 90_000}", conversation=conv)
            await guest.post("/v1/projects", json={"name": "Garden"})
            await ask(guest, "Alone.")
            share: str = (await guest.post("/v1/shares", json={"conversation": conv})).json()["id"]
    owner = guests.read(here.app.settings.caller.guest_secret, token, now=clock.now()).owner

    async def adopt(app: App) -> None:
        await adoption.adopt(app, Principal(owner="ann"), token)

    wrong: list[tuple[int, object]] = []
    points = 0
    async for point, folder in each_death(start, clock, adopt, **SECRET):
        clock.advance(61)
        async with process(folder, clock, **SECRET) as other:
            await adoption.finish_adoptions(other)  # what the timer does
            await adopt(other)  # what the client does
            items, _ = await list_items(other, "ann", conv, after=None, order="asc", limit=100)
            projects, _ = await list_projects(other, "ann", after=None, limit=10, order="asc")
            shown = await read_shared(other, share)
            mine = [stored.body async for page in everything(other.store, STATE, "ann") for stored in page]
            turns = sum(totals(UsageRecord.model_validate(body)).turns for body in mine if body["kind"] == "usage")
            left = [each.body["kind"] async for page in everything(other.store, STATE, owner) for each in page]
            blobs = [name async for name in other.blobs.list(owner)]
        is_whole = (len(items), len(projects), len(shown["items"]), turns) == (2, 1, 2, 3)
        if not is_whole or left not in ([], ["adopted"]) or blobs:
            wrong.append((point, (len(items), len(projects), len(shown["items"]), turns, left, blobs)))
        points += 1

    assert points > 20
    assert wrong == []


async def test_only_one_account_gets_a_guest_whoever_dies(tmp_path: Path) -> None:
    clock, start = ManualClock(), tmp_path / "start"
    async with service(start, clock=clock, **SECRET) as here:
        async with here.client(None) as anybody:
            token: str = (await anybody.post("/v1/guests")).json()["token"]
        async with here.client(token) as guest:
            await guest.post("/v1/projects", json={"name": "Garden"})

    async def adopt(app: App, owner: str = "ann") -> None:
        await adoption.adopt(app, Principal(owner=owner), token)

    wrong: list[tuple[int, object]] = []
    async for point, folder in each_death(start, clock, adopt, **SECRET):
        clock.advance(61)
        async with process(folder, clock, **SECRET) as other:
            for owner in ("bob", "ann"):
                try:
                    await adopt(other, owner)
                except Exception as refusal:
                    assert getattr(refusal, "code", "") == "guest_adopted"
            await adoption.finish_adoptions(other)
            owned = [len((await list_projects(other, o, after=None, limit=9, order="asc"))[0]) for o in ("ann", "bob")]
            if sorted(owned) != [0, 1]:
                wrong.append((point, owned))

    assert wrong == []
