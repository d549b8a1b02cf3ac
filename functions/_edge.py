"""The edge: what every HTTP function has in common, so that a handler only parses, calls and renders.

@blueprint.route("v1/responses", methods=["POST"])
@edge
async def create_response(request: Request, call: Call) -> Response:
    body = await read_json(request, call.app.settings.http.max_body)
    ...
"""

import asyncio
import gc
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, cast, get_args, overload

import orjson

from functions._errors import RequestTimeout, error_response, new_request_id
from functions._guard import ANSWERED
from functions._headers import complete
from functions._http import Request, Response
from functions._shed import CHECKED, forget, remember
from shared.errors import InvalidRequest, PayloadTooLarge, PermissionDenied
from shared.principal import Principal
from shared.settings import Settings
from shared.telemetry.logs import bind

if TYPE_CHECKING:
    from shared.app import App
    from shared.models.gate import Ticket

log = logging.getLogger("companion.http")

ANYONE = Principal(owner="", scopes=frozenset())
"""The principal of public edges: owns nothing, may do nothing."""

BODY = "companion.body"
"""Where the scope keeps the JSON that was read."""
_MAX_DEPTH = 100
_MAX_NODES = 200_000
"""Objects and arrays in one body: a few megabytes of brackets must not cost minutes."""
GARBAGE = 10_000
"""New objects after which the youngest are looked through; Python's own is 700 to 2,000."""
BODY_SECONDS = 60.0
"""How long a client may take to send a body."""
PLACE_SECONDS = 2.0
"""How long a turn's place is kept for it while its body has yet to come: slow clients keep no places from others."""
_READING = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Call:
    """What a handler knows besides the request."""

    app: "App"
    principal: Principal
    request_id: str
    """`req_…`, ours, never the client's; on the answer as `x-request-id`."""
    ticket: "Ticket | None" = None
    """Its place among the turns of this host, where the edge begins one."""


PUBLIC: set[str] = set()
"""Names of the functions that ask nobody who they are."""

type Handler = Callable[[Request, Call], Awaitable[Response]]
type Function = Callable[[Request], Coroutine[Any, Any, Response]]


@overload
def edge(handler: Handler, /) -> Function: ...
@overload
def edge(*, public: bool = False, scope: str | None = None, is_shed: bool = False) -> Callable[[Handler], Function]: ...
def edge(
    handler: Handler | None = None, /, *, public: bool = False, scope: str | None = None, is_shed: bool = False
) -> Function | Callable[[Handler], Function]:
    """Make a handler a function that the runtime can index: request id, principal, error body, headers.

    `public` edges ask nobody who they are and get `ANYONE` as principal. The others ask for a credential that may do
    this: `scope`, or else `read` for a GET and `chat` for the rest. `is_shed` ones begin a turn: they wait for a place,
    or are refused, before their body is read, so that refusals leave the host time to answer.
    """
    if handler is None:
        return partial(_function, public=public, scope=scope, is_shed=is_shed)
    return _function(handler, public=public, scope=scope, is_shed=is_shed)


def _function(handler: Handler, *, public: bool, scope: str | None, is_shed: bool) -> Function:
    async def run(req: Request) -> Response:
        if ANSWERED in req.scope:
            return Response()
        began = time.perf_counter()
        request_id = new_request_id()
        bind(request_id=request_id)
        app, ticket = None, None
        try:
            app = current_app()
            principal = ANYONE if public else await _authenticate(app, req)
            if not public:
                _require(principal, scope or ("read" if req.method in _READING else "chat"))
            if is_shed:
                gate = app.models.gate
                remember(req.scope, partial(gate.check, principal.owner), app.settings.http)
                ticket = await gate.enter(principal.owner, checked=req.scope.get(CHECKED))
                ticket.reserve(PLACE_SECONDS)
            response = await handler(req, Call(app, principal, request_id, ticket))
            response.raw_headers.append((b"x-request-id", request_id.encode()))
        except Exception as exc:
            response = error_response(exc, request_id, body=req.scope.get(BODY))
        finally:
            if ticket is not None and not ticket.is_held:
                ticket.leave()
        req.scope.pop(BODY, None)
        settings = app.settings.http if app is not None else None
        return complete(response, req.headers, settings, seconds=time.perf_counter() - began)

    if public:
        PUBLIC.add(handler.__name__)
    # Not functools.wraps: the runtime would follow __wrapped__ and ask for a binding named `call`.
    run.__name__ = handler.__name__
    run.__qualname__ = handler.__qualname__
    run.__module__ = handler.__module__
    run.__doc__ = handler.__doc__
    return run


def _require(principal: Principal, scope: str) -> None:
    if not principal.may(scope):
        raise PermissionDenied(f"This credential lacks the scope {scope!r}.", code="insufficient_scope")


async def _authenticate(app: "App", request: Request) -> Principal:
    from shared.identity.service import authenticate  # noqa: PLC0415 - loads with the first request

    return await authenticate(app, request.headers)


# the app


_app: "App | None" = None


def current_app() -> "App":
    """The app of this process, built on first use."""
    global _app  # noqa: PLW0603 - one app per process, however often the module is asked
    if _app is None:
        from shared.bootstrap import build_app  # noqa: PLC0415 - importing the edges must not load the adapters

        _app = build_app(Settings.read())
        _settle()
    return _app


def _settle() -> None:
    """What was imported stays: the collector neither looks at it again, nor looks after every few hundred objects.

    With 64 streams open that is a tenth of a streamed token's processor time.
    """
    gc.freeze()
    gc.set_threshold(GARBAGE, 10, 10)


