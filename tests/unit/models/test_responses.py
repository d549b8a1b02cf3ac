import json
from dataclasses import replace
from typing import Any

import orjson
import pytest
from openai.types.responses.response_create_params import ResponseCreateParamsStreaming
from pydantic import TypeAdapter

from shared.errors import InvalidRequest, ModelUnavailable, RateLimited, UpstreamError
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
    RefusalDelta,
    SummaryDelta,
    TextDelta,
    Usage,
)
from shared.models.responses import ResponsesReader, amend_responses_body, response_input, responses_body

IMAGE = "data:image/png;base64,AAAA"
USER: Json = {"id": "msg_u", "type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}
SENT_USER: Json = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}
SAID: Json = {
    "id": "msg_a",
    "type": "message",
    "status": "completed",
    "role": "assistant",
    "phase": "final_answer",
    "content": [{"type": "output_text", "text": "yes", "annotations": [{"type": "x"}], "logprobs": [{}]}],
}
SENT_SAID: Json = {
    "type": "message",
    "role": "assistant",
    "content": [{"type": "output_text", "text": "yes", "annotations": []}],
    "phase": "final_answer",
}
REASONING: Json = {"id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": "sealed"}
SENT_REASONING: Json = {"type": "reasoning", "summary": [], "encrypted_content": "sealed"}
CALL: Json = {
    "id": "fc_1",
    "type": "function_call",
    "status": "completed",
    "call_id": "call_1",
    "name": "f",
    "arguments": "{}",
}
SENT_CALL: Json = {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}"}
FUNCTION: Json = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}, "strict": True}


