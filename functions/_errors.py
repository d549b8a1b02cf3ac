"""Whatever went wrong, as OpenAI's error body."""

import logging
import secrets
from collections.abc import Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

import orjson
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from shared.errors import AssistantError, InvalidRequest

if TYPE_CHECKING:
    from pydantic import ValidationError

log = logging.getLogger("companion.http")


JSON = "application/json"


class MethodNotAllowed(AssistantError):
    """The path is known, the method is not."""

    status = HTTPStatus.METHOD_NOT_ALLOWED
    type = "invalid_request_error"
    default_code = "method_not_allowed"


class RequestTimeout(AssistantError):
    """The client took too long to send its request."""

    status = HTTPStatus.REQUEST_TIMEOUT
    type = "invalid_request_error"
    default_code = "request_timeout"


class Restarting(AssistantError):
    """This process ends; another one has the rest."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    default_code = "server_restarting"


class InternalError(AssistantError):
    """A bug: the caller gets an id to quote, the log gets the traceback."""

    default_code = "internal_error"


def new_request_id() -> str:
    return f"req_{secrets.token_hex(16)}"


def as_assistant_error(exc: BaseException, request_id: str, *, body: Any = None) -> AssistantError:
    """The error a caller is told about; a bug is logged here, and only here.

    `body` is the JSON that failed validation, when known: it tells fields from pydantic's names of union branches.
    """
    if type(exc).__module__.startswith("pydantic_core") and type(exc).__name__ == "ValidationError":
        return invalid(cast("ValidationError", exc), body)  # told by name: a cold start does without pydantic
    match exc:
        case AssistantError():
            return exc
        case ClientDisconnect():
            return InvalidRequest("The request ended before its body did.")
        case _:
            log.error("request.failed", extra={"request_id": request_id}, exc_info=exc)
            return InternalError(f"The server had an error. Quote {request_id} when you report it.")


def error_response(exc: BaseException, request_id: str, *, body: Any = None) -> Response:
    error = as_assistant_error(exc, request_id, body=body)
    headers = {"x-request-id": request_id, **retry_headers(error), **error.headers}
    return Response(orjson.dumps(error.body()), status_code=error.status, headers=headers, media_type=JSON)


def retry_headers(error: AssistantError) -> dict[str, str]:
    """`retry-after` in whole seconds, rounded up, and `retry-after-ms` for the clients that read it."""
    if error.retry_after is None:
        return {}
    milliseconds = max(0, round(error.retry_after * 1000))
    return {"retry-after": str(-(-milliseconds // 1000)), "retry-after-ms": str(milliseconds)}


# pydantic's errors in OpenAI's words


def invalid(exc: "ValidationError", body: Any = None) -> InvalidRequest:
    """The most telling of pydantic's errors, since unions report every branch: that a list is too long, as what else is
    said of its elements is of other branches; the one deepest in the payload, and of those one that is not about the
    type."""
    errors = exc.errors(include_url=False, include_context=True)
    located = [
        (_path(error["loc"], body, is_missing=error["type"] == "missing") + _tag_of(error), error) for error in errors
    ]
    path, error = max(
        located,
        key=lambda pair: (pair[1]["type"] == "too_long", len(pair[0]), not pair[1]["type"].endswith("_type")),
    )
    param = param_name(path)
    code, message = _describe(param, error["type"], error)
    return InvalidRequest(message, param=param or None, code=code)


def param_name(path: Sequence[int | str]) -> str:
    """
    >>> param_name(["input", 0, "role"])
    'input[0].role'
    """
    name = ""
    for part in path:
        if isinstance(part, int):
            name += f"[{part}]"
        else:
            name += f".{part}" if name else part
    return name


def _path(loc: Sequence[int | str], body: Any, *, is_missing: bool) -> list[int | str]:
    """The parts of a location that exist in the payload; the others name branches of unions."""
    if body is None:
        return list(loc)
    path: list[int | str] = []
    here = body
    for position, part in enumerate(loc):
        is_there, there = _step(here, part)
        if not is_there and not (is_missing and position == len(loc) - 1):
            continue
        here = there
        path.append(part)
    return path


def _tag_of(error: Any) -> list[int | str]:
    """The field that tells the kinds of a union apart, where that is what is wrong."""
    if error["type"] not in ("union_tag_invalid", "union_tag_not_found"):
        return []
    name: str = error["ctx"]["discriminator"].strip("'")
    if name.isidentifier():
        return [name]
    return ["type"] if isinstance(error["input"], dict) and "type" in error["input"] else []


def _step(here: Any, part: int | str) -> tuple[bool, Any]:
    match here:
        case dict():
            found = cast(dict[int | str, Any], here)
            return (True, found[part]) if part in found else (False, None)
        case list() if isinstance(part, int):
            elements = cast(list[Any], here)
            return (True, elements[part]) if part < len(elements) else (False, None)
        case _:
            return False, None


_LIMITS = {
    "greater_than": ("{kind}_below_min_value", "greater than {gt}"),
    "greater_than_equal": ("{kind}_below_min_value", "at least {ge}"),
    "less_than": ("{kind}_above_max_value", "less than {lt}"),
    "less_than_equal": ("{kind}_above_max_value", "at most {le}"),
    "string_too_short": ("string_below_min_length", "a string of at least {min_length} characters"),
    "string_too_long": ("string_above_max_length", "a string of at most {max_length} characters"),
    "too_short": ("array_below_min_length", "at least {min_length} long"),
    "too_long": ("array_above_max_length", "at most {max_length} long"),
}

_NAMES = (
    (dict, "an object"),
    (list, "an array"),
    (str, "a string"),
    (bool, "a boolean"),
    (int, "an integer"),
    (float, "a number"),
)


def _describe(param: str, type_: str, error: Any) -> tuple[str, str]:
    """Code and message."""
    context: dict[str, Any] = error.get("ctx", {})
    value: object = error["input"]
    if type_ in ("missing", "union_tag_not_found"):
        return "missing_required_parameter", f"Missing required parameter: '{param}'."
    if type_ == "union_tag_invalid":
        return "invalid_value", f"Invalid value: {context['tag']!r}. Supported values are: {context['expected_tags']}."
    if type_ in ("literal_error", "enum"):
        expected = str(context.get("expected", "")).replace(" or ", ", ")
        return "invalid_value", f"Invalid value: {_short(value)}. Supported values are: {expected}."
    if type_ in _LIMITS:
        code, limit = _LIMITS[type_]
        kind = "decimal" if any(isinstance(each, float) for each in (value, *context.values())) else "integer"
        return code.format(
            kind=kind
        ), f"Invalid '{param}': expected {limit.format(**context)}, but got {_short(value)}."
    if type_.endswith(("_type", "_parsing")) or type_ == "is_instance_of":
        got = next((name for kind, name in _NAMES if type(value) is kind), "null")
        is_object = type_ in ("model_type", "model_attributes_type", "dict_type", "dataclass_type")
        wanted = "an object" if is_object else error["msg"].removeprefix("Input should be ").replace(" valid ", " ")
        return "invalid_type", f"Invalid type for '{param}': expected {wanted}, but got {got} instead."
    return "invalid_value", f"Invalid '{param}': {error['msg'].removeprefix('Value error, ')}."


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
