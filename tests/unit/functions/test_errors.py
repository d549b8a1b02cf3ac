from enum import StrEnum
from typing import Annotated, Any, Literal

import orjson
import pytest
from pydantic import BaseModel, Field, ValidationError, field_validator
from starlette.requests import ClientDisconnect

from functions._errors import error_response, invalid
from shared.errors import ModelUnavailable, NotFound


class Unit(StrEnum):
    DAY = "day"
    WEEK = "week"


class Part(BaseModel):
    type: Literal["text"]
    text: str


class Message(BaseModel):
    type: Literal["message"] = "message"
    role: Literal["user", "assistant"]
    content: str | list[Part]


class Call(BaseModel):
    type: Literal["call"]
    call_id: str


class Payload(BaseModel):
    model: str
    input: str | list[Annotated[Message | Call, Field(discriminator="type")]] = ""
    limit: int = Field(5, ge=1, le=100)
    temperature: float = Field(1, le=2)
    unit: Unit = Unit.DAY
    names: list[str] = Field(default_factory=list, max_length=2)
    words: Annotated[list[str], Field(max_length=2)] | list[int] = Field(default_factory=list[str])
    title: str = Field("", max_length=3)
    even: int = 2
    call: Call | None = None

    @field_validator("even")
    @classmethod
    def must_be_even(cls, value: int) -> int:
        if value % 2:
            raise ValueError("it must be even")
        return value


@pytest.mark.parametrize(
    ("body", "param", "code", "message"),
    [
        ({}, "model", "missing_required_parameter", "Missing required parameter: 'model'."),
        ({"model": 1}, "model", "invalid_type", "expected a string, but got an integer instead."),
        ({"model": None}, "model", "invalid_type", "but got null instead."),
        ({"model": "m", "limit": 0}, "limit", "integer_below_min_value", "expected at least 1, but got 0."),
        ({"model": "m", "limit": 101}, "limit", "integer_above_max_value", "expected at most 100, but got 101."),
        ({"model": "m", "temperature": 2.5}, "temperature", "decimal_above_max_value", "expected at most 2.0"),
        ({"model": "m", "limit": "x"}, "limit", "invalid_type", "but got a string instead."),
        ({"model": "m", "unit": "year"}, "unit", "invalid_value", "Supported values are: 'day', 'week'."),
        ({"model": "m", "names": ["a", "b", "c"]}, "names", "array_above_max_length", "at most 2 long"),
        ({"model": "m", "words": ["a", "b", "c"]}, "words", "array_above_max_length", "at most 2 long"),
        ({"model": "m", "title": "long"}, "title", "string_above_max_length", "at most 3 characters"),
        ({"model": "m", "even": 3}, "even", "invalid_value", "Invalid 'even': it must be even."),
        ({"model": "m", "input": 5}, "input", "invalid_type", "Invalid type for 'input'"),
        ({"model": "m", "call": "x"}, "call", "invalid_type", "expected an object, but got a string instead."),
        (
            {"model": "m", "input": [{"type": "message", "role": "robot", "content": "x"}]},
            "input[0].role",
            "invalid_value",
            "Invalid value: 'robot'. Supported values are: 'user', 'assistant'.",
        ),
        (
            {"model": "m", "input": [{"type": "message", "role": "user"}]},
            "input[0].content",
            "missing_required_parameter",
            "Missing required parameter: 'input[0].content'.",
        ),
        (
            {"model": "m", "input": [{"type": "message", "role": "user", "content": [{"type": "text", "text": 1}]}]},
            "input[0].content[0].text",
            "invalid_type",
            "Invalid type for 'input[0].content[0].text'",
        ),
    ],
)
def test_a_payload_error_names_the_parameter_as_the_caller_wrote_it(
    body: dict[str, Any], param: str, code: str, message: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        Payload.model_validate(body)

    error = invalid(caught.value, body)

    assert (error.param, error.code) == (param, code)
    assert message in error.message


def test_a_long_value_is_not_repeated_whole() -> None:
    body = {"model": "m", "unit": "x" * 1000}
    with pytest.raises(ValidationError) as caught:
        Payload.model_validate(body)

    assert len(invalid(caught.value, body).message) < 200


def test_the_envelope_has_all_four_keys_and_the_request_id() -> None:
    response = error_response(NotFound("No such thing."), "req_1")

    assert orjson.loads(bytes(response.body)) == {
        "error": {"message": "No such thing.", "type": "invalid_request_error", "param": None, "code": "not_found"}
    }
    assert (response.status_code, response.headers["x-request-id"]) == (404, "req_1")


def test_seconds_until_a_retry_are_rounded_up_for_those_who_read_seconds() -> None:
    headers = error_response(ModelUnavailable("later", retry_after=0.2), "req_1").headers

    assert (headers["retry-after"], headers["retry-after-ms"]) == ("1", "200")


def test_a_client_that_stops_sending_is_no_bug(caplog: pytest.LogCaptureFixture) -> None:
    response = error_response(ClientDisconnect(), "req_1")

    assert (response.status_code, caplog.records) == (400, [])


def test_a_bug_is_logged_with_the_id_the_caller_sees(caplog: pytest.LogCaptureFixture) -> None:
    response = error_response(ZeroDivisionError("secret"), "req_1")

    assert b"req_1" in response.body and b"secret" not in response.body
    assert [(record.getMessage(), record.__dict__["request_id"]) for record in caplog.records] == [
        ("request.failed", "req_1")
    ]
