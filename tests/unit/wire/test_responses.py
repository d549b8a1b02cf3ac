from typing import Any

import pytest
from openai.types.responses import Response
from pydantic import ValidationError

from shared.conversations.records import TurnRecord
from shared.errors import InvalidRequest
from shared.wire.responses import (
    UNSUPPORTED,
    CountInput,
    CreateResponse,
    effective_params,
    refuse_unsupported,
    render_response,
    sent_params,
    visible_items,
)

type Json = dict[str, Any]

WEATHER = {"type": "function", "name": "weather"}
SERVER = {"type": "mcp", "server_label": "companion"}


def make_create(**fields: Any) -> CreateResponse:
    return CreateResponse.model_validate({"model": "companion", "input": "Hi", **fields})


def refused(**fields: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        refuse_unsupported(make_create(**fields))
    return caught.value


def make_turn(**fields: Any) -> TurnRecord:
    params = effective_params(make_create(), model="companion")
    base: Json = {"id": "resp_1", "group": "resp_1", "sort": "0", "depth": 0, "created_at": 1.5, "params": params}
    return TurnRecord.model_validate({**base, "status": "completed", "completed_at": 2.5, **fields})


class TestRefused:
    @pytest.mark.parametrize("name", UNSUPPORTED)
    def test_what_is_not_offered_is_refused_by_name(self, name: str) -> None:
        with pytest.raises(InvalidRequest) as caught:
            refuse_unsupported(CountInput.model_validate({"input": "Hi", name: {}}))
        error = caught.value

        assert (error.param, error.code) == (name, "unsupported_parameter")

    @pytest.mark.parametrize(
        ("fields", "param"),
        [
            ({"conversation": "conv_1", "previous_response_id": "resp_1"}, "previous_response_id"),
            ({"background": True, "store": False}, "background"),
            ({"top_logprobs": 2}, "top_logprobs"),
            ({"tools": [{**SERVER, "server_label": "other"}]}, "tools[0].server_label"),
            ({"tools": [{**SERVER, "server_url": "https://example.com/"}]}, "tools[0].server_url"),
            ({"tool_choice": "required"}, "tool_choice"),
            ({"tool_choice": {"type": "function", "name": "weather"}}, "tool_choice"),
            ({"tools": [WEATHER], "tool_choice": {"type": "function", "name": "other"}}, "tool_choice"),
            ({"tools": [WEATHER], "tool_choice": {"type": "mcp", "server_label": "companion"}}, "tool_choice"),
        ],
    )
    def test_what_does_not_go_together(self, fields: Json, param: str) -> None:
        assert refused(**fields).param == param

    @pytest.mark.parametrize(
        "fields",
        [
            {"tools": [WEATHER], "tool_choice": "required"},
            {"tools": [WEATHER], "tool_choice": {"type": "function", "name": "weather"}},
            {"tools": [SERVER], "tool_choice": {"type": "mcp", "server_label": "companion", "name": "current_time"}},
            {"tools": [WEATHER], "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [WEATHER]}},
            {"tool_choice": "none"},
            {"top_logprobs": 2, "include": ["message.output_text.logprobs"]},
            {"conversation": "conv_1"},
            {"background": True, "stream": True},
        ],
    )
    def test_what_does(self, fields: Json) -> None:
        refuse_unsupported(make_create(**fields))

    @pytest.mark.parametrize(
        "fields",
        [
            {"temperature": "0.5"},
            {"temperature": True},
            {"temperature": 2.1},
            {"stream": "true"},
            {"max_output_tokens": 0},
            {"max_output_tokens": 16.5},
            {"truncation": "sometimes"},
            {"include": ["everything"]},
            {"metadata": {"a": 5}},
            {"metadata": {"a" * 65: "x"}},
            {"metadata": {"a": "x" * 513}},
            {"metadata": {str(number): "x" for number in range(17)}},
            {"tools": [{"type": "unheard_of"}]},
            {"tools": [{"type": "function"}]},
            {"tool_choice": "sometimes"},
            {"tool_choice": {"type": "function"}},
            {"tool_choice": {"type": "allowed_tools", "mode": "auto"}},
            {"text": {"format": {"type": "json_schema", "name": "x"}}},
            {"conversation": 5},
            {"input": 5},
        ],
    )
    def test_a_value_that_is_none(self, fields: Json) -> None:
        with pytest.raises(ValidationError):
            make_create(**fields)

    def test_unknown_fields_are_ignored(self) -> None:
        assert make_create(unheard_of=True).model == "companion"


class TestEcho:
    def test_a_choice_is_echoed_as_it_was_sent(self) -> None:
        choice = {"type": "allowed_tools", "mode": "required", "tools": [WEATHER]}

        assert effective_params(make_create(tool_choice=choice), model="m")["tool_choice"] == choice

    def test_the_schema_of_a_format_keeps_its_name(self) -> None:
        format_ = {"type": "json_schema", "name": "x", "schema": {"type": "object"}, "strict": True}

        assert effective_params(make_create(text={"format": format_}), model="m")["text"] == {"format": format_}

    def test_the_older_word_for_a_summary(self) -> None:
        params = effective_params(make_create(reasoning={"generate_summary": "auto"}), model="m")

        assert params["reasoning"] == {"effort": None, "summary": "auto"}

    def test_only_what_was_sent_counts_as_sent(self) -> None:
        assert sent_params(make_create(temperature=1.0)) == {"model", "input", "temperature"}


class TestRendered:
    @pytest.mark.parametrize(
        ("status", "changes", "expected"),
        [
            ("completed", {}, {"completed_at": 2, "error": None, "incomplete_details": None}),
            ("cancelled", {}, {"completed_at": None, "error": None, "incomplete_details": None}),
            (
                "incomplete",
                {"incomplete_reason": "max_output_tokens"},
                {"completed_at": None, "error": None, "incomplete_details": {"reason": "max_output_tokens"}},
            ),
            (
                "failed",
                {"error": {"code": "server_error", "message": "x"}},
                {"completed_at": None, "error": {"code": "server_error", "message": "x"}, "incomplete_details": None},
            ),
            ("in_progress", {"completed_at": None}, {"completed_at": None, "usage": None}),
        ],
    )
    def test_each_end_shows_its_own(self, status: str, changes: Json, expected: Json) -> None:
        body = render_response(make_turn(status=status, **changes))

        assert {name: body[name] for name in expected} == expected
        Response.model_validate(body)

    def test_nulls_survive_storage(self) -> None:
        turn = make_turn()

        assert render_response(TurnRecord.model_validate(turn.document())) == render_response(turn)

    def test_encrypted_reasoning_is_left_out_unless_asked_for(self) -> None:
        item: Json = {"id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": "x"}

        assert visible_items([item], ["reasoning.encrypted_content"]) == [item]
        assert visible_items([item], []) == [{"id": "rs_1", "type": "reasoning", "summary": []}]
