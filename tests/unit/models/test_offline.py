import re
from typing import Any

import orjson
import pytest

from shared.clock import ManualClock
from shared.errors import AssistantError, InvalidRequest, ModelTimeout, ModelUnavailable, RateLimited, UpstreamError
from shared.models.base import (
    SUMMARY_MARKER,
    TITLE_INSTRUCTIONS,
    ArgumentsDelta,
    Finished,
    ItemDone,
    ItemStarted,
    Json,
    ModelEvent,
    ModelRequest,
    ReasoningDelta,
    SummaryDelta,
    TextDelta,
)
from shared.models.offline import OfflineModel


def user(text: str, *parts: Json) -> Json:
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}, *parts]}


def said(text: str) -> Json:
    return {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}


def tool(name: str) -> Json:
    return {"type": "function", "name": name, "parameters": {"type": "object", "properties": {}}}


async def events_of(*items: Json | str, **fields: Any) -> list[ModelEvent]:
    fields.setdefault("model", "companion")
    seen = [user(item) if isinstance(item, str) else item for item in items]
    model = OfflineModel(word_delay=0, clock=ManualClock())
    return [event async for event in model.stream(ModelRequest(items=seen, **fields))]


def text_of(events: list[ModelEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


async def answer(*items: Json | str, **fields: Any) -> str:
    return text_of(await events_of(*items, **fields))


class TestConversation:
    async def test_it_says_what_it_is_and_what_it_heard(self) -> None:
        text = await answer("Hello there")

        assert "offline model" in text
        assert "You said: Hello there" in text

    @pytest.mark.parametrize(
        ("question", "expected"),
        [
            ("What did I say first?", "The first thing you said: My name is Ada."),
            ("What did I just say?", "Before this you said: My favourite colour is blue, really."),
            ("What did you just say?", "I said: Noted."),
            ("what is my name?", "Your name is Ada."),
            ("What's my favourite colour?", "Your favourite colour is blue, really."),
            ("What is my shoe size?", "You have not told me your shoe size."),
            ("How many messages is this?", "This is message 3 of this conversation."),
            ("Anything else", "Offline model, message 3 of this conversation. You said: Anything else"),
        ],
    )
    async def test_it_knows_the_conversation(self, question: str, expected: str) -> None:
        assert await answer("My name is Ada.", "My favourite colour is blue, really.", said("Noted."), question) == (
            expected
        )

    async def test_it_remembers_what_a_summary_says(self) -> None:
        summary = {"type": "compaction", "id": "cmp_1", "encrypted_content": f"{SUMMARY_MARKER}My name is Ada."}

        assert await answer(summary, "What is my name?") == "Your name is Ada."

    async def test_it_tells_its_instructions(self) -> None:
        assert await answer("What are your instructions?", instructions="be kind") == "My instructions: be kind"

    async def test_it_says_how_many_images_and_files_it_sees(self) -> None:
        image = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}
        file = {"type": "input_file", "file_data": "x", "filename": "a.pdf"}

        assert await answer(user("Look", image, image, file)) == "I see 2 images and 1 file (a.pdf). You said: 'Look'."

    async def test_a_title_is_the_first_words_without_markup(self) -> None:
        text = "**Plan** a trip to `Lisbon` in the spring, with https://example.com/x and children"

        assert await answer(text, instructions=TITLE_INSTRUCTIONS) == "Plan a trip to Lisbon in"

    async def test_the_same_conversation_has_the_same_answer(self) -> None:
        assert await events_of("hello", model="companion-reasoning") == await events_of(
            "hello", model="companion-reasoning"
        )


class TestCommands:
    async def test_help_lists_every_command(self) -> None:
        text = await answer("help")

        for command in ("show markdown", "count to", "write", "slowly", "think:", "call", "refuse", "fail"):
            assert command in text

    async def test_markdown_has_a_table_code_and_math(self) -> None:
        text = await answer("show markdown")

        assert all(part in text for part in ("|---|", "```python", "$$"))

    async def test_it_counts_and_writes(self) -> None:
        assert await answer("count to 4") == "1 2 3 4"
        assert len((await answer("write 100 words")).split()) == 100

    async def test_it_speaks_word_by_word_at_its_pace(self) -> None:
        clock = ManualClock(0.0)
        model = OfflineModel(word_delay=0.02, clock=clock)

        events = [event async for event in model.stream(ModelRequest(model="m", items=[user("count to 10")]))]

        assert sum(isinstance(event, TextDelta) for event in events) == 10
        assert clock.now() == pytest.approx(0.2)

    @pytest.mark.parametrize(("text", "seconds"), [("slowly 5s: count to 10", 5.0), ("slowly: count to 4", 10.0)])
    async def test_it_can_take_its_time(self, text: str, seconds: float) -> None:
        clock = ManualClock(0.0)

        async for _ in OfflineModel(clock=clock).stream(ModelRequest(model="m", items=[user(text)])):
            pass

        assert clock.now() == pytest.approx(seconds)

    async def test_thoughts_come_as_summary_where_one_is_asked_for(self) -> None:
        plain = await events_of("think: let me see\nhello")
        summed = await events_of("think: let me see\nhello", reasoning={"summary": "auto"})

        assert "".join(event.text for event in plain if isinstance(event, ReasoningDelta)) == "let me see"
        assert "".join(event.text for event in summed if isinstance(event, SummaryDelta)) == "let me see"

    @pytest.mark.parametrize("fields", [{"model": "companion-reasoning"}, {"reasoning": {"effort": "high"}}])
    async def test_it_reasons_where_reasoning_is_asked_for(self, fields: Json) -> None:
        events = await events_of("hello", **fields)

        assert events[0] == ItemStarted(0, "reasoning")
        assert any(isinstance(event, ItemDone) and "encrypted_content" in (event.extra or {}) for event in events)

    @pytest.mark.parametrize(
        ("how", "expected"),
        [
            ("400", InvalidRequest),
            ("429", RateLimited),
            ("500", UpstreamError),
            ("503", ModelUnavailable),
            ("timeout", ModelTimeout),
            ("cut", UpstreamError),
            ("hang", ModelTimeout),
        ],
    )
    async def test_it_fails_as_told(self, how: str, expected: type[AssistantError]) -> None:
        with pytest.raises(expected):
            await events_of(f"fail {how}")


class TestTools:
    async def test_parallel_calls_have_ids_of_their_own(self) -> None:
        events = await events_of('call f {"a":1}\ncall g', tools=[tool("f"), tool("g")])

        started = [event for event in events if isinstance(event, ItemStarted)]
        assert [event.name for event in started] == ["f", "g"]
        assert len({event.call_id for event in started}) == 2
        assert "".join(event.text for event in events if isinstance(event, ArgumentsDelta)) == '{"a":1}{}'

    async def test_calls_come_one_after_the_other_where_parallel_is_off(self) -> None:
        asked = user("call f\ncall g")
        call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
        output = {"type": "function_call_output", "call_id": "c", "output": "1"}
        fields: Json = {"tools": [tool("f"), tool("g")], "parallel_tool_calls": False}

        first = await events_of(asked, **fields)
        second = await events_of(asked, call, output, **fields)

        assert [event.name for event in first if isinstance(event, ItemStarted)] == ["f"]
        assert [event.name for event in second if isinstance(event, ItemStarted)] == ["g"]

    async def test_outputs_are_told(self) -> None:
        call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
        output = {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "rain"}]}

        assert await answer("call f", call, output, tools=[tool("f")]) == "f said: rain"

    async def test_a_tool_that_is_not_offered_is_not_called(self) -> None:
        assert await answer('call f {"a":1}') == "No tool named 'f' is offered."
        assert "You said: call me Ishmael" in await answer("call me Ishmael", tools=[tool("f")])

    async def test_none_means_none(self) -> None:
        events = await events_of("call f", tools=[tool("f")], tool_choice="none")

        assert not [event for event in events if isinstance(event, ArgumentsDelta)]

    async def test_a_custom_tool_that_must_be_called_gets_the_text(self) -> None:
        events = await events_of("shout it", tools=[{"type": "custom", "name": "say"}], tool_choice="required")

        assert isinstance(events[0], ItemStarted)
        assert (events[0].type, events[0].name) == ("custom_tool_call", "say")
        assert "".join(event.text for event in events if isinstance(event, ArgumentsDelta)) == "shout it"


