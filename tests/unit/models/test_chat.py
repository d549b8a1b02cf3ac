import json
from dataclasses import replace
from typing import Any, ClassVar

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming
from pydantic import TypeAdapter

from shared.errors import InvalidRequest, UpstreamError
from shared.models.base import (
    SUMMARY_MARKER,
    AnnotationAdded,
    ArgumentsDelta,
    Finished,
    ItemDone,
    ItemStarted,
    Json,
    ModelEvent,
    ModelRequest,
    ReasoningDelta,
    TextDelta,
    Usage,
)
from shared.models.chat import ChatReader, amend_chat_body, chat_body, chat_messages, chat_usage
from shared.safety.untrusted import mark

IMAGE = "data:image/png;base64,AAAA"
THOUGHT: Json = {"type": "reasoning", "id": "rs_1", "summary": []}
NO_PARAMETERS: Json = {"type": "object", "properties": {}}


def user(*parts: Json | str) -> Json:
    content = [{"type": "input_text", "text": part} if isinstance(part, str) else part for part in parts]
    return {"id": "msg_u", "type": "message", "status": "completed", "role": "user", "content": content}


def said(text: str) -> Json:
    part: Json = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"id": "msg_a", "type": "message", "status": "completed", "role": "assistant", "content": [part]}


def call(id_: str, name: str = "f", arguments: str = "{}") -> Json:
    return {"id": f"fc_{id_}", "type": "function_call", "call_id": id_, "name": name, "arguments": arguments}


def output(id_: str, value: Any = "done") -> Json:
    return {"id": f"fco_{id_}", "type": "function_call_output", "call_id": id_, "output": value}


def tool_call(id_: str, name: str = "f", arguments: str = "{}") -> Json:
    return {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}


