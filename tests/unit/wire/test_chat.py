"""Chat Completions, translated both ways: messages to items and back, a turn to a completion and to chunks."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat.completion_create_params import CompletionCreateParamsBase

from shared.conversations.records import CHATS, TurnRecord
from shared.errors import InvalidRequest, RateLimited
from shared.models.base import (
    AnnotationAdded,
    ArgumentsDelta,
    ItemDone,
    ItemStarted,
    ModelEvent,
    ReasoningDelta,
    RefusalDelta,
    SummaryDelta,
    TextDelta,
)
from shared.turns.output import Output
from shared.turns.replay import ending
from shared.wire.chat import (
    UNSUPPORTED,
    CreateChatCompletion,
    create_response,
    in_chat_words,
    prediction,
    refuse_unsupported,
)
from shared.wire.chat_messages import stored_messages
from shared.wire.chat_output import Chunks, render_completion, render_stored
from shared.wire.items import stored_items
from shared.wire.responses import effective_params, render_usage

type Json = dict[str, Any]

TOKEN = "0123456789abcdef0123456789abcdef"
HELLO = {"role": "user", "content": "Hello"}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def make_request(*messages: Json, **fields: Any) -> CreateChatCompletion:
    body = {"model": "companion", "messages": list(messages) or [HELLO], **fields}
    return CreateChatCompletion.model_validate(body)


def items_of(*messages: Json) -> list[Json]:
    return stored_items(create_response(make_request(*messages)).input, TOKEN)


def called(id_: str, name: str = "weather", arguments: str = "{}") -> Json:
    return {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}


def make_turn(output: list[Json], *, incomplete: str | None = None, **fields: Any) -> TurnRecord:
    """A turn of this surface that has ended with this output."""
    request = make_request(**fields)
    call: Json = {"extra": {"seed": request.seed}}
    return TurnRecord(
        id=f"resp_{TOKEN}",
        group=CHATS,
        sort="",
        depth=0,
        surface="chat",
        status="incomplete" if incomplete else "completed",
        created_at=1_800_000_000.5,
        params=effective_params(create_response(request), model=request.model),
        call=call | ({"is_legacy": True} if request.is_legacy else {}),
        output=output,
        incomplete_reason=incomplete,
        usage=render_usage(input_tokens=7, cached_tokens=3, cache_write_tokens=1, output_tokens=5, reasoning_tokens=2),
    )


def told(*events: ModelEvent) -> tuple[list[Json], list[Json]]:
    """What a model says, as output items and as the events of its stream, drained after each."""
    output, stream = Output(TOKEN), list[Json]()
    for event in events:
        output.feed(event)
        stream += output.drain()
    output.close()
    return output.items, stream + output.drain()


def chunks_of(turn: TurnRecord, stream: Sequence[Json], **options: bool) -> list[Json]:
    chunks = Chunks(turn, **options)
    return [chunk for event in [*stream, *ending(turn).events] for chunk in chunks.feed(event)]


def deltas_of(chunks: Sequence[Json]) -> list[Json]:
    return [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]


class TestRequest:
    def test_every_documented_parameter_is_known(self) -> None:
        documented = set(CompletionCreateParamsBase.__annotations__) | {"stream"}

        assert documented == set(CreateChatCompletion.model_fields)

    @pytest.mark.parametrize("name", UNSUPPORTED)
    def test_what_is_not_offered_is_refused_by_name(self, name: str) -> None:
        with pytest.raises(InvalidRequest) as refused:
            refuse_unsupported(make_request(**{name: {}}))

        assert (refused.value.param, refused.value.code) == (name, "unsupported_parameter")

    @pytest.mark.parametrize(
        ("fields", "param"),
        [
            ({"n": 2}, "n"),
            ({"modalities": ["text", "audio"]}, "modalities"),
            ({"max_tokens": 5, "max_completion_tokens": 5}, "max_tokens"),
            ({"stream_options": {"include_usage": True}}, "stream_options"),
            ({"top_logprobs": 2}, "top_logprobs"),
            ({"functions": [{"name": "f"}], "tools": [WEATHER]}, "functions"),
            ({"functions": [{"name": "f"}], "tool_choice": "auto"}, "functions"),
            ({"tool_choice": "required"}, "tool_choice"),
            ({"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_choice"),
            ({"functions": [{"name": "f"}], "function_call": {"name": "g"}}, "function_call"),
        ],
    )
    def test_combinations_that_make_no_sense_are_refused_by_name(self, fields: Json, param: str) -> None:
        with pytest.raises(InvalidRequest) as refused:
            refuse_unsupported(make_request(**fields))

        assert refused.value.param == param

    @pytest.mark.parametrize(
        "fields",
        [
            {"n": 1, "modalities": ["text"], "stop": None, "tools": None, "tool_choice": "auto"},
            {"tools": [], "tool_choice": "none"},
            {"stream": True, "stream_options": {"include_usage": True}},
            {"logprobs": True, "top_logprobs": 20},
            {"functions": [{"name": "f"}], "function_call": {"name": "f"}},
        ],
    )
    def test_what_is_offered_passes(self, fields: Json) -> None:
        refuse_unsupported(make_request(**fields))

    def test_a_completion_is_not_stored_unless_asked(self) -> None:
        assert create_response(make_request()).store is False

    def test_settings_with_the_same_name_are_passed_on_only_when_sent(self) -> None:
        sent = {
            "frequency_penalty": 0.5,
            "metadata": {"a": "b"},
            "parallel_tool_calls": False,
            "presence_penalty": -0.5,
            "prompt_cache_key": "k",
            "safety_identifier": "s",
            "service_tier": "flex",
            "temperature": 0.0,
            "top_p": 0.5,
            "user": "u",
        }

        create = create_response(make_request(**sent))

        assert create.model_dump(include=create.model_fields_set - {"input", "model", "store"}) == sent

    @pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
    def test_both_names_of_the_limit_mean_the_same(self, name: str) -> None:
        assert create_response(make_request(**{name: 9})).max_output_tokens == 9

    def test_effort_and_verbosity_go_where_the_engine_looks(self) -> None:
        create = create_response(make_request(reasoning_effort="low", verbosity="high"))

        assert create.reasoning is not None
        assert create.text is not None
        assert (create.reasoning.effort, create.text.verbosity, create.text.format) == ("low", "high", None)

    def test_a_schema_loses_its_wrapping(self) -> None:
        schema = {"name": "answer", "schema": {"type": "object"}, "strict": True}
        create = create_response(make_request(response_format={"type": "json_schema", "json_schema": schema}))

        assert create.text is not None
        assert create.text.model_dump(by_alias=True, exclude_none=True) == {"format": {"type": "json_schema", **schema}}

    def test_logprobs_are_asked_for_as_the_engine_knows_them(self) -> None:
        create = create_response(make_request(logprobs=True, top_logprobs=3))

        assert (create.include, create.top_logprobs) == (["message.output_text.logprobs"], 3)

    def test_functions_are_not_strict_unless_they_say_so(self) -> None:
        strict = {"type": "function", "function": {"name": "f", "strict": True}}
        create = create_response(make_request(tools=[WEATHER, strict]))

        assert [tool.strict for tool in create.tools or [] if tool.type == "function"] == [False, True]

    def test_custom_tools_keep_their_grammar(self) -> None:
        grammar = {"syntax": "regex", "definition": "a+"}
        custom = {"name": "c", "description": "d", "format": {"type": "grammar", "grammar": grammar}}
        create = create_response(make_request(tools=[{"type": "custom", "custom": custom}]))

        assert [tool.model_dump() for tool in create.tools or []] == [
            {"type": "custom", "name": "c", "description": "d", "format": {"type": "grammar", **grammar}}
        ]

    @pytest.mark.parametrize(
        ("choice", "expected"),
        [
            ("required", "required"),
            ({"type": "function", "function": {"name": "weather"}}, {"type": "function", "name": "weather"}),
            ({"type": "custom", "custom": {"name": "c"}}, {"type": "custom", "name": "c"}),
            (
                {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [WEATHER]}},
                {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "weather"}]},
            ),
        ],
    )
    def test_choices_of_tools_lose_their_wrapping(self, choice: Any, expected: Any) -> None:
        tools = [WEATHER, {"type": "custom", "custom": {"name": "c"}}]
        request = make_request(tools=tools, tool_choice=choice)
        refuse_unsupported(request)

        assert effective_params(create_response(request), model="m")["tool_choice"] == expected

    def test_functions_become_tools_called_one_at_a_time(self) -> None:
        create = create_response(make_request(functions=[{"name": "f"}], function_call={"name": "f"}))

        assert [tool.name for tool in create.tools or [] if tool.type == "function"] == ["f"]
        assert effective_params(create, model="m")["tool_choice"] == {"type": "function", "name": "f"}
        assert create.parallel_tool_calls is False

    @pytest.mark.parametrize(("stop", "stops"), [("a", ["a"]), (["a", "b"], ["a", "b"]), ([], None), (None, None)])
    def test_stops_are_a_list(self, stop: Any, stops: list[str] | None) -> None:
        assert make_request(stop=stop).stops == stops

    def test_a_prediction_is_passed_as_it_is(self) -> None:
        sent = {"type": "content", "content": [{"type": "text", "text": "x"}]}

        assert prediction(make_request(prediction=sent)) == sent


class TestMessages:
    def test_roles_stay_in_their_order(self) -> None:
        roles = ["developer", "user", "assistant", "system", "user"]

        assert [item["role"] for item in items_of(*({"role": role, "content": "x"} for role in roles))] == roles

    def test_parts_of_a_user_become_input_parts(self) -> None:
        (item,) = items_of(
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Look"},
                    {"type": "image_url", "image_url": {"url": "data:x", "detail": "low"}},
                    {"type": "file", "file": {"file_data": "data:y", "filename": "y.pdf"}},
                ],
            }
        )

        assert item["content"] == [
            {"type": "input_text", "text": "Look"},
            {"type": "input_image", "image_url": "data:x", "detail": "low"},
            {"type": "input_file", "file_data": "data:y", "filename": "y.pdf"},
        ]

    @pytest.mark.parametrize(
        ("part", "param"),
        [
            ({"type": "input_audio", "input_audio": {"data": "", "format": "mp3"}}, "input_audio"),
            ({"type": "file", "file": {"file_id": "file-1"}}, "file.file_id"),
            ({"type": "file", "file": {"filename": "y.pdf"}}, "file.file_data"),
            (
                {"type": "text", "text": "x", "prompt_cache_breakpoint": {"mode": "explicit"}},
                "prompt_cache_breakpoint",
            ),
        ],
    )
    def test_parts_that_are_not_offered_are_refused_by_name(self, part: Json, param: str) -> None:
        with pytest.raises(InvalidRequest) as refused:
            items_of(HELLO, {"role": "user", "content": [part]})

        assert refused.value.param == f"messages[1].content[0].{param}"

    def test_audio_of_an_assistant_is_refused_by_name(self) -> None:
        with pytest.raises(InvalidRequest) as refused:
            items_of(HELLO, {"role": "assistant", "audio": {"id": "audio_1"}})

        assert refused.value.param == "messages[1].audio"

    def test_tool_calls_follow_the_words_and_outputs_name_their_call(self) -> None:
        items = items_of(
            HELLO,
            {"role": "assistant", "content": "One moment.", "tool_calls": [called("a"), called("b", "time")]},
            {"role": "tool", "tool_call_id": "b", "content": [{"type": "text", "text": "noon"}]},
            {"role": "tool", "tool_call_id": "a", "content": "sunny"},
        )

        assert [(item["type"], item.get("call_id")) for item in items] == [
            ("message", None),
            ("message", None),
            ("function_call", "a"),
            ("function_call", "b"),
            ("function_call_output", "b"),
            ("function_call_output", "a"),
        ]
        assert [item["output"] for item in items[4:]] == [[{"type": "input_text", "text": "noon"}], "sunny"]

    @pytest.mark.parametrize("content", [None, ""])
    def test_calls_without_words_make_no_message(self, content: str | None) -> None:
        items = items_of(
            {"role": "assistant", "content": content, "tool_calls": [called("a")]},
            {"role": "tool", "tool_call_id": "a", "content": ""},
        )

        assert [item["type"] for item in items] == ["function_call", "function_call_output"]

    def test_custom_calls_and_their_outputs_are_custom(self) -> None:
        custom = {"id": "a", "type": "custom", "custom": {"name": "c", "input": "x"}}
        items = items_of(
            {"role": "assistant", "tool_calls": [custom]}, {"role": "tool", "tool_call_id": "a", "content": "y"}
        )

        assert [item["type"] for item in items] == ["custom_tool_call", "custom_tool_call_output"]

    def test_the_oldest_form_of_calls_gets_ids_that_match(self) -> None:
        items = items_of(
            HELLO,
            {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
            {"role": "function", "name": "f", "content": "1"},
        )

        assert items[1]["call_id"] == items[2]["call_id"]

    def test_a_refusal_stays_a_refusal(self) -> None:
        (item,) = items_of({"role": "assistant", "content": None, "refusal": "No."})

        assert item["content"] == [{"type": "refusal", "refusal": "No."}]

    def test_the_name_of_a_participant_is_kept(self) -> None:
        (item,) = items_of({**HELLO, "name": "ada"})

        assert item["name"] == "ada"

    @pytest.mark.parametrize(
        ("messages", "param"),
        [
            ([{"role": "tool", "tool_call_id": "a", "content": "x"}], "messages[0].tool_call_id"),
            ([{"role": "function", "name": "f", "content": "x"}], "messages[0].name"),
            ([HELLO, {"role": "assistant", "content": None}], "messages[1].content"),
            ([HELLO, {"role": "assistant", "tool_calls": [called("a")]}], "messages[1].tool_calls"),
            ([{"role": "assistant", "tool_calls": [called("a")]}, HELLO], "messages[0].tool_calls"),
        ],
    )
    def test_calls_and_outputs_that_do_not_match_are_refused(self, messages: list[Json], param: str) -> None:
        with pytest.raises(InvalidRequest) as refused:
            items_of(*messages)

        assert refused.value.param == param

    def test_stored_items_are_listed_as_the_messages_they_came_from(self) -> None:
        image = {"type": "image_url", "image_url": {"url": "data:x", "detail": "auto"}}
        text = {"type": "text", "text": "Look"}
        sent = [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": [text, image], "name": "ada"},
            {"role": "assistant", "content": "One moment.", "tool_calls": [called("a"), called("b")]},
            {"role": "tool", "tool_call_id": "a", "content": "sunny"},
            {"role": "tool", "tool_call_id": "b", "content": "rainy"},
            {"role": "assistant", "content": None, "refusal": "No."},
        ]

        listed = stored_messages(items_of(*sent), "chatcmpl-1")

        assert [message["id"] for message in listed] == [f"chatcmpl-1-{place}" for place in range(6)]
        assert [message["role"] for message in listed] == [message["role"] for message in sent]
        assert listed[1]["content_parts"] == [text, image]
        assert (listed[1]["content"], listed[1]["name"]) == ("Look", "ada")
        assert (listed[2]["content"], listed[2]["tool_calls"]) == ("One moment.", sent[2]["tool_calls"])
        assert [listed[place]["content_parts"] for place in (0, 2, 3)] == [None] * 3
        assert (listed[5]["content"], listed[5]["refusal"]) == (None, "No.")


class TestCompletion:
    def test_an_answer_has_every_field_that_openai_sends(self) -> None:
        items, _ = told(ItemStarted(0, "message"), TextDelta(0, "Hi"), ItemDone(0))

        assert render_completion(make_turn(items, metadata={"a": "b"}, service_tier="flex")) == {
            "id": f"chatcmpl-{TOKEN}",
            "object": "chat.completion",
            "created": 1_800_000_000,
            "model": "companion",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "Hi", "refusal": None, "annotations": []},
                    "logprobs": None,
                    "finish_reason": "stop",
                }
            ],
            "usage": {
                "prompt_tokens": 7,
                "completion_tokens": 5,
                "total_tokens": 12,
                "prompt_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 1, "audio_tokens": 0},
                "completion_tokens_details": {
                    "reasoning_tokens": 2,
                    "audio_tokens": 0,
                    "accepted_prediction_tokens": 0,
                    "rejected_prediction_tokens": 0,
                },
                "cost": 0.0,
            },
            "service_tier": "flex",
            "system_fingerprint": None,
            "metadata": {"a": "b"},
        }

    @pytest.mark.parametrize(
        ("incomplete", "reason"), [("max_output_tokens", "length"), ("content_filter", "content_filter")]
    )
    def test_an_incomplete_answer_says_why(self, incomplete: str, reason: str) -> None:
        completion = render_completion(make_turn([], incomplete=incomplete))

        assert completion["choices"][0]["finish_reason"] == reason

    def test_calls_alone_leave_the_content_null(self) -> None:
        items, _ = told(ItemStarted(0, "function_call", "f", "a"), ArgumentsDelta(0, "{}"), ItemDone(0))
        (choice,) = render_completion(make_turn(items))["choices"]

        assert (choice["message"]["content"], choice["finish_reason"]) == (None, "tool_calls")
        assert choice["message"]["tool_calls"] == [called("a", "f")]

    def test_callers_of_functions_are_answered_with_a_function_call(self) -> None:
        items, stream = told(ItemStarted(0, "function_call", "f", "a"), ArgumentsDelta(0, "{}"), ItemDone(0))
        turn = make_turn(items, functions=[{"name": "f"}])
        (choice,) = render_completion(turn)["choices"]

        assert choice["message"]["function_call"] == {"name": "f", "arguments": "{}"}
        assert choice["finish_reason"] == "function_call"
        assert deltas_of(chunks_of(turn, stream))[1:3] == [
            {"function_call": {"name": "f", "arguments": ""}},
            {"function_call": {"arguments": "{}"}},
        ]

    def test_two_answers_of_one_turn_are_never_spliced_silently(self) -> None:
        items, _ = told(
            ItemStarted(0, "message"),
            TextDelta(0, "torn"),
            ItemDone(0),
            ItemStarted(1, "message"),
            TextDelta(1, "whole"),
        )

        assert render_completion(make_turn(items))["choices"][0]["message"]["content"] == "torn\n\nwhole"

    def test_annotations_are_wrapped_as_this_surface_does(self) -> None:
        citation = {"url": "https://example.com/", "title": "t", "start_index": 0, "end_index": 1}
        items, stream = told(
            ItemStarted(0, "message"), TextDelta(0, "x"), AnnotationAdded(0, {"type": "url_citation", **citation})
        )
        turn = make_turn(items)
        wrapped = [{"type": "url_citation", "url_citation": citation}]

        assert render_completion(turn)["choices"][0]["message"]["annotations"] == wrapped
        assert {"annotations": wrapped} in deltas_of(chunks_of(turn, stream))

    def test_a_stored_completion_shows_the_settings_in_this_surfaces_words(self) -> None:
        schema = {"name": "answer", "schema": {"type": "object"}}
        allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [called_tool("weather")]}}
        sent: Json = {
            "tool_choice": allowed,
            "response_format": {"type": "json_schema", "json_schema": schema},
            "seed": 7,
            "temperature": 0.5,
            "user": "u",
        }
        grammar = {"type": "grammar", "grammar": {"syntax": "regex", "definition": "a"}}
        custom = {"type": "custom", "custom": {"name": "c", "format": grammar}}

        shown = render_stored(make_turn([], tools=[WEATHER, custom], **sent))

        assert {name: shown[name] for name in ("tool_choice", "response_format", "seed", "temperature")} == {
            name: sent[name] for name in ("tool_choice", "response_format", "seed", "temperature")
        }
        assert shown["input_user"] == "u"
        assert [tool["type"] for tool in shown["tools"]] == ["function", "custom"]
        assert shown["tools"][1] == custom


def called_tool(name: str) -> Json:
    return {"type": "function", "function": {"name": name}}


class TestChunks:
    def test_the_first_delta_says_who_speaks_and_the_last_chunk_why_it_ended(self) -> None:
        items, stream = told(ItemStarted(0, "message"), TextDelta(0, "Hi"), TextDelta(0, " you"), ItemDone(0))
        chunks = chunks_of(make_turn(items), stream)

        assert deltas_of(chunks) == [
            {"role": "assistant", "content": "", "refusal": None},
            {"content": "Hi"},
            {"content": " you"},
            {},
        ]
        assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, None, "stop"]
        assert "usage" not in chunks[0]

    def test_nothing_is_said_before_the_model_says_something(self) -> None:
        chunks = Chunks(make_turn([]))

        assert chunks.feed({"type": "response.created"}) == chunks.feed({"type": "response.in_progress"}) == []
        assert not chunks.is_over

    def test_an_empty_answer_still_has_a_role_and_an_end(self) -> None:
        assert deltas_of(chunks_of(make_turn([]), [])) == [{"role": "assistant", "content": "", "refusal": None}, {}]

    def test_a_call_gives_id_and_name_once_and_then_pieces_of_its_arguments(self) -> None:
        items, stream = told(
            ItemStarted(0, "function_call", "f", "a"),
            ArgumentsDelta(0, '{"x"'),
            ArgumentsDelta(0, ":1}"),
            ItemDone(0),
            ItemStarted(1, "custom_tool_call", "c", "b"),
            ArgumentsDelta(1, "in"),
            ItemDone(1),
        )

        assert deltas_of(chunks_of(make_turn(items), stream)) == [
            {"role": "assistant", "content": None, "refusal": None},
            {"tool_calls": [{"index": 0, **called("a", "f", "")}]},
            {"tool_calls": [{"index": 0, "function": {"arguments": '{"x"'}}]},
            {"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]},
            {"tool_calls": [{"index": 1, "id": "b", "type": "custom", "custom": {"name": "c", "input": ""}}]},
            {"tool_calls": [{"index": 1, "custom": {"input": "in"}}]},
            {},
        ]

    def test_usage_comes_in_a_chunk_without_choices_and_is_null_in_the_others(self) -> None:
        items, stream = told(ItemStarted(0, "message"), TextDelta(0, "Hi"), ItemDone(0))
        turn = make_turn(items)
        chunks = chunks_of(turn, stream, include_usage=True)

        assert (chunks[-1]["choices"], chunks[-1]["usage"]) == ([], render_completion(turn)["usage"])
        assert [chunk["usage"] for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)

    def test_obfuscation_is_added_where_it_was_asked_for(self) -> None:
        items, stream = told(ItemStarted(0, "message"), TextDelta(0, "Hi"), ItemDone(0))
        turn = make_turn(items)

        assert ["obfuscation" in chunk for chunk in chunks_of(turn, stream)] == [False] * 3
        assert ["obfuscation" in chunk for chunk in chunks_of(turn, stream, include_obfuscation=True)] == [
            True,
            True,
            False,
        ]


SAID = st.text("ab é\n", max_size=4)


def _logprob(token: str) -> list[Json]:
    return [{"token": token, "logprob": -0.5, "bytes": None, "top_logprobs": []}]


LOGPROB: st.SearchStrategy[list[Json] | None] = st.none() | st.builds(_logprob, SAID)


@st.composite
def spoken(draw: st.DrawFn) -> list[ModelEvent]:
    """One item, of any kind, in any pieces."""
    kind: Any = draw(st.sampled_from(["message", "reasoning", "function_call", "custom_tool_call"]))
    key = draw(st.integers(0, 10**9))
    start = ItemStarted(key, kind, "f", f"call_{key}") if "call" in kind else ItemStarted(key, kind)
    deltas: Sequence[st.SearchStrategy[ModelEvent]]
    match kind:
        case "message":
            deltas = [st.builds(TextDelta, st.just(key), SAID, LOGPROB), st.builds(RefusalDelta, st.just(key), SAID)]
        case "reasoning":
            summary = st.builds(SummaryDelta, st.just(key), st.just(0), SAID)
            deltas = [draw(st.sampled_from([st.builds(ReasoningDelta, st.just(key), SAID), summary]))]
        case _:
            deltas = [st.builds(ArgumentsDelta, st.just(key), SAID)]
    return [start, *draw(st.lists(st.one_of(deltas), max_size=5)), ItemDone(key)]


@given(
    st.lists(spoken(), max_size=5, unique_by=lambda events: getattr(events[0], "key", None)),
    st.sampled_from([None, "max_output_tokens"]),
)
def test_joined_chunks_say_what_the_completion_says(said: list[list[ModelEvent]], incomplete: str | None) -> None:
    items, stream = told(*(event for events in said for event in events))
    turn = make_turn(items, incomplete=incomplete)
    (choice,) = render_completion(turn)["choices"]
    chunks = chunks_of(turn, stream)

    assert joined(chunks) == {
        name: value for name, value in choice["message"].items() if value is not None and name != "annotations"
    }
    assert chunks[-1]["choices"][0]["finish_reason"] == choice["finish_reason"]
    assert [token for chunk in chunks for token in tokens_of(chunk["choices"][0])] == tokens_of(choice)


def tokens_of(choice: Json) -> list[Json]:
    return choice["logprobs"]["content"] if choice["logprobs"] else []


def joined(chunks: Sequence[Json]) -> Json:
    """A message put together from deltas, as clients do it; what stayed null is left out."""
    message: Json = {}
    for delta in deltas_of(chunks):
        for name, value in delta.items():
            if name == "tool_calls":
                _join_call(message.setdefault("tool_calls", []), value[0])
            elif value is not None:
                message[name] = message.get(name, "") + value
    return message


def _join_call(calls: list[Json], piece: Json) -> None:
    index: int = piece["index"]
    if index == len(calls):
        calls.append({name: value for name, value in piece.items() if name != "index"})
        return
    kind: str = calls[index]["type"]
    pieces: dict[str, str] = piece[kind]
    for name, text in pieces.items():
        calls[index][kind] = {**calls[index][kind], name: calls[index][kind][name] + text}


def test_errors_name_parameters_as_this_surface_does() -> None:
    names = ["input[0].content", "max_output_tokens", "text.format.schema", "reasoning.effort", "model", None, "inputs"]
    errors = [in_chat_words(InvalidRequest("no", param=name)) for name in names]

    assert [error.param for error in errors] == [
        "messages[0].content",
        "max_completion_tokens",
        "response_format.schema",
        "reasoning_effort",
        "model",
        None,
        "inputs",
    ]


def test_errors_stay_what_they_are() -> None:
    error = RateLimited("busy", retry_after=2)

    assert in_chat_words(error) is error