class TestLimits:
    async def test_the_limit_counts_thoughts_too(self) -> None:
        events = await events_of("think: one two three four five six\nhello", max_output_tokens=3)

        assert text_of(events) == ""
        assert isinstance(events[-1], Finished)
        assert events[-1].incomplete == "max_output_tokens"

    async def test_it_stops_where_told(self) -> None:
        assert await answer("count to 9", stop=["5", " 7"]) == "1 2 3 4 "[:-1] + " "

    async def test_words_have_logprobs_where_asked_for(self) -> None:
        events = await events_of("count to 2", logprobs=True, top_logprobs=1)

        token = next(event for event in events if isinstance(event, TextDelta)).logprobs
        assert token == [
            {
                "token": "1",
                "logprob": -0.1,
                "bytes": [49],
                "top_logprobs": [{"token": "1", "logprob": -0.1, "bytes": [49]}],
            }
        ]

    async def test_tokens_are_a_quarter_of_the_characters(self) -> None:
        last = (await events_of("count to 4"))[-1]

        assert isinstance(last, Finished)
        assert last.usage is not None
        assert (last.usage.input_tokens, last.usage.output_tokens) == (4 + 3, 2)

    async def test_structured_answers_fit(self) -> None:
        schema: Json = {"type": "object", "properties": {"city": {"type": "string"}, "sunny": {"type": "boolean"}}}
        format_: Json = {"type": "json_schema", "name": "n", "schema": schema}

        assert orjson.loads(await answer("Rome", text={"format": format_})) == {"city": "Rome", "sunny": True}
        assert "answer" in orjson.loads(await answer("Rome", text={"format": {"type": "json_object"}}))

    async def test_whitespace_survives(self) -> None:
        text = await answer("show markdown")

        assert re.search(r"\n\n```python\ndef greet\(name: str\) -> str:\n    return", text)