class TestMessages:
    @pytest.mark.parametrize(
        ("items", "messages"),
        [
            ([user("hi")], [{"role": "user", "content": "hi"}]),
            ([{"role": "user", "content": "hi"}], [{"role": "user", "content": "hi"}]),
            (
                [user("look", {"type": "input_image", "image_url": IMAGE, "detail": "original"})],
                [
                    {
                        "role": "user",
                        "content": [
                            {"type": "text", "text": "look"},
                            {"type": "image_url", "image_url": {"url": IMAGE, "detail": "high"}},
                        ],
                    }
                ],
            ),
            (
                [user({"type": "input_file", "file_data": "data:x", "filename": "a.pdf"})],
                [
                    {
                        "role": "user",
                        "content": [{"type": "file", "file": {"file_data": "data:x", "filename": "a.pdf"}}],
                    }
                ],
            ),
            ([said("yes")], [{"role": "assistant", "content": "yes"}]),
            (
                [{**said(""), "content": [{"type": "refusal", "refusal": "no"}]}],
                [{"role": "assistant", "content": None, "refusal": "no"}],
            ),
            (
                [call("1"), call("2"), output("1"), output("2")],
                [
                    {"role": "assistant", "content": None, "tool_calls": [tool_call("1"), tool_call("2")]},
                    {"role": "tool", "tool_call_id": "1", "content": "done"},
                    {"role": "tool", "tool_call_id": "2", "content": "done"},
                ],
            ),
            (
                [said("let me see"), THOUGHT, call("1", arguments="")],
                [{"role": "assistant", "content": "let me see", "tool_calls": [tool_call("1")]}],
            ),
            (
                [call("1"), said("one moment"), output("1")],
                [
                    {"role": "assistant", "content": "one moment", "tool_calls": [tool_call("1")]},
                    {"role": "tool", "tool_call_id": "1", "content": "done"},
                ],
            ),
            (
                [{"type": "custom_tool_call", "call_id": "1", "name": "run", "input": "ls"}, output("1")],
                [
                    {
                        "role": "assistant",
                        "content": None,
                        "tool_calls": [{"id": "1", "type": "custom", "custom": {"name": "run", "input": "ls"}}],
                    },
                    {"role": "tool", "tool_call_id": "1", "content": "done"},
                ],
            ),
            (
                [{"type": "mcp_call", "id": "mcp_7", "name": "find", "arguments": "{}", "output": "found"}],
                [
                    {"role": "assistant", "content": None, "tool_calls": [tool_call("call_7", "find")]},
                    {"role": "tool", "tool_call_id": "call_7", "content": mark("found", source="find", key="mcp_7")},
                ],
            ),
            (
                [{"type": "mcp_call", "id": "mcp_7", "name": "find", "arguments": "", "output": None, "error": "away"}],
                [
                    {"role": "assistant", "content": None, "tool_calls": [tool_call("call_7", "find")]},
                    {"role": "tool", "tool_call_id": "call_7", "content": mark("away", source="find", key="mcp_7")},
                ],
            ),
            (
                [{"type": "compaction", "id": "cmp_1", "encrypted_content": f"{SUMMARY_MARKER}They met."}, user("hi")],
                [
                    {"role": "system", "content": "Summary of the conversation so far:\nThey met."},
                    {"role": "user", "content": "hi"},
                ],
            ),
            (
                [{"role": "developer", "content": "be brief"}, {"role": "system", "content": "be kind"}, user("hi")],
                [{"role": "system", "content": "be brief\n\nbe kind"}, {"role": "user", "content": "hi"}],
            ),
        ],
    )
    def test_items_become_messages(self, items: list[Json], messages: list[Json]) -> None:
        assert chat_messages(items) == messages

    def test_instructions_come_first(self) -> None:
        messages = chat_messages([{"role": "developer", "content": "be brief"}, user("hi")], "be kind")

        assert messages[0] == {"role": "system", "content": "be kind\n\nbe brief"}

    def test_images_of_tool_outputs_are_shown_after_all_outputs(self) -> None:
        image = {"type": "input_image", "image_url": IMAGE}

        messages = chat_messages([call("1"), call("2"), output("1", [image]), output("2"), user("and?")])

        assert [message["role"] for message in messages] == ["assistant", "tool", "tool", "user", "user"]
        assert messages[3]["content"] == [
            {"type": "text", "text": "Output of 1:"},
            {"type": "image_url", "image_url": {"url": IMAGE}},
        ]

    @pytest.mark.parametrize(
        "item",
        [
            {"type": "web_search_call", "id": "ws_1"},
            {"type": "item_reference", "id": "msg_1"},
            user({"type": "input_image", "file_id": "file-1"}),
            user({"type": "input_file", "file_id": "file-1"}),
        ],
    )
    def test_what_has_no_word_is_refused(self, item: Json) -> None:
        with pytest.raises(InvalidRequest) as caught:
            chat_messages([item])

        assert caught.value.param == "input"


def request(**fields: Any) -> ModelRequest:
    return replace(ModelRequest(model="m", items=[user("hi")]), **fields)


FUNCTION: Json = {
    "type": "function",
    "name": "f",
    "description": "d",
    "parameters": NO_PARAMETERS,
    "strict": True,
}
GRAMMAR = {"type": "grammar", "syntax": "lark", "definition": "start: A"}