@contextmanager
def override_app(app: "App") -> Generator["App"]:
    """For tests: this app instead, until the block ends. It is not closed."""
    global _app  # noqa: PLW0603
    before, _app = _app, app
    forget()
    try:
        yield app
    finally:
        _app = before
        forget()


async def close_app() -> None:
    """Let go of what the app holds, if there is one; the next call would build another."""
    global _app
    app, _app = _app, None
    forget()
    if app is not None:
        await app.close()


# bodies


async def read_json(request: Request, limit: int) -> dict[str, Any]:
    """The body, a JSON object of at most `limit` bytes.

    Raises:
        PayloadTooLarge: more bytes than that, announced or sent; the rest is not read.
        InvalidRequest: empty, not JSON, not an object, or nested too deeply.
    """
    content_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if content_type != "application/json" and not content_type.endswith("+json"):
        raise InvalidRequest(
            f"Unsupported content type: {content_type!r}. This API method only accepts 'application/json' requests.",
            code="unsupported_content_type",
        )
    data = _object(await read_body(request, limit))
    request.scope[BODY] = data  # what `invalid` needs to name the parameter; dropped when the handler returns
    return data


async def read_body(request: Request, limit: int) -> bytes:
    """The raw body.

    Raises:
        PayloadTooLarge: more than `limit` bytes.
        RequestTimeout: the client sends too slowly.
    """
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await _read_body(request, limit)
    except TimeoutError:
        raise RequestTimeout(f"The request body did not arrive within {BODY_SECONDS:.0f} seconds.") from None


async def _read_body(request: Request, limit: int) -> bytes:
    too_large = PayloadTooLarge(f"The request body is larger than {limit} bytes.")
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise too_large
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise too_large
        chunks.append(chunk)
    return b"".join(chunks)


def _object(raw: bytes) -> dict[str, Any]:
    if not raw.strip():
        raise InvalidRequest("The request body is empty; it must be a JSON object.", code="invalid_json")
    try:
        data: object = orjson.loads(raw)
    except orjson.JSONDecodeError as exc:
        raise InvalidRequest(f"The request body is not valid JSON: {exc}.", code="invalid_json") from None
    if not isinstance(data, dict):
        raise InvalidRequest("The request body must be a JSON object.", code="invalid_json")
    nodes = raw.count(b"{") + raw.count(b"[")
    if nodes > _MAX_NODES:
        raise InvalidRequest(f"The request body has more than {_MAX_NODES} objects and arrays.", code="invalid_json")
    if nodes > _MAX_DEPTH and _is_deeper(data, _MAX_DEPTH):
        raise InvalidRequest(f"The request body is nested more than {_MAX_DEPTH} levels deep.", code="invalid_json")
    return cast(dict[str, Any], data)


def _is_deeper(data: Any, limit: int) -> bool:
    level = [data]
    for _ in range(limit):
        level = [child for parent in level for child in _children(parent)]
        if not level:
            return False
    return True


def _children(parent: Any) -> list[Any]:
    children: list[Any] = [*parent.values()] if isinstance(parent, dict) else parent
    return [child for child in children if isinstance(child, (dict, list))]


def json_response(data: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(data), status_code=status, headers=headers, media_type="application/json")


# query parameters


def limit_param(request: Request, *, default: int = 20, most: int = 100) -> int:
    limit = _integer(request, "limit")
    if limit is None:
        return default
    if not 1 <= limit <= most:
        bound = "integer_below_min_value" if limit < 1 else "integer_above_max_value"
        raise InvalidRequest(
            f"Invalid 'limit': expected between 1 and {most}, but got {limit}.", param="limit", code=bound
        )
    return limit


def order_param(request: Request, *, default: Literal["asc", "desc"] = "desc") -> Literal["asc", "desc"]:
    match request.query_params.get("order"):
        case None | "":
            return default
        case "asc" | "desc" as order:
            return order
        case other:
            raise InvalidRequest(
                f"Invalid value: {other!r}. Supported values are: 'asc' and 'desc'.",
                param="order",
                code="invalid_value",
            )


def include_param(request: Request) -> list[str]:
    """`include[]=a&include[]=b`, as the official clients send it, or plain `include=a`."""
    asked = [*request.query_params.getlist("include[]"), *request.query_params.getlist("include")]
    from shared.wire.responses import Includable  # noqa: PLC0415 - its schemas are not every cold start's business

    known = get_args(Includable)
    unknown = [name for name in asked if name not in known]
    if unknown:
        supported = ", ".join(repr(name) for name in known)
        raise InvalidRequest(
            f"Invalid value: {unknown[0]!r}. Supported values are: {supported}.", param="include", code="invalid_value"
        )
    return asked


def starting_after_param(request: Request) -> int | None:
    """The sequence number behind which a stream is resumed."""
    return _integer(request, "starting_after")


def flag_param(request: Request, name: str, *, default: bool = False) -> bool:
    match request.query_params.get(name):
        case None | "":
            return default
        case "true" | "True" | "1":
            return True
        case "false" | "False" | "0":
            return False
        case other:
            raise InvalidRequest(
                f"Invalid type for {name!r}: expected a boolean, but got {other!r}.", param=name, code="invalid_type"
            )


def _integer(request: Request, name: str) -> int | None:
    text = request.query_params.get(name)
    if not text:
        return None
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal() and len(digits) < 16):
        raise InvalidRequest(
            f"Invalid type for {name!r}: expected an integer, but got {text!r}.", param=name, code="invalid_type"
        )
    return int(text)
