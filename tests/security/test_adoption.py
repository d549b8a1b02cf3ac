"""A guest signs in, in the middle of it all: everything is the account's, once, and the stream goes on."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from localhost.testing import app_on_runtime, serving
from shared.adoption import service as adoption
from shared.models.offline import OfflineModel
from shared.privacy.pages import everything
from shared.storage.base import STATE
from shared.usage import meter
from tests.owners import ANN, BOB, Service, ask, conversation, service

SECRET: dict[str, Any] = {"COMPANION_GUESTS": "on", "COMPANION_GUEST_SECRET": "g" * 40}


async def new_guest(here: Service) -> str:
    async with here.client(None) as anybody:
        return (await anybody.post("/v1/guests")).json()["token"]


async def test_everything_of_a_guests_becomes_the_accounts(tmp_path: Path) -> None:
    async with service(tmp_path, **SECRET) as here, here.client(ANN) as ann:
        token = await new_guest(here)
        async with here.client(token) as guest:
            conv = await conversation(guest)
            turn = await ask(guest, "My name is Ada.", conversation=conv)
            alone = await ask(guest, f"Remember {'x' * 90_000}")
            adopted = await ann.post("/v1/me/adopt", json={"guest_token": token})
            again = await ann.post("/v1/me/adopt", json={"guest_token": token})
            refused = await guest.get("/v1/conversations")
        listed = (await ann.get("/v1/conversations")).json()["data"]
        found = [await ann.get(f"/v1/responses/{each['id']}") for each in (turn, alone)]
        inputs = await ann.get(f"/v1/responses/{alone['id']}/input_items")
        usage = (await ann.get("/v1/me/usage")).json()
        went_on = await ask(ann, "What is my name?", conversation=conv)

    assert (adopted.status_code, again.status_code, refused.status_code) == (200, 200, 401)
    assert again.json()["moved"] == 0
    assert [each["id"] for each in listed] == [conv]
    assert [each.status_code for each in found] == [200, 200]
    assert "x" * 90_000 in inputs.text
    assert usage["total"]["turns"] == 2
    assert "Ada" in orjson.dumps(went_on["output"]).decode()


async def test_only_one_account_gets_a_guest(tmp_path: Path) -> None:
    async with service(tmp_path, **SECRET) as here, here.client(ANN) as ann, here.client(BOB) as bob:
        token = await new_guest(here)
        async with here.client(token) as guest:
            await ask(guest, "Hello.")
        results = await asyncio.gather(
            *(each.post("/v1/me/adopt", json={"guest_token": token}) for each in (ann, bob, ann, bob))
        )
        owners = [(await each.get("/v1/me/usage")).json()["total"]["turns"] for each in (ann, bob)]

    assert sorted(each.status_code for each in results) == [200, 200, 409, 409]
    assert sorted(owners) == [0, 1]


async def test_a_stream_goes_on_while_its_guest_signs_in(tmp_path: Path) -> None:
    """Over real sockets: the guest's stream ends whole, and the account can follow the same response meanwhile."""
    async with (
        service(tmp_path, model=OfflineModel(word_delay=0.03), **SECRET) as here,
        app_on_runtime() as host,
        serving(host) as url,
    ):
        token = await new_guest(here)
        async with (
            httpx.AsyncClient(base_url=url, headers={"authorization": f"Bearer {token}"}, timeout=30) as guest,
            httpx.AsyncClient(base_url=url, headers={"authorization": f"Bearer {ANN}"}, timeout=30) as ann,
        ):
            conv = await conversation(guest)
            events: list[dict[str, Any]] = []
            followed: list[dict[str, Any]] = []
            body = {"input": "Tell me something that takes a while, please.", "conversation": conv, "stream": True}
            async with guest.stream("POST", "/v1/responses", json=body) as stream:
                follower: asyncio.Task[None] | None = None
                running: str | None = None
                async for line in stream.aiter_lines():
                    if not line.startswith("data: {"):
                        continue
                    events.append(orjson.loads(line[6:]))
                    if len(events) == 6:
                        adopted = await ann.post("/v1/me/adopt", json={"guest_token": token})
                        assert adopted.status_code == 200, adopted.text
                        running = (await ann.get(f"/v1/conversations/{conv}")).json()["running"]
                        follower = asyncio.create_task(follow(ann, events[0]["response"]["id"], followed))
            assert follower is not None
            await follower
            response = (await ann.get(f"/v1/responses/{events[0]['response']['id']}")).json()
            header = (await ann.get(f"/v1/conversations/{conv}")).json()
            items = (await ann.get(f"/v1/conversations/{conv}/items")).json()["data"]
            usage = (await ann.get("/v1/me/usage")).json()
        guest_owner = (await here.app.store.due("directory", "guest", before=1e12))[0].stored.body["owner"]
        await adoption.move(here.app, guest_owner, "ann")
        left = await here.app.store.read(STATE, guest_owner, meter.month_id(here.app.clock.now()))

    assert running == response["id"]
    assert events[-1]["type"] == "response.completed"
    assert [each["sequence_number"] for each in events] == list(range(len(events)))
    assert followed == events
    assert response["status"] == "completed"
    assert (header["running"], header["head"], len(items)) == (None, response["id"], 2)
    assert usage["total"]["turns"] == 1
    assert usage["reserved"] == 0
    assert left is None