class TestBody:
    @pytest.mark.parametrize(
        ("fields", "expected"),
        [
            ({"max_output_tokens": 20}, {"max_completion_tokens": 20}),
            ({"temperature": 0.0, "top_p": 0.5}, {"temperature": 0.0, "top_p": 0.5}),
            ({"stop": ["x"], "seed": 1, "logit_bias": {"1": 2}}, {"stop": ["x"], "seed": 1, "logit_bias": {"1": 2}}),
            ({"presence_penalty": 1, "frequency_penalty": -1}, {"presence_penalty": 1, "frequency_penalty": -1}),
            ({"service_tier": "flex", "user": "u"}, {"service_tier": "flex", "user": "u"}),
            (
                {"prompt_cache_key": "k", "safety_identifier": "s"},
                {"prompt_cache_key": "k", "safety_identifier": "s"},
            ),
            ({"logprobs": True}, {"logprobs": True, "top_logprobs": 0}),
            ({"top_logprobs": 3}, {"logprobs": True, "top_logprobs": 3}),
            ({"top_logprobs": 0}, {}),
            ({"reasoning": {"effort": "low", "summary": None}}, {"reasoning_effort": "low"}),
            ({"text": {"verbosity": "low"}}, {"verbosity": "low"}),
            ({"text": {"format": {"type": "text"}}}, {}),
            ({"text": {"format": {"type": "json_object"}}}, {"response_format": {"type": "json_object"}}),
            (
                {"text": {"format": {"type": "json_schema", "name": "n", "schema": {}, "strict": True}}},
                {
                    "response_format": {
                        "type": "json_schema",
                        "json_schema": {"name": "n", "schema": {}, "strict": True},
                    }
                },
            ),
            ({"tool_choice": "auto", "parallel_tool_calls": True}, {}),
            (
                {"tools": [FUNCTION], "tool_choice": "required", "parallel_tool_calls": False},
                {
                    "tools": [
                        {
                            "type": "function",
                            "function": {
                                "name": "f",
                                "description": "d",
                                "parameters": NO_PARAMETERS,
                                "strict": True,
                            },
                        }
                    ],
                    "tool_choice": "required",
                    "parallel_tool_calls": False,
                },
            ),
            (
                {"tools": [{"type": "custom", "name": "c", "format": GRAMMAR}], "tool_choice": "auto"},
                {
                    "tools": [
                        {
                            "type": "custom",
                            "custom": {
                                "name": "c",
                                "format": {
                                    "type": "grammar",
                                    "grammar": {"syntax": "lark", "definition": "start: A"},
                                },
                            },
                        }
                    ],
                    "tool_choice": "auto",
                },
            ),
        ],
    )
    def test_each_parameter_has_its_word(self, fields: Json, expected: Json) -> None:
        plain = chat_body(request())

        body = chat_body(request(**fields))

        assert {name: value for name, value in body.items() if name not in plain} == expected
        TypeAdapter[Any](CompletionCreateParamsStreaming).validate_python(body)

    @pytest.mark.parametrize(
        ("choice", "expected"),
        [
            ({"type": "function", "name": "f"}, {"type": "function", "function": {"name": "f"}}),
            ({"type": "custom", "name": "c"}, {"type": "custom", "custom": {"name": "c"}}),
            (
                {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "f"}]},
                "required",
            ),
        ],
    )
    def test_each_tool_choice_has_its_word(self, choice: Json, expected: Any) -> None:
        body = chat_body(request(tools=[FUNCTION, {"type": "custom", "name": "c"}], tool_choice=choice))

        assert body["tool_choice"] == expected

    def test_only_allowed_tools_are_offered(self) -> None:
        choice = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]}

        body = chat_body(request(tools=[FUNCTION, {**FUNCTION, "name": "g"}], tool_choice=choice))

        assert [tool["function"]["name"] for tool in body["tools"]] == ["f"]

    @pytest.mark.parametrize(
        ("fields", "param"),
        [
            ({"reasoning": {"summary": "auto"}}, "reasoning.summary"),
            ({"tools": [{"type": "web_search"}]}, "tools"),
            ({"tool_choice": "required"}, "tool_choice"),
            ({"tools": [FUNCTION], "tool_choice": {"type": "mcp", "server_label": "x"}}, "tool_choice"),
        ],
    )
    def test_what_has_no_word_is_refused_by_name(self, fields: Json, param: str) -> None:
        with pytest.raises(InvalidRequest) as caught:
            chat_body(request(**fields))

        assert caught.value.param == param

    def test_how_long_prompts_stay_cached_is_for_openai_alone(self) -> None:
        asked = request(prompt_cache_retention="24h")

        assert chat_body(asked, is_openai=True)["prompt_cache_retention"] == "24h"
        with pytest.raises(InvalidRequest) as caught:
            chat_body(asked, is_openai=False)
        assert caught.value.param == "prompt_cache_retention"

    def test_compatible_servers_get_both_names_of_the_limit(self) -> None:
        body = chat_body(request(max_output_tokens=20), is_openai=False)

        assert body["max_tokens"] == body["max_completion_tokens"] == 20

    @pytest.mark.parametrize(
        ("param", "message", "left"),
        [
            (
                "max_tokens",
                "Unsupported: 'max_tokens'. Use 'max_completion_tokens'.",
                "max_completion_tokens",
            ),
            (None, "body.max_completion_tokens: extra inputs are not permitted", "max_tokens"),
        ],
    )
    def test_the_name_of_the_limit_that_a_server_refuses_is_left_out(
        self, param: str | None, message: str, left: str
    ) -> None:
        body = chat_body(request(max_output_tokens=20), is_openai=False)

        assert amend_chat_body(body, InvalidRequest(message, param=param))
        assert {"max_tokens", "max_completion_tokens"} & set(body) == {left}
        assert not amend_chat_body(body, InvalidRequest(message, param=param))


