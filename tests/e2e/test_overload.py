"""A host that is full, over HTTP: what begins a turn is refused before anything is done for it; reads are not."""

import asyncio
import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, cast

import httpx
import pytest
from azure_functions_runtime import http_v2  # pyright: ignore[reportMissingTypeStubs]
from starlette.types import Message

from functions import _edge, _shed
from localhost import protos
from localhost.testing import app_on_runtime
from shared.app import App
from tests.e2e.test_trace import companion

CROWD = 12
SETTINGS = {"COMPANION_API_KEYS": "a=ada", "COMPANION_LOCAL_OWNER": "", "COMPANION_CONCURRENCY": "1"}

entries = cast(dict[str, Any], cast(Any, http_v2).http_coordinator._context_references)


@asynccontextmanager
async def full(app: App) -> AsyncGenerator[None]:
    """Its one place taken, and its line as long as it may be."""
    place = await app.models.gate.enter("somebody")
    waiting = [asyncio.create_task(app.models.gate.enter(f"o{number}")) for number in range(CROWD)]
    await asyncio.sleep(0)
    yield
    place.leave()
    for each in waiting:
        each.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def ask(client: httpx.AsyncClient, key: str = "a") -> int:
    headers = {"authorization": f"Bearer {key}"}
    return (await client.post("/v1/responses", json={"input": f"hello {uuid.uuid4()}"}, headers=headers)).status_code


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/chat/completions"])
async def test_what_does_not_fit_is_refused_unread_and_what_costs_little_is_served(path: str) -> None:
    async with companion(**SETTINGS, COMPANION_CORS_ORIGINS="https://app.example") as (client, app):
        client.headers["authorization"] = "Bearer a"
        async with full(app):
            refused = await client.post(path, content=b"{ no JSON", headers={"origin": "https://app.example"})
            read = await client.get("/v1/responses/resp_0")
        served = await client.post("/v1/responses", json={"input": "hello"})

    assert refused.status_code == 503
    assert refused.json()["error"]["type"] == "server_error"
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.headers["x-request-id"].startswith("req_")
    assert refused.headers["access-control-allow-origin"] == "https://app.example"
    assert read.status_code == 404
    assert served.status_code == 200


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/chat/completions"])
async def test_a_body_that_does_not_come_keeps_no_place_from_others(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_edge, "PLACE_SECONDS", 0.1)
    is_read, comes = asyncio.Event(), asyncio.Event()

    async def late() -> AsyncGenerator[bytes]:
        is_read.set()
        await comes.wait()
        yield b'{"model": "companion", "input": "hello"}'

    async with companion(**SETTINGS) as (client, app):
        client.headers.update({"authorization": "Bearer a", "content-type": "application/json"})
        slow = asyncio.create_task(client.post(path, content=late()))
        await is_read.wait()
        assert app.models.gate.in_flight == 1
        async with asyncio.timeout(5):
            assert await ask(client) == 200
        comes.set()
        status = (await slow).status_code

    assert status == (200 if path == "/v1/responses" else 400)
    assert app.models.gate.in_flight == 0


async def test_a_caller_who_was_here_is_refused_before_the_runtime_hears_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """And answered just as one who was not; a wrong key is told that it is wrong, and the next one who is known."""
    async with companion(**SETTINGS) as (client, app), app_on_runtime() as host:
        client.headers["authorization"] = "Bearer a"
        async with full(app):
            slow = await client.post("/v1/responses", json={"input": "hello"})
            monkeypatch.setattr(host, "_start", None)  # would fail, were an invocation begun
            quick = await client.post("/v1/responses", json={"input": "hello"})
            monkeypatch.undo()
            wrong = await ask(client, "b")
        served = await ask(client)

    per_request = {"x-request-id", "openai-processing-ms"}
    assert {**quick.headers}.keys() == {**slow.headers}.keys()
    assert {name: quick.headers[name] for name in {*quick.headers} - per_request} == {
        name: slow.headers[name] for name in {*slow.headers} - per_request
    }
    assert (quick.status_code, quick.content) == (slow.status_code, slow.content)
    assert quick.status_code == 503
    assert quick.headers["x-request-id"] != slow.headers["x-request-id"]
    assert (wrong, served) == (401, 200)
    assert not entries


async def test_the_invocation_that_the_cloud_sends_all_the_same_ends_at_once() -> None:
    async with companion(**SETTINGS) as (client, app), app_on_runtime() as host:
        function = next(each for each in host.runtime.functions if each.name == "create_response")
        id_, sent = str(uuid.uuid4()), list[Message]()

        async def send(message: Message) -> None:
            sent.append(message)

        async def receive() -> Message:
            raise AssertionError("its body is not read")

        headers = [(b"x-ms-invocation-id", id_.encode()), (b"authorization", b"Bearer a")]
        scope = {"type": "http", "method": "POST", "path": "/v1/responses", "query_string": b"", "headers": headers}
        async with full(app):
            await ask(client)
            assert host.runtime.http_app is not None
            await host.runtime.http_app(scope, receive, send)
            async with asyncio.timeout(5):
                data = protos.TypedData(http=protos.RpcHttp(params={}))
                await host.runtime.invoke(function, data, invocation_id=id_)

    assert sent[0]["status"] == 503
    assert not entries


async def test_a_key_that_was_revoked_is_known_for_seconds_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_shed, "SECONDS", 0.2)
    async with companion(**SETTINGS) as (client, app):
        client.headers["authorization"] = "Bearer a"
        made = (await client.post("/v1/api_keys", json={"name": "short"})).json()
        before = await ask(client, made["key"])
        await client.delete(f"/v1/api_keys/{made['id']}")
        async with full(app):
            refused = await ask(client, made["key"])
            await asyncio.sleep(0.3)
            unknown = await ask(client, made["key"])

    assert (before, refused, unknown) == (200, 503, 401)
