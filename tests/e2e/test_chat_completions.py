"""Chat Completions over HTTP: the stock SDK on the local host, answered offline and by both upstream APIs."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import httpx
import openai
import orjson
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionMessageParam, ChatCompletionToolUnionParam
from pydantic import BaseModel

from functions._edge import override_app
from localhost.testing import app_on_runtime, serving
from shared.bootstrap import build_app
from shared.errors import RateLimited
from shared.models.router import Router
from shared.models.scripted import ScriptedModel, says
from shared.settings import Settings
from tests.processes import companion, upstream
from tests.upstream import KEY

type Json = dict[str, Any]

MODEL = "companion"
WEATHER: ChatCompletionToolUnionParam = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
TIME: ChatCompletionToolUnionParam = {
    "type": "function",
    "function": {"name": "time", "parameters": {"type": "object"}},
}
HOSTS = ("offline", "chat", "responses")


class Host(BaseModel):
    """A running Companion, and what answers it."""

    url: str
    upstream: str = ""

    def client(self, *, max_retries: int = 0) -> OpenAI:
        return OpenAI(base_url=self.url, api_key="none", max_retries=max_retries)

    def heard(self) -> Json:
        """The body that the upstream got last."""
        state: Json = httpx.get(f"{self.upstream.removesuffix('/v1')}/__state").json()
        return state["requests"][-1]["body"]


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with companion(tmp_path_factory.mktemp("offline")) as url:
        yield Host(url=url)


def _behind(api: str, folder: Path) -> Iterator[Host]:
    with upstream() as server, companion(folder, OPENAI_BASE_URL=server, OPENAI_API_KEY=KEY, OPENAI_API=api) as url:
        yield Host(url=url, upstream=server)


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    yield from _behind("chat", tmp_path_factory.mktemp("chat"))


@pytest.fixture(scope="module")
def responses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    yield from _behind("responses", tmp_path_factory.mktemp("responses"))


@pytest.fixture(params=HOSTS)
def host(request: pytest.FixtureRequest) -> Host:
    return request.getfixturevalue(request.param)


def user(text: str) -> ChatCompletionMessageParam:
    return {"role": "user", "content": text}


def create(host: Host, text: str, **fields: Any) -> ChatCompletion:
    with host.client() as client:
        ask: Any = client.chat.completions.create
        return ask(model=MODEL, messages=[user(text)], **fields)


def frames(host: Host, text: str, **fields: Any) -> list[str]:
    """The non-empty lines of a stream."""
    body = {"model": MODEL, "stream": True, "messages": [user(text)], **fields}
    with httpx.stream("POST", f"{host.url}/chat/completions", json=body, timeout=30) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        return [line for line in response.iter_lines() if line]


def test_a_plain_answer_remembers_what_was_sent(host: Host) -> None:
    messages: list[ChatCompletionMessageParam] = [
        {"role": "system", "content": "Be kind."},
        user("My name is Ada."),
        {"role": "assistant", "content": "Hello!"},
        user("What is my name?"),
    ]
    with host.client() as client:
        answer = client.chat.completions.create(model=MODEL, messages=messages)

    assert answer.choices[0].message.content == "Your name is Ada."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.id.startswith("chatcmpl-")
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0
    assert answer.usage.completion_tokens_details is not None
    assert answer._request_id is not None  # pyright: ignore[reportPrivateUsage]


async def test_a_stream_says_what_a_plain_answer_says(host: Host) -> None:
    async with AsyncOpenAI(base_url=host.url, api_key="none", max_retries=0) as client:
        stream = await client.chat.completions.create(
            model=MODEL, messages=[user("count to 30")], stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    plain = await asyncio.to_thread(create, host, "count to 30")

    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == plain.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert (chunks[-1].choices, chunks[-1].usage) == ([], plain.usage)
    assert {chunk.id for chunk in chunks} == {chunks[0].id}


def test_a_stream_is_framed_as_this_surface_does(offline: Host) -> None:
    lines = frames(offline, "think: hm\ncount to 3")

    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    deltas = [orjson.loads(line[6:])["choices"][0]["delta"] for line in lines[:-1]]
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "hm"
    assert "usage" not in orjson.loads(lines[0][6:])


def test_tools_go_round(host: Host) -> None:
    question = user('call weather {"city": "Bern"}')
    with host.client() as client:
        first = client.chat.completions.create(model=MODEL, messages=[question], tools=[WEATHER])
        message = first.choices[0].message
        assert message.tool_calls is not None
        (call,) = message.tool_calls
        assert call.type == "function"
        output: ChatCompletionMessageParam = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
        said = cast(ChatCompletionMessageParam, message.model_dump(exclude_none=True))
        second = client.chat.completions.create(model=MODEL, messages=[question, said, output], tools=[WEATHER])

    assert (first.choices[0].finish_reason, message.content) == ("tool_calls", None)
    assert (call.function.name, orjson.loads(call.function.arguments)) == ("weather", {"city": "Bern"})
    assert "sunny" in (second.choices[0].message.content or "")


def test_parallel_calls_are_streamed_apart(host: Host) -> None:
    text = 'call weather {"city": "Bern"}\ncall time {}'
    with (
        host.client() as client,
        client.chat.completions.stream(model=MODEL, messages=[user(text)], tools=[WEATHER, TIME]) as stream,
    ):
        message = stream.get_final_completion().choices[0].message

    assert message.tool_calls is not None
    assert [(call.function.name, orjson.loads(call.function.arguments)) for call in message.tool_calls] == [
        ("weather", {"city": "Bern"}),
        ("time", {}),
    ]
    assert len({call.id for call in message.tool_calls}) == 2


def test_one_call_at_a_time_where_parallel_ones_are_not_wanted(host: Host) -> None:
    text = 'call weather {"city": "Bern"}\ncall time {}'
    answer = create(host, text, tools=[WEATHER, TIME], parallel_tool_calls=False)

    assert len(answer.choices[0].message.tool_calls or []) == 1


def test_a_named_tool_is_called(host: Host) -> None:
    choice = {"type": "function", "function": {"name": "time"}}
    answer = create(host, "Hello", tools=[WEATHER, TIME], tool_choice=choice)

    (call,) = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "time"


def test_only_allowed_tools_are_called(host: Host) -> None:
    allowed = {"mode": "required", "tools": [{"type": "function", "function": {"name": "time"}}]}
    choice = {"type": "allowed_tools", "allowed_tools": allowed}
    answer = create(host, "Hello", tools=[WEATHER, TIME], tool_choice=choice)

    assert [call.to_dict()["function"] for call in answer.choices[0].message.tool_calls or []] != []
    assert {call.function.name for call in answer.choices[0].message.tool_calls or [] if call.type == "function"} == {
        "time"
    }


def test_custom_tools_go_round(host: Host) -> None:
    answer = create(host, "call note buy milk", tools=[{"type": "custom", "custom": {"name": "note"}}])

    (call,) = answer.choices[0].message.tool_calls or []
    assert call.type == "custom"
    assert call.custom.name == "note"


def test_the_oldest_form_of_tools_still_works(host: Host) -> None:
    functions = [{"name": "weather", "parameters": {"type": "object"}}]
    answer = create(host, 'call weather {"city": "Bern"}', functions=functions)

    call = answer.choices[0].message.function_call
    assert call is not None
    assert (call.name, orjson.loads(call.arguments)) == ("weather", {"city": "Bern"})
    assert answer.choices[0].finish_reason == "function_call"


def test_structured_outputs_are_parsed(host: Host) -> None:
    class Place(BaseModel):
        name: str
        people: int

    with host.client() as client:
        answer = client.chat.completions.parse(model=MODEL, messages=[user("Bern")], response_format=Place)

    assert isinstance(answer.choices[0].message.parsed, Place)


def test_a_refusal_is_not_content(host: Host) -> None:
    message = create(host, "refuse").choices[0].message

    assert message.content is None
    assert message.refusal


def test_images_are_seen(host: Host) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    body: Any = [{"role": "user", "content": [{"type": "text", "text": "Look"}, image]}]
    with host.client() as client:
        answer = client.chat.completions.create(model=MODEL, messages=body)

    assert "I see 1 image" in (answer.choices[0].message.content or "")


def test_an_answer_cut_by_its_limit_says_so(chat: Host) -> None:
    answer = create(chat, "count to 50", max_completion_tokens=20)

    assert answer.choices[0].finish_reason == "length"


def test_every_setting_reaches_the_upstream(chat: Host) -> None:
    settings = {
        "frequency_penalty": 0.5,
        "logit_bias": {"50256": -100},
        "presence_penalty": -0.5,
        "prompt_cache_key": "k",
        "reasoning_effort": "low",
        "response_format": {"type": "json_object"},
        "safety_identifier": "s",
        "seed": 7,
        "service_tier": "flex",
        "stop": ["END"],
        "temperature": 0.0,
        "top_p": 0.5,
        "user": "u",
        "verbosity": "low",
        "prediction": {"type": "content", "content": "guess"},
    }
    create(chat, "Hello in JSON", **settings)
    heard = chat.heard()

    assert {name: heard.get(name) for name in settings} == settings


def test_the_name_of_a_participant_reaches_the_upstream(chat: Host) -> None:
    with chat.client() as client:
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Hi", "name": "ada"}])

    assert chat.heard()["messages"] == [{"role": "user", "content": "Hi", "name": "ada"}]


def test_logprobs_come_with_the_tokens(offline: Host) -> None:
    answer = create(offline, "count to 3", logprobs=True, top_logprobs=1)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    lines = frames(offline, "count to 3", logprobs=True)[:-1]
    streamed: list[Json] = [orjson.loads(line[6:])["choices"][0]["logprobs"] or {"content": []} for line in lines]
    pieces: list[str] = [token["token"] for said in streamed for token in said["content"]]

    assert "".join(token.token for token in logprobs.content) == answer.choices[0].message.content
    assert all(token.top_logprobs for token in logprobs.content)
    assert pieces == [token.token for token in logprobs.content]


class TestErrors:
    @pytest.mark.parametrize(
        ("fields", "param"),
        [
            ({"n": 2}, "n"),
            ({"modalities": ["audio"]}, "modalities"),
            ({"audio": {"voice": "alloy", "format": "mp3"}}, "audio"),
            ({"web_search_options": {}}, "web_search_options"),
            ({"moderation": {"model": "m"}}, "moderation"),
            ({"temperature": 3}, "temperature"),
            ({"messages": []}, "messages"),
            ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
            ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
            ({"messages": [{"role": "tool", "tool_call_id": "a", "content": "x"}]}, "messages[0].tool_call_id"),
        ],
    )
    def test_what_cannot_be_honoured_is_refused_by_name(self, offline: Host, fields: Json, param: str) -> None:
        body: Json = {"messages": [user("Hello")], **fields}
        with offline.client() as client, pytest.raises(openai.BadRequestError) as raised:
            client.chat.completions.create(model=MODEL, **body)

        assert (raised.value.param, raised.value.type) == (param, "invalid_request_error")

    @pytest.mark.parametrize("stream", [False, True])
    def test_an_unknown_model_is_not_found(self, host: Host, stream: bool) -> None:
        with host.client() as client, pytest.raises(openai.NotFoundError) as raised:
            client.chat.completions.create(model="nope", messages=[user("Hello")], stream=stream)

        assert (raised.value.code, raised.value.param) == ("model_not_found", "model")

    @pytest.mark.parametrize("stream", [False, True])
    @pytest.mark.parametrize(
        ("how", "error"), [("400", openai.BadRequestError), ("429", openai.RateLimitError), ("503", openai.APIError)]
    )
    def test_a_failure_before_the_first_word_is_a_status(
        self, offline: Host, how: str, error: type[openai.APIStatusError], stream: bool
    ) -> None:
        with offline.client() as client, pytest.raises(error) as raised:
            client.chat.completions.create(model=MODEL, messages=[user(f"fail {how}")], stream=stream)

        assert raised.value.status_code == int(how)

    def test_an_upstream_that_is_busy_is_told_as_such(self, chat: Host) -> None:
        with chat.client() as client, pytest.raises(openai.RateLimitError):
            client.chat.completions.create(model=MODEL, messages=[user("fail 429")])

    def test_a_client_that_tries_again_is_told_the_same(self, offline: Host) -> None:
        with offline.client(max_retries=1) as client, pytest.raises(openai.RateLimitError):
            client.chat.completions.create(model=MODEL, messages=[user("fail 429, and once more")])

    def test_a_failure_after_the_first_word_raises_in_the_middle(self, host: Host) -> None:
        with (
            host.client() as client,
            client.chat.completions.create(model=MODEL, messages=[user("fail cut")], stream=True) as stream,
            pytest.raises(openai.APIError) as raised,
        ):
            words = [chunk.choices[0].delta.content or "" for chunk in stream]
            assert words == "the stream should have raised"

        assert raised.value.code == "upstream_cut"

    def test_a_failed_stream_still_ends_properly(self, offline: Host) -> None:
        lines = frames(offline, "fail cut")

        assert lines[-1] == "data: [DONE]"
        assert set(orjson.loads(lines[-2][6:])["error"]) == {"message", "type", "param", "code"}


class TestStored:
    def test_what_is_not_to_be_stored_is_not_found(self, offline: Host) -> None:
        answer = create(offline, "Hello")

        with offline.client() as client, pytest.raises(openai.NotFoundError):
            client.chat.completions.retrieve(answer.id)

    def test_a_stored_completion_is_retrieved_as_it_was_given(self, host: Host) -> None:
        answer = create(host, "Hello", store=True, metadata={"a": "b"})
        with host.client() as client:
            stored = client.chat.completions.retrieve(answer.id)

        assert stored.choices == answer.choices
        assert (stored.usage, stored.metadata, stored.created) == (answer.usage, {"a": "b"}, answer.created)

    def test_a_streamed_completion_is_stored_too(self, host: Host) -> None:
        with host.client() as client:
            stream = client.chat.completions.create(model=MODEL, messages=[user("count to 5")], stream=True, store=True)
            chunks = list(stream)
            stored = client.chat.completions.retrieve(chunks[0].id)

        said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        assert stored.choices[0].message.content == said == "1 2 3 4 5"

    def test_completions_are_listed_oldest_first_and_page_by_page(self, offline: Host) -> None:
        made = [create(offline, f"Hello {n}", store=True, metadata={"list": "pages"}).id for n in range(5)]
        with offline.client() as client:
            pages = client.chat.completions.list(metadata={"list": "pages"}, limit=2)
            ascending = [completion.id for completion in pages]
            descending = [one.id for one in client.chat.completions.list(metadata={"list": "pages"}, order="desc")]
            others = client.chat.completions.list(metadata={"list": "nothing"}).data
            model = client.chat.completions.list(model="other").data

        assert (pages.data[-1].id, pages.has_more) == (made[1], True)
        assert (ascending, descending) == (made, made[::-1])
        assert others == model == []

    def test_the_messages_of_a_completion_are_listed(self, offline: Host) -> None:
        messages: list[ChatCompletionMessageParam] = [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        ]
        with offline.client() as client:
            answer = client.chat.completions.create(model=MODEL, messages=messages, store=True)
            listed = list(client.chat.completions.messages.list(answer.id, limit=1))
            newest = client.chat.completions.messages.list(answer.id, order="desc").data

        assert [(message.id, message.content) for message in listed] == [
            (f"{answer.id}-0", "Be kind."),
            (f"{answer.id}-1", "ab"),
        ]
        assert [part.type for part in listed[1].content_parts or []] == ["text", "text"]
        assert newest == listed[::-1]

    def test_the_metadata_of_a_completion_can_be_changed(self, offline: Host) -> None:
        answer = create(offline, "Hello", store=True, metadata={"a": "b"})
        with offline.client() as client:
            changed = client.chat.completions.update(answer.id, metadata={"c": "d"})
            stored = client.chat.completions.retrieve(answer.id)
            cleared = client.chat.completions.update(answer.id, metadata=None)

        assert changed.metadata == stored.metadata == {"c": "d"}
        assert stored.choices == answer.choices
        assert cleared.metadata == {}

    def test_a_deleted_completion_is_gone(self, offline: Host) -> None:
        answer = create(offline, "Hello", store=True)
        with offline.client() as client:
            deleted = client.chat.completions.delete(answer.id)
            with pytest.raises(openai.NotFoundError):
                client.chat.completions.retrieve(answer.id)
            with pytest.raises(openai.NotFoundError):
                client.chat.completions.delete(answer.id)

        assert deleted.to_dict() == {"id": answer.id, "object": "chat.completion.deleted", "deleted": True}

    def test_a_failed_completion_is_not_shown(self, offline: Host) -> None:
        with offline.client() as client, pytest.raises(openai.RateLimitError):
            client.chat.completions.create(
                model=MODEL, messages=[user("fail 429")], store=True, metadata={"list": "failed"}
            )
        with offline.client() as client:
            assert client.chat.completions.list(metadata={"list": "failed"}).data == []

    def test_the_two_surfaces_do_not_show_each_others_objects(self, offline: Host) -> None:
        chat = create(offline, "Hello", store=True)
        with offline.client() as client:
            response = client.responses.create(model=MODEL, input="Hello")
            as_response = chat.id.replace("chatcmpl-", "resp_")
            as_chat = response.id.replace("resp_", "chatcmpl-")
            with pytest.raises(openai.NotFoundError):
                client.responses.retrieve(as_response)
            with pytest.raises(openai.NotFoundError):
                client.responses.cancel(as_response)
            with pytest.raises(openai.NotFoundError):
                client.chat.completions.retrieve(as_chat)
            with pytest.raises(openai.BadRequestError):
                client.responses.create(model=MODEL, input="Hello", previous_response_id=as_response)


@asynccontextmanager
async def scripted(model: ScriptedModel, data: Path, *, max_retries: int = 0) -> AsyncGenerator[AsyncOpenAI]:
    """A client of the app in this process, answered by this model."""
    settings = Settings.read({"COMPANION_LOCAL_OWNER": "local", "COMPANION_DATA": str(data)})
    app = build_app(settings, models=Router.over(model, MODEL))
    await app.store.setup()
    async with (
        app_on_runtime() as host,
        serving(host) as base_url,
        AsyncOpenAI(base_url=f"{base_url}/v1", api_key="none", max_retries=max_retries) as client,
    ):
        with override_app(app):
            yield client
        await app.close()


@pytest.mark.parametrize("store", [False, True])
async def test_a_retry_after_a_failure_is_another_try(tmp_path: Path, store: bool) -> None:
    model = ScriptedModel([[RateLimited("busy", retry_after=0.01)], says("Hi")])
    async with scripted(model, tmp_path, max_retries=1) as client:
        answer = await client.chat.completions.create(model=MODEL, messages=[user("Hello")], store=store)

    assert answer.choices[0].message.content == "Hi"


async def test_a_stream_that_fails_before_its_first_word_is_tried_again(tmp_path: Path) -> None:
    model = ScriptedModel([[RateLimited("busy", retry_after=0.01)], says("Hi")])
    async with scripted(model, tmp_path, max_retries=1) as client:
        stream = await client.chat.completions.create(model=MODEL, messages=[user("Hello")], stream=True)
        words = [chunk.choices[0].delta.content or "" async for chunk in stream]

    assert "".join(words) == "Hi"


async def test_messages_reach_the_model_in_their_order(tmp_path: Path) -> None:
    model = ScriptedModel([says("Hi")])
    roles: Any = ["system", "user", "assistant", "developer", "user"]
    async with scripted(model, tmp_path) as client:
        await client.chat.completions.create(
            model=MODEL, messages=[{"role": role, "content": str(place)} for place, role in enumerate(roles)]
        )

    assert [item["role"] for item in model.requests[0].items] == roles