def read(*chunks: Json) -> list[ModelEvent]:
    reader = ChatReader()
    for chunk in chunks:
        reader.feed([orjson.dumps(chunk)])
    reader.finish()
    return reader.gathering.take()


def delta(*, reason: str | None = None, logprobs: Json | None = None, **fields: Any) -> Json:
    return {"model": "m-1", "choices": [{"index": 0, "delta": fields, "finish_reason": reason, "logprobs": logprobs}]}


def thought(name: str, text: str) -> Json:
    return {"choices": [{"index": 0, "delta": {name: text, "content": None}}]}


STOP = delta(reason="stop")
CALLED = delta(reason="tool_calls")
OVER = Finished(usage=None, model="m-1")


class TestReader:
    def test_tokens_of_one_read_are_one_delta(self) -> None:
        events = read(delta(role="assistant", content=""), delta(content="a"), delta(content="b"), STOP)

        assert events == [ItemStarted(0, "message"), TextDelta(0, "ab"), ItemDone(0), OVER]

    def test_tokens_with_logprobs_stay_apart(self) -> None:
        tokens = [{"token": "a", "logprob": -1.0, "bytes": [97], "top_logprobs": []}]

        events = read(delta(content="a", logprobs={"content": tokens}), delta(content="b"), STOP)

        assert events[1:3] == [TextDelta(0, "a", tokens), TextDelta(0, "b")]

    @pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
    def test_reasoning_of_compatible_servers_is_an_item(self, name: str) -> None:
        events = read(thought(name, "hm"), delta(content="a"), STOP)

        assert events == [
            ItemStarted(0, "reasoning"),
            ReasoningDelta(0, "hm"),
            ItemDone(0),
            ItemStarted(1, "message"),
            TextDelta(1, "a"),
            ItemDone(1),
            OVER,
        ]

    def test_words_may_come_in_parts(self) -> None:
        """As Mistral's reasoning models give them."""
        thinking = [{"type": "text", "text": "hm"}, {"type": "reference", "reference_ids": [1]}]
        events = read(
            delta(role="assistant", content=""),
            delta(content=[{"type": "thinking", "thinking": thinking}]),
            delta(content=[{"type": "thinking", "thinking": []}, {"type": "text", "text": "4"}]),
            delta(content=[{"type": "text", "text": "2"}, {"type": "reference", "reference_ids": [1]}]),
            delta(content="!"),
            delta(content=[]),
            STOP,
        )

        assert events == [
            ItemStarted(0, "reasoning"),
            ReasoningDelta(0, "hm"),
            ItemDone(0),
            ItemStarted(1, "message"),
            TextDelta(1, "42!"),
            ItemDone(1),
            OVER,
        ]

    def test_interleaved_calls_are_told_apart_by_index(self) -> None:
        events = read(
            delta(tool_calls=[{"index": 0, "id": "c0", "function": {"name": "f", "arguments": ""}}]),
            delta(tool_calls=[{"index": 1, "id": "c1", "function": {"name": "g", "arguments": "{"}}]),
            delta(tool_calls=[{"index": 0, "function": {"arguments": "{}"}}]),
            delta(tool_calls=[{"index": 1, "function": {"arguments": "}"}}]),
            CALLED,
        )

        assert [event for event in events if isinstance(event, ItemStarted | ArgumentsDelta)] == [
            ItemStarted(0, "function_call", "f", "c0"),
            ItemStarted(1, "function_call", "g", "c1"),
            ArgumentsDelta(1, "{"),
            ArgumentsDelta(0, "{}"),
            ArgumentsDelta(1, "}"),
        ]

    def test_calls_that_share_an_index_are_told_apart_by_id(self) -> None:
        events = read(
            delta(tool_calls=[{"index": 0, "id": "c0", "function": {"name": "f", "arguments": "{}"}}]),
            delta(tool_calls=[{"index": 0, "id": "c1", "function": {"name": "g", "arguments": "{}"}}]),
            CALLED,
        )

        assert [event.name for event in events if isinstance(event, ItemStarted)] == ["f", "g"]

    def test_a_call_without_id_gets_one(self) -> None:
        events = read(delta(tool_calls=[{"function": {"name": "f", "arguments": "{}"}}]), CALLED)

        assert isinstance(events[0], ItemStarted)
        assert events[0].call_id.startswith("call_")

    def test_text_is_whole_before_a_call_begins(self) -> None:
        events = read(
            delta(content="wait"),
            delta(tool_calls=[{"index": 0, "id": "c0", "type": "custom", "custom": {"name": "f", "input": "x"}}]),
            CALLED,
        )

        assert events == [
            ItemStarted(0, "message"),
            TextDelta(0, "wait"),
            ItemDone(0),
            ItemStarted(1, "custom_tool_call", "f", "c0"),
            ArgumentsDelta(1, "x"),
            ItemDone(1),
            OVER,
        ]

    def test_only_the_item_that_was_cut_short_stays_open(self) -> None:
        events = read(
            delta(tool_calls=[{"index": 0, "id": "c0", "function": {"name": "f", "arguments": "{}"}}]),
            delta(tool_calls=[{"index": 1, "id": "c1", "function": {"name": "g", "arguments": "{"}}]),
            delta(reason="length"),
        )

        assert events[-2:] == [ItemDone(0), Finished(usage=None, model="m-1", incomplete="max_output_tokens")]

    def test_annotations_lose_their_wrapping(self) -> None:
        citation = {"url": "https://example.com", "title": "t", "start_index": 0, "end_index": 1}

        events = read(delta(content="a", annotations=[{"type": "url_citation", "url_citation": citation}]), STOP)

        assert AnnotationAdded(0, {"type": "url_citation", **citation}) in events

    def test_usage_comes_in_a_chunk_of_its_own_or_with_the_last(self) -> None:
        usage = {"prompt_tokens": 3, "completion_tokens": 2, "prompt_tokens_details": None}
        alone = read(STOP, {"choices": [], "usage": usage})[-1]
        joined = read({**STOP, "usage": usage})[-1]

        assert alone == joined == Finished(usage=Usage(input_tokens=3, output_tokens=2), model="m-1")

    def test_azures_first_chunk_without_choices_is_nothing(self) -> None:
        assert read({"choices": [], "prompt_filter_results": []}, STOP) == [OVER]

    @pytest.mark.parametrize("chunks", [[], [delta(content="a")], [delta(content="a"), delta(reason="error")]])
    def test_an_end_without_a_reason_is_an_error(self, chunks: list[Json]) -> None:
        with pytest.raises(UpstreamError):
            read(*chunks)

    @pytest.mark.parametrize(
        "fields",
        [
            {"content": [{"type": "text", "text": 5}]},
            {"content": {"text": "a"}},
            {"content": 5},
            {"reasoning_content": {"text": "a"}},
            {"tool_calls": [{"index": 0, "id": "c0", "function": {"name": "f", "arguments": {"a": 1}}}]},
        ],
    )
    def test_words_that_are_no_text_are_refused_where_they_are_read(self, fields: Json) -> None:
        """So that it is the server's failure, which is tried again, and not ours."""
        with pytest.raises(TypeError):
            ChatReader().feed([orjson.dumps(delta(**fields))])

    def test_a_call_without_arguments_has_none_in_valid_json(self) -> None:
        """Clients parse them. Words of a custom tool may be none; what was cut short stays as it is."""
        first = {"index": 0, "id": "c0", "function": {"name": "f", "arguments": ""}}
        second = {"index": 1, "id": "c1", "custom": {"name": "g", "input": ""}}

        called = read(delta(tool_calls=[first, second]), CALLED)
        cut = read(delta(tool_calls=[first]), delta(reason="length"))

        assert [event for event in called if isinstance(event, ArgumentsDelta)] == [ArgumentsDelta(0, "{}")]
        assert not [event for event in cut if isinstance(event, ArgumentsDelta)]

    def test_a_call_without_name_is_an_error(self) -> None:
        with pytest.raises(UpstreamError):
            read(delta(tool_calls=[{"index": 0, "id": "c0", "function": {"arguments": "{}"}}]), CALLED)


