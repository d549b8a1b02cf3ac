"""The Cosmos DB adapter as the cloud sees it: the stock client against a scripted server that refuses and collides."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from aiohttp import web

from shared.errors import PayloadTooLarge, StorageUnavailable
from shared.settings import Secret, Settings
from shared.storage.base import STATE, AlreadyExists, Create, Delete, Query, Stale, Upsert
from shared.storage.cosmos import CONFLICT_RETRIES, CosmosStore
from shared.storage.identity import azure_identity
from shared.telemetry import Tally
from tests.processes import free_port

type Answer = tuple[int, object]


class Account:
    """Answers documents' requests with what it was given, in order; the last answer stays."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.answers: list[Answer] = []
        self.asked: list[web.Request] = []
        self.sent: list[str] = []

    async def answer(self, request: web.Request) -> web.Response:
        if "/docs" not in request.path:
            return web.json_response(self._about(request.path))
        self.asked.append(request)
        self.sent.append(await request.text())
        status, body = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        headers = {"x-ms-request-charge": "2.5", "etag": '"new"', "x-ms-retry-after-ms": "1"}
        return web.json_response(body, status=status, headers=headers)

    def _about(self, path: str) -> object:
        places = [{"name": "Here", "databaseAccountEndpoint": self.url}]
        account = {"writableLocations": places, "readableLocations": places, "enableMultipleWriteLocations": False}
        consistency = {"userConsistencyPolicy": {"defaultConsistencyLevel": "Strong"}}
        keys = {"partitionKey": {"paths": ["/pk"], "kind": "Hash"}}
        return account | consistency if path == "/" else {"id": "state", "_rid": "rid", "_self": "self"} | keys


@pytest.fixture
async def account() -> AsyncIterator[Account]:
    port = free_port()
    account = Account(f"http://127.0.0.1:{port}/")
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", account.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    yield account
    await runner.cleanup()


def is_never_local(_endpoint: str) -> bool:
    return False


@pytest.fixture
async def store(account: Account, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[CosmosStore]:
    # The server is on this machine, and yet to be treated as the cloud's.
    monkeypatch.setattr("shared.storage.cosmos.is_local", is_never_local)
    settings = replace(Settings.read({}).storage, cosmos_endpoint=account.url, cosmos_key=Secret("eA=="))
    store = CosmosStore(settings)
    yield store
    await store.close()


@pytest.mark.parametrize("status", [401, 403, 408, 429, 500, 503])
async def test_a_service_that_cannot_is_unavailable(account: Account, store: CosmosStore, status: int) -> None:
    account.answers = [(status, {"code": "No", "message": "no"})]

    with pytest.raises(StorageUnavailable):
        await store.read(STATE, "owner", "one")
    with pytest.raises(StorageUnavailable):
        await store.batch(STATE, "owner", [Create({"id": "one"})])


async def test_a_throttled_call_waits_as_told_and_succeeds(account: Account, store: CosmosStore) -> None:
    account.answers = [(429, {}), (429, {}), (201, {})]

    assert await store.batch(STATE, "owner", [Create({"id": "one"})]) == ['"new"']
    assert len(account.asked) == 3


async def test_a_write_that_collided_is_sent_again(account: Account, store: CosmosStore) -> None:
    account.answers = [(449, {}), (201, {})]

    with Tally() as tally:
        assert await store.batch(STATE, "owner", [Upsert({"id": "one"})]) == ['"new"']

    assert (tally.counts["batch"], tally.charge) == (2, 5.0)


async def test_a_write_that_always_collides_is_given_up(account: Account, store: CosmosStore) -> None:
    account.answers = [(449, {})]

    with pytest.raises(StorageUnavailable):
        await store.batch(STATE, "owner", [Upsert({"id": "one"})])

    assert len(account.asked) == CONFLICT_RETRIES + 1


async def test_a_create_is_sent_once_when_its_fate_is_unknown(account: Account, store: CosmosStore) -> None:
    """A second one would find the first and call it somebody else's."""
    account.answers = [(500, {})]

    with pytest.raises(StorageUnavailable):
        await store.batch(STATE, "owner", [Create({"id": "one"})])

    assert len(account.asked) == 1


@pytest.mark.parametrize(("status", "error"), [(409, AlreadyExists), (412, Stale)])
async def test_a_batch_names_the_operation_that_failed(
    account: Account, store: CosmosStore, status: int, error: type[Exception]
) -> None:
    """As the service tells it: the culprit has its own status, everything else 424."""
    account.answers = [(207, [{"statusCode": 424}, {"statusCode": status}])]

    with pytest.raises(error) as failure:
        await store.batch(STATE, "owner", [Create({"id": "one"}), Create({"id": "two"})])

    assert (getattr(failure.value, "index", None), getattr(failure.value, "id", None)) == (1, "two")


@pytest.mark.parametrize("answer", [(413, {}), (207, [{"statusCode": 424}, {"statusCode": 413}])])
async def test_what_the_service_calls_too_large_is_refused_for_good(
    account: Account, store: CosmosStore, answer: Answer
) -> None:
    account.answers = [answer]

    with pytest.raises(PayloadTooLarge):
        await store.batch(STATE, "owner", [Create({"id": "one"}), Create({"id": "two"})])

    assert len(account.asked) == 1


async def test_a_query_stays_in_its_partition_and_orders_by_an_index(account: Account, store: CosmosStore) -> None:
    account.answers = [(200, {"Documents": [{"id": "one", "pk": "owner", "_etag": '"1"', "_ts": 1}]})]

    with Tally() as tally:
        found = await store.query(STATE, "owner", Query(kind="turn", group="thread", order="desc", limit=5))

    assert [one.body for one in found] == [{"id": "one"}]
    assert (tally.counts, tally.charge) == ({"query": 1}, 2.5)
    assert account.asked[0].headers["x-ms-documentdb-partitionkey"] == '["owner"]'
    assert json.loads(account.sent[0])["query"].endswith('ORDER BY c.kind DESC, c["group"] DESC, c.sort DESC')


async def test_setup_makes_nothing_in_the_cloud(account: Account, store: CosmosStore) -> None:
    """The templates do; the app's identity may not."""
    account.answers = [(403, {})]

    await store.setup()

    assert account.asked == []


async def test_without_a_key_it_is_a_managed_identity() -> None:
    user_assigned, default = azure_identity("client-id"), azure_identity("")

    assert type(user_assigned).__name__ == "ManagedIdentityCredential"
    assert type(default).__name__ == "DefaultAzureCredential"
    for credential in (user_assigned, default):
        await credential.close()


async def test_a_request_that_the_service_calls_bad_is_a_bug(account: Account, store: CosmosStore) -> None:
    account.answers = [(400, {"code": "BadRequest", "message": "no such thing"})]

    with pytest.raises(Exception, match="no such thing") as failure:
        await store.batch(STATE, "owner", [Delete("one")])

    assert not isinstance(failure.value, StorageUnavailable)
