"""One suite over every model: the scripted double, the offline model, and both upstream APIs against a real server."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, cast

import openai
import pytest

from shared.errors import AssistantError, InvalidRequest, ModelTimeout, RateLimited, UpstreamError
from shared.models.base import (
    AnnotationAdded,
    ArgumentsDelta,
    Finished,
    ItemDone,
    ItemStarted,
    Json,
    Model,
    ModelEvent,
    ModelRequest,
    ReasoningDelta,
    RefusalDelta,
    SummaryDelta,
    TextDelta,
    Usage,
)
from shared.models.endpoint import openai_endpoint
from shared.models.offline import OfflineModel
from shared.models.openai import ChatUpstream, ResponsesUpstream
from shared.models.scripted import ScriptedModel, Step, calls, says
from shared.models.transport import Transport
from shared.settings import Secret
from tests.upstream import KEY, Upstream, running

WEATHER: Json = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": False,
}
SHOUT: Json = {"type": "custom", "name": "shout", "description": "Says it loudly."}
PERSON: Json = {
    "type": "object",
    "properties": {"name": {"type": "string", "enum": ["Ada"]}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
SILENCE = 0.5
"""Seconds, for what hangs alone: upstream and client share a loop here, and a busy machine may stop both for longer."""

_TORN = [ItemStarted(0, "message"), TextDelta(0, "one two")]
SCRIPTS: dict[str, Step] = {
    "say": says("You said: ", "hello"),
    "recall": says("Your name is Ada."),
    "call": calls(("get_weather", '{"city":"Paris"}')),
    "calls": calls(("get_weather", '{"city":"Paris"}'), ("get_weather", '{"city":"Bern"}')),
    "custom": [
        ItemStarted(0, "custom_tool_call", "shout", "call_0"),
        ArgumentsDelta(0, "hello there"),
        ItemDone(0),
        Finished(usage=Usage()),
    ],
    "length": [*_TORN, Finished(usage=Usage(), incomplete="max_output_tokens")],
    "filter": [*_TORN, Finished(usage=Usage(), incomplete="content_filter")],
    "structured": says('{"name":"Ada","age":1}'),
    "refuse": [ItemStarted(0, "message"), RefusalDelta(0, "No."), ItemDone(0), Finished(usage=Usage())],
    "reason": [
        ItemStarted(0, "reasoning"),
        SummaryDelta(0, 0, "let me see"),
        ItemDone(0, {"encrypted_content": "sealed"}),
        ItemStarted(1, "message"),
        TextDelta(1, "You said: hello"),
        ItemDone(1),
        Finished(usage=Usage(reasoning_tokens=3)),
    ],
    "429": [RateLimited("slow down", retry_after=1)],
    "400": [InvalidRequest("no")],
    "hang": [*_TORN, ModelTimeout("silence")],
    "cut": [*_TORN, UpstreamError("cut", code="upstream_cut")],
    "slow": [ItemStarted(0, "message"), TextDelta(0, "1"), 5.0, TextDelta(0, " 2"), ItemDone(0), Finished(usage=None)],
}


@dataclass
class Bench:
    """A model under test: `model` gives one that will behave as told, `name` is what it is called there."""

    kind: str
    name: str
    make: Callable[[str], Model]
    upstream: Upstream | None = None


@pytest.fixture(params=["scripted", "offline", "chat", "responses"])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    match request.param:
        case "scripted":
            yield Bench("scripted", "any", lambda behaviour: ScriptedModel([SCRIPTS[behaviour]]))
        case "offline":
            model = OfflineModel(word_delay=0.001)
            yield Bench("offline", "companion", lambda behaviour: model)
        case kind:
            async with running() as (upstream, url):
                cls = ChatUpstream if kind == "chat" else ResponsesUpstream
                endpoint = openai_endpoint(url, Secret(KEY))
                patient, impatient = cls(endpoint, Transport()), cls(endpoint, Transport(silence=SILENCE))
                yield Bench(
                    kind, "test-large", lambda behaviour: impatient if behaviour == "hang" else patient, upstream
                )
                await patient.close()
                await impatient.close()


def user(text: str) -> Json:
    return {
        "id": "msg_0",
        "type": "message",
        "status": "completed",
        "role": "user",
        "content": [{"type": "input_text", "text": text}],
    }


async def ask(bench: Bench, behaviour: str, prompt: str, **fields: Any) -> list[ModelEvent]:
    """Every event of one call, held against the grammar of the port."""
    model = bench.make(behaviour)
    request = ModelRequest(model=bench.name, items=fields.pop("items", None) or [user(prompt)], **fields)
    events = [event async for event in model.stream(request)]
    check_grammar(events)
    return events


def check_grammar(events: list[ModelEvent]) -> None:
    """ItemStarted ► deltas ► ItemDone for each key; Finished once, last; an open item only where it says incomplete."""
    assert [type(event) for event in events].count(Finished) == 1
    finished = events[-1]
    assert isinstance(finished, Finished)
    kinds: dict[int, str] = {}
    done: set[int] = set()
    for event in events[:-1]:
        assert not isinstance(event, Finished)
        if isinstance(event, ItemStarted):
            assert event.key not in kinds
            kinds[event.key] = event.type
            continue
        assert event.key in kinds
        assert event.key not in done
        assert kinds[event.key] in _BELONGS[type(event)]
        if isinstance(event, ItemDone):
            done.add(event.key)
    assert list(kinds) == sorted(kinds)
    assert len(kinds) - len(done) <= (1 if finished.incomplete else 0)


_ANY = ("message", "reasoning", "function_call", "custom_tool_call")
_BELONGS: dict[type, tuple[str, ...]] = {
    TextDelta: ("message",),
    RefusalDelta: ("message",),
    AnnotationAdded: ("message",),
    ArgumentsDelta: ("function_call", "custom_tool_call"),
    SummaryDelta: ("reasoning",),
    ReasoningDelta: ("reasoning",),
    ItemDone: _ANY,
}


def text_of(events: list[ModelEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def calls_of(events: list[ModelEvent]) -> list[tuple[str, str, str]]:
    """Type, name and arguments of each tool call."""
    started = [event for event in events if isinstance(event, ItemStarted) and "call" in event.type]
    return [
        (
            start.type,
            start.name,
            "".join(event.text for event in events if isinstance(event, ArgumentsDelta) and event.key == start.key),
        )
        for start in started
    ]


def finished_of(events: list[ModelEvent]) -> Finished:
    assert isinstance(events[-1], Finished)
    return events[-1]


async def test_words_become_one_whole_message(bench: Bench) -> None:
    events = await ask(bench, "say", "hello")

    assert "You said: hello" in text_of(events)
    assert finished_of(events).incomplete is None
    assert finished_of(events).usage is not None


async def test_a_tool_that_is_asked_for_is_called_with_its_arguments(bench: Bench) -> None:
    events = await ask(bench, "call", 'call get_weather {"city":"Paris"}', tools=[WEATHER])

    assert calls_of(events) == [("function_call", "get_weather", '{"city":"Paris"}')]
    assert all(event.call_id for event in events if isinstance(event, ItemStarted))


async def test_parallel_calls_keep_their_order_and_have_ids_of_their_own(bench: Bench) -> None:
    text = 'call get_weather {"city":"Paris"}\ncall get_weather {"city":"Bern"}'

    events = await ask(bench, "calls", text, tools=[WEATHER], parallel_tool_calls=True)

    assert [arguments for _, _, arguments in calls_of(events)] == ['{"city":"Paris"}', '{"city":"Bern"}']
    assert len({event.call_id for event in events if isinstance(event, ItemStarted)}) == 2


async def test_parallel_calls_can_be_forbidden(bench: Bench) -> None:
    text = 'call get_weather {"city":"Paris"}\ncall get_weather {"city":"Bern"}'

    events = await ask(bench, "call", text, tools=[WEATHER], parallel_tool_calls=False)

    assert len(calls_of(events)) == 1


async def test_a_custom_tool_gets_its_input_as_it_is(bench: Bench) -> None:
    events = await ask(bench, "custom", "call shout hello there", tools=[SHOUT])

    assert calls_of(events) == [("custom_tool_call", "shout", "hello there")]


@pytest.mark.parametrize(
    "choice",
    [
        "required",
        {"type": "function", "name": "get_weather"},
        {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "get_weather"}]},
    ],
)
async def test_a_tool_that_must_be_called_is(bench: Bench, choice: str | Json) -> None:
    events = await ask(bench, "call", "hello", tools=[WEATHER], tool_choice=choice)

    assert [name for _, name, _ in calls_of(events)] == ["get_weather"]


async def test_a_tool_output_reaches_the_model(bench: Bench) -> None:
    asked = user('call get_weather {"city":"Paris"}')
    call = {"id": "fc_1", "type": "function_call", "call_id": "call_1", "name": "get_weather", "arguments": "{}"}
    output = {"id": "fco_1", "type": "function_call_output", "call_id": "call_1", "output": "You said: hello rain"}

    events = await ask(bench, "say", "", items=[asked, call, output], tools=[WEATHER])

    assert "You said: hello" in text_of(events)


async def test_the_history_reaches_the_model(bench: Bench) -> None:
    items = [user("my name is Ada"), _assistant("Noted."), user("what is my name?")]

    events = await ask(bench, "recall", "", items=items)

    assert text_of(events) == "Your name is Ada."


async def test_an_answer_that_reaches_its_limit_is_incomplete(bench: Bench) -> None:
    events = await ask(bench, "length", "count to 500", max_output_tokens=16)

    assert finished_of(events).incomplete == "max_output_tokens"
    assert 0 < len(text_of(events)) < 200
    assert not [event for event in events if isinstance(event, ItemDone)]


async def test_a_filtered_answer_is_incomplete(bench: Bench) -> None:
    events = await ask(bench, "filter", "fail filter")

    assert finished_of(events).incomplete == "content_filter"


async def test_a_structured_answer_fits_its_schema(bench: Bench) -> None:
    format_ = {"type": "json_schema", "name": "person", "schema": PERSON, "strict": True}

    events = await ask(bench, "structured", "who?", text={"format": format_})

    assert text_of(events).replace(" ", "") == '{"name":"Ada","age":1}'


async def test_a_refusal_is_told_apart_from_text(bench: Bench) -> None:
    events = await ask(bench, "refuse", "refuse")

    assert [event for event in events if isinstance(event, RefusalDelta)]
    assert text_of(events) == ""


async def test_reasoning_is_an_item_of_its_own_before_the_answer(bench: Bench) -> None:
    events = await ask(bench, "reason", "think: let me see\nhello")

    kinds = [event.type for event in events if isinstance(event, ItemStarted)]
    thought = "".join(event.text for event in events if isinstance(event, SummaryDelta | ReasoningDelta))
    usage = finished_of(events).usage
    assert kinds == ["reasoning", "message"]
    assert thought.strip() == "let me see"
    assert "You said: hello" in text_of(events)
    assert usage is not None
    assert usage.reasoning_tokens == 3


async def test_a_busy_model_says_when_to_come_back(bench: Bench) -> None:
    with pytest.raises(RateLimited) as caught:
        await ask(bench, "429", "fail 429")

    assert caught.value.retry_after is not None
    assert caught.value.retry_after > 0


async def test_a_refused_request_is_the_callers_fault(bench: Bench) -> None:
    with pytest.raises(InvalidRequest):
        await ask(bench, "400", "fail 400")


@pytest.mark.parametrize(("behaviour", "expected"), [("hang", ModelTimeout), ("cut", UpstreamError)])
async def test_an_answer_that_stops_in_the_middle_is_an_error_after_its_words(
    bench: Bench, behaviour: str, expected: type[AssistantError]
) -> None:
    model = bench.make(behaviour)
    request = ModelRequest(model=bench.name, items=[user(f"fail {behaviour}")], deadline=1.0)
    events: list[ModelEvent] = []

    with pytest.raises(expected):
        async for event in model.stream(request):
            events.append(event)

    assert text_of(events)
    assert not any(isinstance(event, Finished) for event in events)


async def test_closing_the_iterator_ends_the_call(bench: Bench) -> None:
    model = bench.make("slow")
    stream = model.stream(ModelRequest(model=bench.name, items=[user("count to 500 slowly")]))

    async with aclosing(cast(AsyncGenerator[ModelEvent], stream)) as events:
        async for event in events:
            if isinstance(event, TextDelta):
                break
    began = time.monotonic()
    if bench.upstream is not None:
        while bench.upstream.open:
            await asyncio.sleep(0.01)
            assert time.monotonic() - began < 10
        assert bench.upstream.disconnects == 1
    if isinstance(model, ScriptedModel):
        assert model.closed_early == 1


async def test_cancelling_the_reader_ends_the_call(bench: Bench) -> None:
    model = bench.make("slow")

    async def read() -> None:
        async for _ in model.stream(ModelRequest(model=bench.name, items=[user("count to 500 slowly")])):
            started.set()

    started = asyncio.Event()
    task = asyncio.create_task(read())
    await started.wait()
    task.cancel()
    began = time.monotonic()
    await asyncio.wait([task])

    assert task.cancelled()
    while bench.upstream is not None and bench.upstream.open:
        await asyncio.sleep(0.01)
        assert time.monotonic() - began < 10


def _assistant(text: str) -> Json:
    part: Json = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"id": "msg_1", "type": "message", "status": "completed", "role": "assistant", "content": [part]}


# the scripted double itself


async def test_a_scripted_model_fails_on_a_call_it_was_not_given() -> None:
    model = ScriptedModel([])

    with pytest.raises(AssertionError, match="call 1 was not scripted"):
        await anext(model.stream(ModelRequest(model="any", items=[])))


async def test_a_scripted_model_fails_on_steps_left_over() -> None:
    with pytest.raises(AssertionError, match="1 scripted steps were never asked for"):
        await ScriptedModel([says("never")]).close()


# the scripted server is checked against the stock client, so that nobody has to believe it


@pytest.fixture
async def stock() -> AsyncIterator[openai.AsyncOpenAI]:
    async with running() as (_, url):
        client = openai.AsyncOpenAI(base_url=url, api_key=KEY, max_retries=0)
        yield client
        await client.close()


async def test_the_servers_responses_stream_satisfies_the_stock_client(stock: openai.AsyncOpenAI) -> None:
    async with stock.responses.stream(model="test-large", input="think: hm\ncount to 3") as stream:
        async for _ in stream:
            pass
        final = await stream.get_final_response()

    assert final.output_text == "1 2 3"
    assert [item.type for item in final.output] == ["reasoning", "message"]


async def test_the_servers_chat_stream_satisfies_the_stock_client(stock: openai.AsyncOpenAI) -> None:
    async with stock.chat.completions.stream(
        model="test-large", messages=[{"role": "user", "content": "count to 3"}]
    ) as stream:
        async for _ in stream:
            pass
        final = await stream.get_final_completion()

    assert final.choices[0].message.content == "1 2 3"


async def test_the_server_answers_plainly_too(stock: openai.AsyncOpenAI) -> None:
    response = await stock.responses.create(model="test-large", input="hello")
    completion = await stock.chat.completions.create(
        model="test-large", messages=[{"role": "user", "content": "hello"}]
    )

    assert response.output_text == completion.choices[0].message.content == "You said: hello"


async def test_the_server_refuses_a_wrong_key_and_an_unknown_model(stock: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.AuthenticationError):
        await stock.with_options(api_key="wrong").models.list()
    with pytest.raises(openai.NotFoundError):
        await stock.responses.create(model="unknown", input="hello")
