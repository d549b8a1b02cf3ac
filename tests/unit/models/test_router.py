from collections.abc import AsyncIterator

import pytest

from shared.errors import ModelUnavailable, NotFound, UpstreamError
from shared.models.base import Finished, Json, ModelRequest, TextDelta
from shared.models.build import build_embedder, build_router
from shared.models.router import Router
from shared.models.scripted import ScriptedModel, says
from shared.settings import ModelSettings, Settings, SettingsError
from tests.upstream import KEY, MODELS, Upstream, running


def settings(**variables: str) -> ModelSettings:
    return Settings.read(variables).model


@pytest.fixture
async def server() -> AsyncIterator[tuple[Upstream, str]]:
    async with running() as served:
        yield served


async def say(router: Router, model: str) -> tuple[str, Finished]:
    request = ModelRequest(model=model, items=[{"type": "message", "role": "user", "content": "hello"}])
    events = [event async for event in router.stream(request)]
    assert isinstance(events[-1], Finished)
    return "".join(event.text for event in events if isinstance(event, TextDelta)), events[-1]


def names(models: list[Json]) -> list[str]:
    return [model["id"] for model in models]


class TestOffline:
    async def test_with_nothing_set_the_offline_model_answers(self) -> None:
        router = build_router(settings(COMPANION_OFFLINE_DELAY="0"))

        text, finished = await say(router, await router.resolve("companion"))

        assert "You said: hello" in text
        assert finished.deployment == "offline"
        assert names(await router.models()) == ["companion", "companion-fast", "companion-reasoning"]
        assert router.describe().startswith("offline")
        await router.close()

    async def test_an_unknown_model_is_not_found_before_anything_streams(self) -> None:
        with pytest.raises(NotFound) as caught:
            await build_router(settings()).resolve("gpt-9")

        assert (caught.value.code, caught.value.param) == ("model_not_found", "model")

    async def test_every_model_has_a_window(self) -> None:
        router = build_router(settings(COMPANION_CONTEXT_WINDOW="4096"))

        assert (await router.route("companion")).window == 4096


class TestCompatibleServer:
    @pytest.mark.parametrize("api", ["chat", "responses"])
    async def test_with_a_url_and_a_key_its_models_go_by_their_own_names(
        self, server: tuple[Upstream, str], api: str
    ) -> None:
        upstream, url = server
        router = build_router(settings(OPENAI_BASE_URL=url, OPENAI_API_KEY=KEY, OPENAI_API=api))

        text, finished = await say(router, "test-small")

        assert text == "You said: hello"
        assert upstream.last_body()["model"] == "test-small"
        assert finished.deployment.endswith("/test-small")
        assert upstream.requests[-1]["path"].endswith({"chat": "/chat/completions", "responses": "/responses"}[api])
        await router.close()

    async def test_companion_is_the_first_model_listed(self, server: tuple[Upstream, str]) -> None:
        upstream, url = server
        router = build_router(settings(OPENAI_BASE_URL=f"{url}/", OPENAI_API_KEY=KEY))

        await say(router, await router.resolve("companion"))

        assert upstream.last_body()["model"] == MODELS[0]
        assert names(await router.models()) == ["companion", *MODELS]
        await router.close()

    async def test_companion_is_the_model_that_is_named(self, server: tuple[Upstream, str]) -> None:
        upstream, url = server
        router = build_router(settings(OPENAI_BASE_URL=url, OPENAI_API_KEY=KEY, OPENAI_MODEL="test-small"))

        await say(router, await router.resolve("companion"))

        assert upstream.last_body()["model"] == "test-small"
        assert [request["path"] for request in upstream.requests] == ["/v1/chat/completions"]
        await router.close()

    async def test_its_list_is_read_once(self, server: tuple[Upstream, str]) -> None:
        upstream, url = server
        router = build_router(settings(OPENAI_BASE_URL=url, OPENAI_API_KEY=KEY))

        for _ in range(3):
            await router.resolve("companion")

        assert [request["path"] for request in upstream.requests] == ["/v1/models"]
        await router.close()

    async def test_a_model_it_does_not_list_is_not_found(self, server: tuple[Upstream, str]) -> None:
        _, url = server
        router = build_router(settings(OPENAI_BASE_URL=url, OPENAI_API_KEY=KEY))

        with pytest.raises(NotFound):
            await router.resolve("gpt-9")
        await router.close()

    async def test_a_refused_key_names_the_setting(self, server: tuple[Upstream, str]) -> None:
        _, url = server
        router = build_router(settings(OPENAI_BASE_URL=url, OPENAI_API_KEY="wrong"))

        with pytest.raises(UpstreamError, match="OPENAI_API_KEY"):
            await router.resolve("companion")
        await router.close()

    async def test_a_named_model_works_where_models_are_not_listed(self, server: tuple[Upstream, str]) -> None:
        _, url = server
        router = build_router(settings(OPENAI_BASE_URL=url, OPENAI_API_KEY="wrong", OPENAI_MODEL="test-small"))

        assert names(await router.models()) == ["companion", "test-small"]
        with pytest.raises(NotFound):
            await router.resolve("gpt-9")
        await router.close()

    async def test_a_server_that_is_not_there_is_unavailable(self, unused_tcp_port: int) -> None:
        router = build_router(settings(OPENAI_BASE_URL=f"http://127.0.0.1:{unused_tcp_port}/v1"))

        with pytest.raises(ModelUnavailable):
            await router.resolve("companion")
        await router.close()

    async def test_the_banner_names_model_server_and_api(self) -> None:
        router = build_router(settings(OPENAI_API_KEY="k", OPENAI_MODEL="gpt-x", OPENAI_API="responses"))

        assert router.describe() == "gpt-x of api.openai.com (responses)"