class TestInput:
    @pytest.mark.parametrize(
        ("items", "sent"),
        [
            ([USER], [SENT_USER]),
            ([{"role": "user", "content": "hi"}], [{"type": "message", "role": "user", "content": "hi"}]),
            ([SAID], [SENT_SAID]),
            (
                [{**SAID, "phase": None, "content": [{"type": "refusal", "refusal": "no"}]}],
                [{"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}],
            ),
            (
                [{"role": "user", "content": [{"type": "input_image", "image_url": IMAGE}]}],
                [
                    {
                        "type": "message",
                        "role": "user",
                        "content": [{"type": "input_image", "image_url": IMAGE, "detail": "auto"}],
                    }
                ],
            ),
            (
                [{"role": "user", "content": [{"type": "input_file", "file_data": "d", "filename": "f"}]}],
                [
                    {
                        "type": "message",
                        "role": "user",
                        "content": [{"type": "input_file", "file_data": "d", "filename": "f"}],
                    }
                ],
            ),
            ([REASONING, SAID], [SENT_REASONING, SENT_SAID]),
            ([REASONING, CALL], [SENT_REASONING, SENT_CALL]),
            ([REASONING, USER], [SENT_USER]),
            ([USER, REASONING], [SENT_USER]),
            ([{**REASONING, "encrypted_content": None}, SAID], [SENT_SAID]),
            (
                [CALL, {"id": "fco_1", "type": "function_call_output", "call_id": "call_1", "output": "done"}],
                [SENT_CALL, {"type": "function_call_output", "call_id": "call_1", "output": "done"}],
            ),
            (
                [
                    {"id": "ctc_1", "type": "custom_tool_call", "call_id": "c", "name": "run", "input": "ls"},
                    {
                        "id": "ctco_1",
                        "type": "custom_tool_call_output",
                        "call_id": "c",
                        "output": [{"type": "input_image", "image_url": IMAGE, "detail": "low"}],
                    },
                ],
                [
                    {"type": "custom_tool_call", "call_id": "c", "name": "run", "input": "ls"},
                    {
                        "type": "custom_tool_call_output",
                        "call_id": "c",
                        "output": [{"type": "input_image", "image_url": IMAGE, "detail": "low"}],
                    },
                ],
            ),
            (
                [{"type": "mcp_call", "id": "mcp_7", "name": "find", "arguments": "{}", "output": None, "error": None}],
                [
                    {"type": "function_call", "call_id": "call_7", "name": "find", "arguments": "{}"},
                    {
                        "type": "function_call_output",
                        "call_id": "call_7",
                        "output": "The outcome of this call is unknown.",
                    },
                ],
            ),
            (
                [{"type": "compaction", "id": "cmp_1", "encrypted_content": f"{SUMMARY_MARKER}They met."}],
                [
                    {
                        "type": "message",
                        "role": "developer",
                        "content": "Summary of the conversation so far:\nThey met.",
                    }
                ],
            ),
            (
                [{"type": "compaction", "id": "cmp_1", "encrypted_content": "gAAA"}],
                [{"type": "compaction", "encrypted_content": "gAAA"}],
            ),
        ],
    )
    def test_items_are_sent_without_what_is_ours(self, items: list[Json], sent: list[Json]) -> None:
        assert response_input(items) == sent

    def test_open_reasoning_goes_back_to_compatible_servers(self) -> None:
        reasoning: Json = {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text"}]}

        assert response_input([reasoning, CALL], is_openai=False) == [reasoning, SENT_CALL]
        assert response_input([reasoning, CALL], is_openai=True) == [SENT_CALL]

    @pytest.mark.parametrize(
        "item",
        [
            {"type": "web_search_call", "id": "ws_1"},
            {"role": "user", "content": [{"type": "input_image", "file_id": "file-1"}]},
            {"role": "user", "content": [{"type": "input_file", "file_id": "file-1"}]},
        ],
    )
    def test_what_has_no_word_is_refused(self, item: Json) -> None:
        with pytest.raises(InvalidRequest) as caught:
            response_input([item])

        assert caught.value.param == "input"


def request(**fields: Any) -> ModelRequest:
    return replace(ModelRequest(model="m", items=[USER]), **fields)


class TestBody:
    @pytest.mark.parametrize(
        "fields",
        [
            {"instructions": "be kind"},
            {"temperature": 0.0, "top_p": 0.5, "max_output_tokens": 20},
            {"text": {"format": {"type": "json_schema", "name": "n", "schema": {}, "strict": True}}},
            {"reasoning": {"effort": "low", "summary": "auto"}},
            {"service_tier": "flex", "prompt_cache_key": "k", "safety_identifier": "s", "user": "u"},
            {"tools": [FUNCTION], "tool_choice": {"type": "function", "name": "f"}, "parallel_tool_calls": False},
            {
                "tools": [FUNCTION],
                "tool_choice": {
                    "type": "allowed_tools",
                    "mode": "auto",
                    "tools": [{"type": "function", "name": "f"}],
                },
            },
            {"tools": [{"type": "custom", "name": "c"}], "tool_choice": "required"},
        ],
    )
    def test_parameters_are_sent_as_they_are(self, fields: Json) -> None:
        body = responses_body(request(**fields))

        assert {name: body[name] for name in fields} == fields
        TypeAdapter[Any](ResponseCreateParamsStreaming).validate_python(body)

    def test_calls_are_stateless_and_ask_for_sealed_reasoning(self) -> None:
        body = responses_body(request())

        assert body == {
            "model": "m",
            "input": [SENT_USER],
            "stream": True,
            "store": False,
            "include": ["reasoning.encrypted_content"],
            "stream_options": {"include_obfuscation": False},
        }

    @pytest.mark.parametrize("fields", [{"logprobs": True}, {"top_logprobs": 2}])
    def test_logprobs_are_asked_for_by_include(self, fields: Json) -> None:
        assert "message.output_text.logprobs" in responses_body(request(**fields))["include"]

    def test_a_tool_that_does_not_say_is_not_strict(self) -> None:
        tool: Json = {"type": "function", "name": "f", "parameters": {}}

        assert responses_body(request(tools=[tool]))["tools"] == [{**tool, "strict": False}]

    @pytest.mark.parametrize("name", ["stop", "seed", "logit_bias", "presence_penalty", "frequency_penalty"])
    def test_what_has_no_word_is_refused_by_name(self, name: str) -> None:
        values: Json = {"stop": ["x"], "logit_bias": {"1": 1}}

        with pytest.raises(InvalidRequest) as caught:
            responses_body(request(**{name: values.get(name, 1)}))

        assert caught.value.param == name

    def test_penalties_of_nothing_are_nothing(self) -> None:
        assert responses_body(request(presence_penalty=0.0, frequency_penalty=0.0)) == responses_body(request())

    def test_sealed_reasoning_is_not_asked_of_models_without_it(self) -> None:
        body = responses_body(request())
        refusal = InvalidRequest("Encrypted content is not supported with this model.", param="include")

        assert amend_responses_body(body, refusal)
        assert body["include"] == []
        assert not amend_responses_body(body, refusal)

    def test_reasoning_sealed_elsewhere_is_left_out(self) -> None:
        body = responses_body(request(items=[USER, REASONING, SAID]))
        refusal = InvalidRequest("The encrypted content could not be verified.", code="invalid_encrypted_content")

        assert amend_responses_body(body, refusal)
        assert body["input"] == [SENT_USER, SENT_SAID]
        assert not amend_responses_body(body, refusal)

    def test_other_refusals_stand(self) -> None:
        assert not amend_responses_body(responses_body(request()), InvalidRequest("no", param="top_p"))


def read(*events: Json) -> list[ModelEvent]:
    reader = ResponsesReader()
    for event in events:
        reader.feed([orjson.dumps(event)])
    reader.finish()
    return reader.gathering.take()


def added(index: int, **item: Any) -> Json:
    return {"type": "response.output_item.added", "output_index": index, "item": item}


def done(index: int, **item: Any) -> Json:
    return {"type": "response.output_item.done", "output_index": index, "item": item}


def text(index: int, delta: str, **fields: Any) -> Json:
    return {"type": "response.output_text.delta", "output_index": index, "delta": delta, "logprobs": [], **fields}


COMPLETED: Json = {"type": "response.completed", "response": {"status": "completed", "model": "m-1", "usage": None}}
OVER = Finished(usage=None, model="m-1")


NO_TEXT: list[Json] = [
    {"type": "response.reasoning_summary_text.delta", "output_index": 0, "summary_index": 0, "delta": 5},
    {"type": "response.output_text.delta", "output_index": 0, "delta": ["a"], "logprobs": [{}]},
    done(0, type="message", content=[{"type": "output_text", "text": ["a"]}]),
    done(0, type="message", content=[{"type": "refusal", "refusal": None}]),
    done(0, type="function_call", name="f", call_id="c", arguments={"a": 1}),
]


class TestReader:
    def test_tokens_of_one_read_are_one_delta(self) -> None:
        events = read(
            {"type": "response.created", "response": {}},
            added(0, type="message"),
            text(0, "a"),
            text(0, "b"),
            done(0, type="message", status="completed", content=[], phase="final_answer"),
            COMPLETED,
        )

        assert events == [
            ItemStarted(0, "message"),
            TextDelta(0, "ab"),
            ItemDone(0, {"phase": "final_answer"}),
            OVER,
        ]

    def test_a_character_may_come_in_halves(self) -> None:
        reader = ResponsesReader()
        reader.feed([json.dumps(text(0, unit)).encode() for unit in ("a\ud83d", "\ude42b")])

        assert reader.gathering.take() == [ItemStarted(0, "message"), TextDelta(0, "a🙂b")]

    def test_tokens_with_logprobs_stay_apart(self) -> None:
        tokens = [{"token": "a", "logprob": -1.0}]

        events = read(added(0, type="message"), text(0, "a", logprobs=tokens), text(0, "b"), COMPLETED)

        assert events[1:3] == [TextDelta(0, "a", tokens), TextDelta(0, "b")]

    def test_reasoning_keeps_its_seal(self) -> None:
        summary = {"type": "response.reasoning_summary_text.delta", "output_index": 0, "summary_index": 1, "delta": "s"}
        thought = {"type": "response.reasoning_text.delta", "output_index": 0, "content_index": 0, "delta": "t"}

        events = read(
            added(0, type="reasoning"),
            summary,
            thought,
            done(0, type="reasoning", summary=[], encrypted_content="sealed"),
            COMPLETED,
        )

        assert events == [
            ItemStarted(0, "reasoning"),
            SummaryDelta(0, 1, "s"),
            ReasoningDelta(0, "t"),
            ItemDone(0, {"encrypted_content": "sealed"}),
            OVER,
        ]

    def test_what_was_not_streamed_comes_with_the_item(self) -> None:
        refusal = {"type": "refusal", "refusal": "no"}

        events = read(
            done(0, type="reasoning", summary=[{"text": "s"}], content=[{"text": "t"}]),
            done(1, type="message", content=[{"type": "output_text", "text": "a"}, refusal]),
            added(2, type="function_call", name="f", call_id="c"),
            done(2, type="function_call", name="f", call_id="c", arguments="{}"),
            COMPLETED,
        )

        assert [event for event in events if not isinstance(event, ItemStarted | ItemDone)] == [
            SummaryDelta(0, 0, "s"),
            ReasoningDelta(0, "t"),
            TextDelta(1, "a"),
            RefusalDelta(1, "no"),
            ArgumentsDelta(2, "{}"),
            OVER,
        ]

    def test_items_of_other_kinds_and_their_events_are_passed_over(self) -> None:
        events = read(
            added(0, type="web_search_call"),
            {"type": "response.web_search_call.searching", "output_index": 0},
            done(0, type="web_search_call", status="completed"),
            added(1, type="message"),
            {"type": "response.output_text.annotation.added", "output_index": 1, "annotation": {"type": "x"}},
            COMPLETED,
        )

        assert events == [ItemStarted(1, "message"), AnnotationAdded(1, {"type": "x"}), ItemDone(1), OVER]

    def test_an_unannounced_message_is_begun_by_its_words(self) -> None:
        assert read(text(0, "a"), COMPLETED) == [ItemStarted(0, "message"), TextDelta(0, "a"), ItemDone(0), OVER]

    @pytest.mark.parametrize("reason", ["max_output_tokens", "content_filter"])
    def test_what_is_incomplete_says_why_and_leaves_its_item_open(self, reason: str) -> None:
        response = {"status": "incomplete", "model": "m-1", "incomplete_details": {"reason": reason}}

        events = read(
            text(0, "a"),
            done(0, type="message", status="incomplete"),
            {"type": "response.incomplete", "response": response},
        )

        assert events[1:] == [TextDelta(0, "a"), Finished(usage=None, model="m-1", incomplete=reason)]  # pyright: ignore[reportArgumentType]

    def test_usage_carries_its_details(self) -> None:
        usage = {
            "input_tokens": 9,
            "input_tokens_details": {"cached_tokens": 7, "cache_write_tokens": 6},
            "output_tokens": 8,
            "output_tokens_details": {"reasoning_tokens": 5},
        }

        event = read({"type": "response.completed", "response": {"status": "completed", "usage": usage}})[-1]

        assert event == Finished(
            usage=Usage(input_tokens=9, cached_tokens=7, cache_write_tokens=6, output_tokens=8, reasoning_tokens=5)
        )

    @pytest.mark.parametrize("details", [None, 7, "7", [7], [{"cached_tokens": 7}]])
    def test_details_that_are_no_object_say_nothing(self, details: Any) -> None:
        usage = {"input_tokens": 9, "output_tokens": 8, "input_tokens_details": details}
        final = {"status": "incomplete", "usage": usage, "incomplete_details": details}

        event = read({"type": "response.incomplete", "response": final})[-1]

        assert event == Finished(usage=Usage(input_tokens=9, output_tokens=8), incomplete="max_output_tokens")

    @pytest.mark.parametrize("count", [None, "8", -8, 10**19])
    def test_what_is_no_count_of_tokens_is_estimated(self, count: Any) -> None:
        usage = {"input_tokens": 9, "output_tokens": count}

        event = read({"type": "response.completed", "response": {"status": "completed", "usage": usage}})[-1]

        assert event == Finished(usage=None)

    @pytest.mark.parametrize(
        ("error", "expected"),
        [
            ({"code": "server_error", "message": "m"}, UpstreamError),
            ({"code": "rate_limit_exceeded", "message": "m"}, RateLimited),
            ({"code": "invalid_prompt", "message": "m"}, InvalidRequest),
            ({"code": "service_unavailable", "message": "m"}, ModelUnavailable),
            (None, UpstreamError),
        ],
    )
    def test_a_failed_response_is_the_error_it_names(self, error: Json | None, expected: type[Exception]) -> None:
        with pytest.raises(expected):
            read({"type": "response.failed", "response": {"status": "failed", "error": error}})

    def test_an_error_event_is_an_error(self) -> None:
        with pytest.raises(RateLimited):
            read({"type": "error", "code": "rate_limit_exceeded", "message": "m", "param": None})

    def test_an_end_without_a_last_event_is_an_error(self) -> None:
        with pytest.raises(UpstreamError):
            read(text(0, "a"))

    @pytest.mark.parametrize("event", NO_TEXT)
    def test_words_that_are_no_text_are_refused_where_they_are_read(self, event: Json) -> None:
        with pytest.raises(TypeError):
            ResponsesReader().feed([orjson.dumps(event)])

    @pytest.mark.parametrize("usage", ["12", [1], 5, {"input_tokens": True, "output_tokens": 2}])
    def test_a_count_of_tokens_in_any_other_shape_is_none(self, usage: Any) -> None:
        events = read({"type": "response.completed", "response": {"status": "completed", "usage": usage}})

        assert events == [Finished(usage=None)]

    @pytest.mark.parametrize("response", [5, None, "7", [7]])
    def test_an_end_that_cannot_be_read_is_refused_where_it_is_read(self, response: Any) -> None:
        with pytest.raises(AttributeError):
            ResponsesReader().feed([orjson.dumps({"type": "response.completed", "response": response})])


def test_how_long_prompts_stay_cached_is_for_openai_alone() -> None:
    asked = ModelRequest(model="m", items=[USER], prompt_cache_retention="24h")

    assert responses_body(asked, is_openai=True)["prompt_cache_retention"] == "24h"
    with pytest.raises(InvalidRequest) as caught:
        responses_body(asked, is_openai=False)
    assert caught.value.param == "prompt_cache_retention"