async def test_what_runs_without_a_record_is_charged_to_the_account_too(tmp_path: Path) -> None:
    model, prices = OfflineModel(word_delay=0.03), '{"*": {"input": 10, "output": 100}}'
    async with service(tmp_path, model=model, COMPANION_PRICES=prices, **SECRET) as here, here.client(ANN) as ann:
        token = await new_guest(here)
        async with here.client(token) as guest:
            body = {"input": "Tell me something that takes a while.", "store": False, "stream": True}
            running = asyncio.create_task(guest.post("/v1/responses", json=body))
            await asyncio.sleep(0.2)
            await ann.post("/v1/me/adopt", json={"guest_token": token})
            held = (await ann.get("/v1/me/usage")).json()["reserved"]
            answer = await running
        await asyncio.sleep(0.05)
        usage = (await ann.get("/v1/me/usage")).json()

    assert "response.completed" in answer.text
    assert held > 0
    assert usage["reserved"] == 0
    assert (usage["total"]["turns"], usage["total"]["cost"] > 0) == (1, True)


async def test_an_adoption_that_is_run_again_takes_nothing_back_from_the_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process died when everything was copied; the account went on before the timer came."""
    async with service(tmp_path, **SECRET) as here, here.client(ANN) as ann:
        token = await new_guest(here)
        async with here.client(token) as guest:
            project = (await guest.post("/v1/projects", json={"name": "Garden"})).json()["id"]
            conv = await conversation(guest)
            await ask(guest, "My name is Ada.", conversation=conv)
            hidden, unwanted = await conversation(guest), await ask(guest, "Nothing of worth.")
        async with broken_off(here, ann, token, monkeypatch) as owner:
            last = await ask(ann, "Go on.", conversation=conv)
            await ann.post(f"/v1/projects/{project}", json={"name": "Yard"})
            await ann.delete(f"/v1/conversations/{hidden}")
            await ann.delete(f"/v1/responses/{unwanted['id']}")
        await adoption.move(here.app, owner, "ann")
        header = (await ann.get(f"/v1/conversations/{conv}")).json()
        items = (await ann.get(f"/v1/conversations/{conv}/items")).json()["data"]
        renamed = (await ann.get(f"/v1/projects/{project}")).json()
        gone = [await ann.get(f"/v1/{each}") for each in (f"conversations/{hidden}", f"responses/{unwanted['id']}")]
        left = {each.body["kind"] for each in await here.app.store.scan(STATE, owner)}

    assert (header["head"], len(items)) == (last["id"], 4)
    assert renamed["name"] == "Yard"
    assert [each.status_code for each in gone] == [404, 404]
    assert left <= {"adopted"}


async def test_a_turn_that_ended_with_the_guest_after_it_was_copied_ends_with_the_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        service(tmp_path, model=OfflineModel(word_delay=0.03), **SECRET) as here,
        here.client(ANN) as ann,
    ):
        token = await new_guest(here)
        async with here.client(token) as guest:
            conv = await conversation(guest)
            asked = asyncio.create_task(ask(guest, "Tell me something that takes a while.", conversation=conv))
            await asyncio.sleep(0.2)
            async with broken_off(here, ann, token, monkeypatch) as owner:
                turn = await asked
                await ann.post(f"/v1/conversations/{conv}", json={"title": "Mine"})
            held = (await ann.get(f"/v1/conversations/{conv}")).json()["running"]
        await adoption.move(here.app, owner, "ann")
        header = (await ann.get(f"/v1/conversations/{conv}")).json()
        response = (await ann.get(f"/v1/responses/{turn['id']}")).json()
        went_on = await ask(ann, "Go on.", conversation=conv)

    assert held == turn["id"]
    assert (header["running"], header["head"], header["title"]) == (None, turn["id"], "Mine")
    assert (response["status"], response["output"]) == ("completed", turn["output"])
    assert went_on["status"] == "completed"


async def test_an_adoption_that_is_run_again_leaves_a_turn_of_the_accounts_its_conversation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        service(tmp_path, model=OfflineModel(word_delay=0.08), **SECRET) as here,
        here.client() as ann,
    ):
        token = await new_guest(here)
        async with here.client(token) as guest:
            conv = await conversation(guest)
            await ask(guest, "My name is Ada.", conversation=conv)
            large = await ask(guest, f"Keep this: {'x' * 90_000}")
        async with broken_off(here, ann, token, monkeypatch) as owner:
            await ask(ann, "Go on.", conversation=conv)
            asked = asyncio.create_task(ask(ann, "Tell me something that takes a while.", conversation=conv))
            await asyncio.sleep(0.2)
            await ann.delete(f"/v1/responses/{large['id']}")
        await adoption.move(here.app, owner, "ann")
        held = (await ann.get(f"/v1/conversations/{conv}")).json()["running"]
        turn = await asked
        header = (await ann.get(f"/v1/conversations/{conv}")).json()
        items = (await ann.get(f"/v1/conversations/{conv}/items")).json()["data"]
        blobs = [name async for name in here.app.blobs.list("ann")]

    assert held == header["head"] == turn["id"]
    assert (header["running"], len(items)) == (None, 6)
    assert blobs == []


@asynccontextmanager
async def broken_off(
    here: Service, account: httpx.AsyncClient, token: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[str]:
    """What happens between a run of an adoption that only came to copy and the next one. Gives the guest's owner.

    Patched: a run that dies does so at one record; here nothing is taken away of any.
    """

    async def nothing_moves(*_: Any) -> int:
        return 0

    monkeypatch.setattr(adoption, "_take_away", nothing_moves)
    monkeypatch.setattr(here.app.blobs, "erase", nothing_moves)
    adopted = await account.post("/v1/me/adopt", json={"guest_token": token})
    assert adopted.status_code == 200, adopted.text
    monkeypatch.undo()
    yield (await here.app.store.due("directory", "guest", before=1e12))[0].stored.body["owner"]


async def follow(client: httpx.AsyncClient, response: str, events: list[dict[str, Any]]) -> None:
    async with client.stream("GET", f"/v1/responses/{response}", params={"stream": "true"}) as stream:
        async for line in stream.aiter_lines():
            if line.startswith("data: {"):
                events.append(orjson.loads(line[6:]))


async def test_a_link_that_was_being_made_when_its_guest_signed_in_is_the_accounts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with service(tmp_path, **SECRET) as here, here.client(ANN) as ann, here.client(None) as anybody:
        token = await new_guest(here)
        async with here.client(token) as guest:
            conv = await conversation(guest)
            await ask(guest, "My name is Ada.", conversation=conv)
            batch = here.app.store.batch

            async def batch_late(container: str, partition: str, operations: Any) -> list[str]:
                etags = await batch(container, partition, operations)
                if partition.startswith("share_"):
                    monkeypatch.undo()
                    await ann.post("/v1/me/adopt", json={"guest_token": token})
                return etags

            monkeypatch.setattr(here.app.store, "batch", batch_late)  # the one place to come in between
            await guest.post("/v1/shares", json={"conversation": conv})
        links = (await ann.get("/v1/shares")).json()["data"]
        shown = [(await anybody.get(f"/v1/shared/{link['id']}")).status_code for link in links]

    assert shown == [200]


async def test_a_long_history_moves_whole_and_goes_whole(tmp_path: Path) -> None:
    """More records than a page or a batch takes, some of them large."""
    async with service(tmp_path, **SECRET) as here, here.client(ANN) as ann:
        token = await new_guest(here)
        async with here.client(token) as guest:
            conv = await conversation(guest)
            for number in range(210):
                size = 70_000 if number % 70 == 0 else 10
                items = [{"type": "message", "role": "user", "content": f"{number} {'x' * size}"}]
                added = await guest.post(f"/v1/conversations/{conv}/items", json={"items": items})
                assert added.status_code == 200, added.text
        await ann.post("/v1/me/adopt", json={"guest_token": token})
        seen: list[str] = []
        after = ""
        while True:
            params = {"limit": 100, "order": "asc", "after": after}
            page = (await ann.get(f"/v1/conversations/{conv}/items", params=params)).json()
            seen += [item["content"][0]["text"].split()[0] for item in page["data"]]
            if not page["has_more"]:
                break
            after = page["last_id"]
        await ann.post("/v1/me/erase", json={"confirm": "erase everything"})
        await here.run_jobs()
        left = [each.body["kind"] async for page in everything(here.app.store, STATE, "ann") for each in page]
        blobs = [name async for name in here.app.blobs.list("ann")]

    assert seen == [str(number) for number in range(210)]
    assert left == []
    assert blobs == []
