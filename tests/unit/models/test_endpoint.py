import time
from dataclasses import dataclass

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from shared.errors import UpstreamError
from shared.models.base import ModelRequest
from shared.models.endpoint import (
    TOKEN_MARGIN,
    AzureToken,
    Catalog,
    azure_endpoint,
    openai_endpoint,
)
from shared.models.openai import ChatUpstream, ResponsesUpstream
from shared.models.transport import Transport
from shared.settings import Secret
from tests.upstream import KEY, MODELS, Upstream, running


@dataclass
class Token:
    token: str
    expires_on: int


class Source:
    """Gives tokens that last an hour, numbered."""

    def __init__(self) -> None:
        self.asked = 0

    async def __call__(self) -> Token:
        self.asked += 1
        return Token(f"token-{self.asked}", 3600 * self.asked)


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("", "openai"),
        ("https://api.openai.com/v1", "openai"),
        ("https://eu.api.openai.com/v1", "openai"),
        ("http://127.0.0.1:11434/v1", "compatible"),
        ("https://openrouter.ai/api/v1", "compatible"),
    ],
)
def test_an_address_tells_what_kind_of_server_it_is(url: str, kind: str) -> None:
    assert openai_endpoint(url, Secret("k")).kind == kind


async def test_without_a_key_no_authorization_is_sent() -> None:
    assert await openai_endpoint("http://127.0.0.1/v1", Secret("")).authorize() == {}


@pytest.mark.parametrize("given", ["https://x.openai.azure.com/", "https://x.openai.azure.com/openai/v1/"])
async def test_azure_speaks_v1_with_its_own_key_header(given: str) -> None:
    endpoint = azure_endpoint(given, Secret("k"))

    assert endpoint.base_url == "https://x.openai.azure.com/openai/v1"
    assert await endpoint.authorize() == {"api-key": "k"}


async def test_azure_without_a_key_sends_a_token() -> None:
    endpoint = azure_endpoint("https://x.openai.azure.com", Secret(""), token_source=Source())

    assert await endpoint.authorize() == {"Authorization": "Bearer token-1"}
    await endpoint.close()


async def test_the_token_is_that_of_the_managed_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a function app the platform's own endpoint gives it, by way of the stock azure-identity."""
    asked: list[web.Request] = []

    async def give(request: web.Request) -> web.Response:
        asked.append(request)
        token = {"access_token": "t", "expires_on": "4000000000", "token_type": "Bearer"}
        return web.json_response({**token, "resource": request.query["resource"]})

    app = web.Application()
    app.router.add_get("/msi", give)
    async with TestServer(app) as server:
        monkeypatch.setenv("IDENTITY_ENDPOINT", str(server.make_url("/msi")))
        monkeypatch.setenv("IDENTITY_HEADER", "secret")
        endpoint = azure_endpoint("https://x.openai.azure.com", Secret(""), client_id="client-7")

        headers = [await endpoint.authorize(), await endpoint.authorize()]
        await endpoint.close()

    assert headers == [{"Authorization": "Bearer t"}] * 2
    assert len(asked) == 1
    assert asked[0].query["resource"] == "https://cognitiveservices.azure.com"
    assert "client-7" in asked[0].query.values()


async def test_a_token_is_kept_until_shortly_before_its_end() -> None:
    now, source = [0.0], Source()
    token = AzureToken("", source, lambda: now[0])

    await token.headers()
    now[0] = 3600 - TOKEN_MARGIN - 1
    await token.headers()
    assert source.asked == 1
    now[0] = 3600 - TOKEN_MARGIN
    assert await token.headers() == {"Authorization": "Bearer token-2"}


async def test_a_token_that_is_still_good_outlives_an_outage_of_the_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    """The platform's endpoint gives one token, then fails: calls go on until its end, and then say what to check."""
    now, asked = [time.time()], [0]

    async def give(request: web.Request) -> web.Response:
        asked[0] += 1
        if asked[0] > 1:
            return web.Response(status=400)
        return web.json_response(
            {"access_token": "t", "expires_on": str(int(now[0]) + 200), "token_type": "Bearer", "resource": "r"}
        )

    app = web.Application()
    app.router.add_get("/msi", give)
    async with TestServer(app) as server:
        monkeypatch.setenv("IDENTITY_ENDPOINT", str(server.make_url("/msi")))
        monkeypatch.setenv("IDENTITY_HEADER", "secret")
        token = AzureToken("", None, lambda: now[0])
        first = await token.headers()
        second = await token.headers()
        now[0] += 201
        with pytest.raises(UpstreamError, match="AZURE_CLIENT_ID"):
            await token.headers()
        await token.close()

    assert first == second == {"Authorization": "Bearer t"}


async def test_a_catalog_is_read_again_after_some_minutes() -> None:
    now = [0.0]
    async with running() as (upstream, url):
        transport = Transport()
        catalog = Catalog(openai_endpoint(url, Secret(KEY)), transport, lambda: now[0])

        listed = await catalog.models()
        now[0] = 299.0
        assert await catalog.models() is listed
        now[0] = 301.0
        await catalog.models()

        assert [entry["id"] for entry in listed] == list(MODELS)
        assert len(upstream.requests) == 2
        await transport.close()


async def ask(model: ChatUpstream | ResponsesUpstream, **fields: object) -> None:
    items = [{"type": "message", "role": "user", "content": "count to 3"}]
    async for _ in model.stream(ModelRequest(model="test-large", items=items, **fields)):  # pyright: ignore[reportArgumentType]
        pass


@pytest.mark.parametrize(
    ("refused", "left"), [("max_tokens", "max_completion_tokens"), ("max_completion_tokens", "max_tokens")]
)
async def test_a_server_that_knows_one_name_of_the_limit_is_asked_with_that(refused: str, left: str) -> None:
    async with running(Upstream(refuses=[refused])) as (upstream, url):
        model = ChatUpstream(openai_endpoint(url, Secret(KEY)), Transport())

        await ask(model, max_output_tokens=20)
        await ask(model, max_output_tokens=20)

        assert len(upstream.requests) == 3  # the refusal, its repair, and a call that knows better
        assert upstream.last_body()[left] == 20
        assert refused not in upstream.last_body()
        await model.close()


async def test_a_server_without_sealed_reasoning_is_asked_without() -> None:
    async with running(Upstream(refuses=["reasoning.encrypted_content"])) as (upstream, url):
        model = ResponsesUpstream(openai_endpoint(url, Secret(KEY)), Transport())

        await ask(model)

        assert upstream.last_body()["include"] == []
        await model.close()