def test_usage_carries_its_details() -> None:
    usage = chat_usage(
        {
            "prompt_tokens": 9,
            "completion_tokens": 8,
            "prompt_tokens_details": {"cached_tokens": 7, "cache_write_tokens": 6},
            "completion_tokens_details": {"reasoning_tokens": 5},
        }
    )

    assert usage == Usage(input_tokens=9, output_tokens=8, cached_tokens=7, cache_write_tokens=6, reasoning_tokens=5)


@pytest.mark.parametrize("count", [None, "8", -8, 10**19, float("inf"), [8], {}])
def test_what_is_no_count_of_tokens_is_estimated(count: Any) -> None:
    """Else it would be free, a credit, or more than can be stored."""
    assert chat_usage({"prompt_tokens": 9, "completion_tokens": count}) is None
    assert chat_usage({"prompt_tokens": count, "completion_tokens": 8}) is None


@pytest.mark.parametrize("details", [None, 7, "7", [7], [{"cached_tokens": 7}]])
def test_details_of_usage_that_are_no_object_say_nothing(details: Any) -> None:
    usage = chat_usage({"prompt_tokens": 9, "completion_tokens": 8, "prompt_tokens_details": details})

    assert usage == Usage(input_tokens=9, output_tokens=8)


def test_no_more_is_cached_than_was_given_and_counts_are_whole() -> None:
    usage = chat_usage({"prompt_tokens": 9.0, "completion_tokens": 8, "prompt_tokens_details": {"cached_tokens": 90}})

    assert repr(usage) == repr(Usage(input_tokens=9, output_tokens=8, cached_tokens=9))


