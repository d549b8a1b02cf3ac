"""An owner's rights and limits on Cosmos DB: the same as on SQLite (tests/security).

The npm emulator answers no second page of a change feed, so the accounts here have fewer than a hundred records.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from shared.settings import StorageSettings
from shared.storage.base import DIRECTORY, EVENTS, KNOWLEDGE, STATE, Create
from shared.storage.large import LargeFieldStore
from shared.usage import meter
from shared.usage.records import Spent, UsageRecord
from tests.owners import ANN, BOB, Service, ask, conversation, service
from tests.security.test_adoption import SECRET, new_guest
from tests.security.test_data_rights import CANARY, exported, fill, normal, run
from tests.security.test_limits import PRICES, cost, spent

pytestmark = pytest.mark.timeout(300)

type Json = dict[str, Any]


@pytest.fixture
def cosmos(cosmos_settings: StorageSettings, tmp_path: Path) -> Callable[..., AbstractAsyncContextManager[Service]]:
    environ = {
        "COSMOS_ENDPOINT": cosmos_settings.cosmos_endpoint,
        "COSMOS_KEY": cosmos_settings.cosmos_key.reveal(),
        "COSMOS_DATABASE": f"test-{uuid4().hex}",
    }
    return partial(service, tmp_path, **environ)


async def documents(here: Service) -> list[Json]:
    """Every document of every container, whoever's it is."""
    store = here.app.store
    assert isinstance(store, LargeFieldStore)
    raw: Any = store._store  # pyright: ignore[reportPrivateUsage]
    found: list[Json] = []
    for container in (STATE, EVENTS, KNOWLEDGE, DIRECTORY):
        proxy = await raw._container(container)
        found += [item async for item in proxy.query_items("SELECT * FROM c")]
    return found


async def test_after_an_erasure_no_document_and_no_blob_is_left(cosmos: Any, tmp_path: Path) -> None:
    async with cosmos() as here:
        await fill(here, ANN, CANARY)
        await fill(here, BOB, "keepsake")
        before = [each for each in await documents(here) if CANARY in str(each)]
        receipt = await run(here, ANN, "erase", json={"confirm": "erase everything"})
        after = await documents(here)
        blobs = [name async for name in here.app.blobs.list("ann")]
        async with here.client(BOB) as bob:
            others = (await bob.get("/v1/conversations")).json()["data"]

    assert before
    assert [each for each in after if CANARY in str(each) or each["pk"] == "ann" or each.get("owner") == "ann"] == []
    assert blobs == []
    assert len(others) == 1
    for name in ("state/turn", "state/conversation", "events", "knowledge", "blobs", "directory/api_key"):
        assert receipt["counts"][name] > 0, name


async def test_an_export_imported_and_exported_again_is_the_same(cosmos: Any) -> None:
    async with cosmos() as here:
        await fill(here, ANN, CANARY)
        async with here.client() as ann:
            await ann.delete(f"/v1/shares/{(await ann.get('/v1/shares')).json()['data'][0]['id']}")
        first = await exported(here, ANN)
        await run(here, BOB, "import", content=first)
        second = await exported(here, BOB)

    assert normal(first) == normal(second)


async def test_everything_of_a_guests_becomes_the_accounts(cosmos: Any) -> None:
    async with cosmos(**SECRET) as here, here.client(ANN) as ann:
        token = await new_guest(here)
        async with here.client(token) as guest:
            conv = await conversation(guest)
            turn = await ask(guest, f"My name is Ada. {'x' * 90_000}", conversation=conv)
            await guest.post("/v1/projects", json={"name": "Garden"})
            running = asyncio.create_task(guest.post("/v1/responses", json={"input": "Wait.", "stream": True}))
            await asyncio.sleep(0.1)
            adopted = await ann.post("/v1/me/adopt", json={"guest_token": token})
            again = await ann.post("/v1/me/adopt", json={"guest_token": token})
            stream = await running
            refused = await guest.get("/v1/conversations")
        async with here.client(BOB) as bob:
            other = await bob.post("/v1/me/adopt", json={"guest_token": token})
        found = await ann.get(f"/v1/responses/{turn['id']}")
        went_on = await ask(ann, "What is my name?", conversation=conv)
        usage = (await ann.get("/v1/me/usage")).json()

    assert [each.status_code for each in (adopted, again, refused, other, found)] == [200, 200, 401, 409, 200]
    assert "response.completed" in stream.text
    assert "Ada" in str(went_on["output"])
    assert usage["total"]["turns"] >= 2


async def test_64_parallel_turns_on_the_last_cent_overspend_by_one_settlement_at_most(cosmos: Any) -> None:
    plans = '{"static": {"usd_per_day": 1.0, "requests_per_minute": null, "tokens_per_minute": null}}'
    async with cosmos(COMPANION_PRICES=PRICES, COMPANION_PLANS=plans) as here, here.client() as ann:
        now = here.app.clock.now()
        used = meter.settle(meter.fresh(meter.month_id(now)), "", model="m", spent=Spent(cost=0.99), now=now)
        await here.app.store.batch(STATE, "ann", [Create(UsageRecord.model_validate(used).document())])
        fields = {"model": "companion", "input": "Say something short.", "max_output_tokens": 20}

        async def one() -> int:
            while True:
                answer = await ann.post("/v1/responses", json=fields)
                if answer.status_code == 200:
                    return 200
                assert answer.status_code == 429, answer.text
                if answer.json()["error"]["code"] == "insufficient_quota":
                    assert cost(await spent(here)) >= 1.0, "refused for money while there was some"
                    return 429
                await asyncio.sleep(0.05)

        outcomes = await asyncio.gather(*(one() for _ in range(64)))
        record = await spent(here)
        each = (cost(record) - 0.99) / outcomes.count(200)

    assert 0 < outcomes.count(200) < 64
    assert 1.0 <= cost(record) <= 1.0 + each * 1.5
    assert not record.reserved


async def test_a_revoked_key_is_unknown_at_once(cosmos: Any) -> None:
    async with cosmos() as here, here.client() as ann:
        made = (await ann.post("/v1/api_keys", json={"name": "script"})).json()
        async with here.client(made["key"]) as script:
            before = await script.get("/v1/conversations")
            await ann.delete(f"/v1/api_keys/{made['id']}")
            after = await script.get("/v1/conversations")

    assert (before.status_code, after.status_code) == (200, 401)