class TestAzure:
    async def test_its_deployment_is_companion(self) -> None:
        router = build_router(
            settings(AZURE_OPENAI_ENDPOINT="https://x.openai.azure.com/", OPENAI_MODEL="gpt", OPENAI_API_KEY="other")
        )

        assert names(await router.models()) == ["companion", "gpt"]
        assert (await router.route("companion")).deployments[0].upstream == "gpt"
        assert router.describe() == "gpt of x.openai.azure.com (chat)"
        await router.close()

    def test_its_deployment_must_be_named(self) -> None:
        with pytest.raises(SettingsError, match="OPENAI_MODEL"):
            build_router(settings(AZURE_OPENAI_ENDPOINT="https://x.openai.azure.com"))


async def test_leaving_a_routed_stream_leaves_the_model_too() -> None:
    model = ScriptedModel([says("a", "b")])
    stream = Router.over(model).stream(ModelRequest(model="companion", items=[]))

    await anext(stream)
    await stream.aclose()

    assert model.closed_early == 1


class TestEmbeddings:
    @pytest.mark.parametrize("encoding", ["float", "base64", None])
    async def test_they_are_passed_through_as_they_are(
        self, server: tuple[Upstream, str], encoding: str | None
    ) -> None:
        upstream, url = server
        body: Json = {"model": "test-embed", "input": ["a", "bb"], "dimensions": 4}
        body |= {"encoding_format": encoding} if encoding else {}
        embedder = build_embedder(settings(OPENAI_BASE_URL=url, OPENAI_API_KEY=KEY))

        answer = await embedder.embed(body)

        assert upstream.last_body() == body
        assert isinstance(answer["data"][1]["embedding"], str if encoding == "base64" else list)
        assert answer["usage"]["total_tokens"] == 2
        await embedder.close()

    async def test_their_errors_are_ours(self, server: tuple[Upstream, str], unused_tcp_port: int) -> None:
        _, url = server
        refused = build_embedder(settings(OPENAI_BASE_URL=url))
        away = build_embedder(settings(OPENAI_BASE_URL=f"http://127.0.0.1:{unused_tcp_port}/v1"))

        with pytest.raises(UpstreamError, match="OPENAI_API_KEY"):
            await refused.embed({"model": "m", "input": "a"})
        with pytest.raises(ModelUnavailable):
            await away.embed({"model": "m", "input": "a"})
        await refused.close()
        await away.close()