def test_a_prefix_is_the_last_message_and_is_gone_on_with() -> None:
    body = chat_body(ModelRequest(model="m", items=[], prefix="The answer is "))

    assert body["messages"] == [{"role": "assistant", "content": "The answer is "}]
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)


class TestLikeChunks:
    """Chunks that differ in their words alone are read without being parsed; nobody can tell."""

    WORDS: ClassVar = ["Hel", "lo", ' "quoted"', "\\", "\n", "€ 🙂", "", "{}", '"},"x":{"', " end"]

    def chunks(self, **more: Any) -> list[Json]:
        return [delta(role="assistant", content="")] + [delta(content=word) | more for word in self.WORDS]

    @pytest.mark.parametrize("spaces", [True, False])
    @pytest.mark.parametrize("is_ascii", [True, False])
    def test_words_are_the_same_however_they_are_spelled_and_split(self, spaces: bool, is_ascii: bool) -> None:
        separators = (", ", ": ") if spaces else (",", ":")
        payloads = [
            json.dumps(chunk, ensure_ascii=is_ascii, separators=separators).encode()
            for chunk in [*self.chunks(), *self.chunks(), delta(reason="stop")]
        ]
        for size in (1, 2, 3, 7, len(payloads)):
            reader = ChatReader()
            for start in range(0, len(payloads), size):
                reader.feed(payloads[start : start + size])
            reader.finish()

            assert text_in(reader.gathering.take()) == "".join(self.WORDS) * 2

    @settings(deadline=None)
    @given(words=st.lists(st.text(max_size=8) | st.just("plain "), max_size=150), size=st.integers(1, 150))
    def test_any_words_are_the_same_in_reads_of_any_size(self, words: list[str], size: int) -> None:
        payloads = [orjson.dumps(delta(content=word)) for word in ("a", *words)] + [orjson.dumps(delta(reason="stop"))]
        reader = ChatReader()
        for start in range(0, len(payloads), size):
            reader.feed(payloads[start : start + size])
        reader.finish()

        assert text_in(reader.gathering.take()) == "a" + "".join(words)

    @pytest.mark.parametrize("words", [["a 🙂 b 🙃", "🙂🙂", "end"], ["x", "🙂"]])
    def test_a_character_may_come_in_halves(self, words: list[str]) -> None:
        """Of a server that cuts by UTF-16's units: neither half alone is valid JSON."""
        units = [half for character in "".join(words) for half in halves_of(character)]
        reader = ChatReader()
        for unit in units:
            reader.feed([json.dumps(delta(content=unit, reasoning=unit)).encode()])
        reader.feed([orjson.dumps(delta(reason="stop"))])
        reader.finish()

        assert text_in(reader.gathering.take()) == "".join(words)

    def test_half_a_character_without_the_other_is_left_out_or_refused(self) -> None:
        reader = ChatReader()
        reader.feed([json.dumps(delta(content=unit)).encode() for unit in ("a", "\ud83d", "b")])

        assert text_in(reader.gathering.take()) == "ab"
        with pytest.raises(orjson.JSONDecodeError):
            ChatReader().feed([json.dumps(delta(content="\ude42")).encode()])

    def test_two_chunks_on_two_lines_of_one_event_are_no_chunk(self) -> None:
        reader = ChatReader()
        reader.feed([orjson.dumps(delta(content=word)) for word in ("x", "y")])
        one = orjson.dumps(delta(content="z"))

        with pytest.raises(orjson.JSONDecodeError):
            reader.feed([one, one + b"\n" + one])

        assert text_in(reader.gathering.take()) == "xyz"

    def test_what_is_new_in_every_chunk_is_no_likeness(self) -> None:
        chunks = [chunk | {"n": number} for number, chunk in enumerate(self.chunks())]

        assert text_in(read(*chunks, delta(reason="stop"))) == "".join(self.WORDS)

    def test_a_chunk_that_looks_alike_but_ends_the_answer_ends_it(self) -> None:
        events = read(delta(content="a"), delta(content="b"), delta(content="c", reason="length"))

        assert text_in(events) == "abc"
        assert isinstance(events[-1], Finished)
        assert events[-1].incomplete == "max_output_tokens"

    def test_text_after_a_tool_call_begins_a_message_of_its_own(self) -> None:
        call = {"index": 0, "id": "call_1", "function": {"name": "f", "arguments": "{}"}}
        events = read(
            delta(content="a"), delta(content="b"), delta(tool_calls=[call]), delta(content="c"), delta(reason="stop")
        )

        assert [event.type for event in events if isinstance(event, ItemStarted)] == [
            "message",
            "function_call",
            "message",
        ]

    @pytest.mark.parametrize("bad", [b"a\nb", b"\xff", b"\x00"])
    def test_words_that_are_no_json_are_refused_after_those_before_them(self, bad: bytes) -> None:
        reader = ChatReader()
        reader.feed([orjson.dumps(delta(content=word)) for word in ("x", "y", "z")])
        before, after = orjson.dumps(delta(content="~")).split(b"~")

        with pytest.raises(orjson.JSONDecodeError):
            reader.feed([before + b"good" + after, before + bad + after, before + b"late" + after])

        assert text_in(reader.gathering.take()) == "xyzgood"


def halves_of(character: str) -> list[str]:
    data = character.encode("utf-16-be")
    return [chr(int.from_bytes(data[place : place + 2])) for place in range(0, len(data), 2)]


def text_in(events: list[ModelEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))
