"""HTTP to a model's server: pooled connections, server-sent events read as bytes, one table of errors.

Token streams go over aiohttp directly: a token costs a JSON parse and little else.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

import orjson

from shared.errors import (
    AssistantError,
    ContentBlocked,
    InvalidRequest,
    ModelTimeout,
    ModelUnavailable,
    RateLimited,
    UpstreamError,
)
from shared.lazy import lazy
from shared.models.base import Json

if TYPE_CHECKING:
    import aiohttp
else:
    aiohttp = lazy("aiohttp")

CONNECT_SECONDS = 5.0
SILENCE_SECONDS = 300.0
"""A reasoning model says nothing for minutes; a dead connection says nothing for ever."""
TOTAL_SECONDS = 600.0
KEEPALIVE_SECONDS = 30.0
MOST_CONNECTIONS = 2_000
DRAIN_SECONDS = 0.1
LONGEST_EVENT = 64 * 1024 * 1024

CUT = "The model's server ended its answer before it was finished; try again."
UNREADABLE = "The model's server answered something that cannot be read; try again."


class Transport:
    """Connections to models' servers: one pool per event loop, made on first use."""

    def __init__(
        self, *, connect: float = CONNECT_SECONDS, silence: float = SILENCE_SECONDS, total: float = TOTAL_SECONDS
    ) -> None:
        self._connect = connect
        self._silence = silence
        self._total = total
        self._sessions: WeakKeyDictionary[asyncio.AbstractEventLoop, aiohttp.ClientSession] = WeakKeyDictionary()

    async def post_stream(
        self, url: str, body: Json, headers: Mapping[str, str], *, deadline: float | None = None, setting: str = ""
    ) -> aiohttp.ClientResponse:
        """The answer to a streamed POST once its status is known to be 200; the caller closes it.

        Raises:
            AssistantError: refused, failed or unreachable, as `status_error` and `connection_error` say.
        """
        total = self._total if deadline is None else min(deadline, self._total)
        timeout = aiohttp.ClientTimeout(total=total, sock_connect=self._connect, sock_read=self._silence)
        payload = orjson.dumps(body)
        sent = {**_STREAM_HEADERS, **headers}
        try:
            response = await self._post(url, payload, sent, timeout)
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            raise connection_error(exc) from exc
        if response.status == 200 and response.content_type != "application/json":
            return response
        raise await _refusal(response, setting)

    async def get_json(self, url: str, headers: Mapping[str, str], *, seconds: float = 15.0, setting: str = "") -> Json:
        """A small JSON object.

        Raises:
            AssistantError: refused, failed, unreachable or not a JSON object.
        """
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=self._connect)
        try:
            async with self._session().get(url, headers=headers, timeout=timeout, allow_redirects=False) as response:
                payload = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            raise connection_error(exc) from exc
        if response.status != 200:
            raise status_error(response.status, response.headers, payload, setting=setting)
        return read_object(payload)

    async def post_json(
        self, url: str, body: Json, headers: Mapping[str, str], *, seconds: float = 15.0, setting: str = ""
    ) -> Json:
        """A small JSON object for another. Raises as `get_json` does."""
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=self._connect)
        sent = {"Content-Type": "application/json", **headers}
        try:
            response = await self._post(url, orjson.dumps(body), sent, timeout)
            async with response:
                payload = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            raise connection_error(exc) from exc
        if response.status != 200:
            raise status_error(response.status, response.headers, payload, setting=setting)
        return read_object(payload)

    async def close(self) -> None:
        """Close this loop's connections; a later call opens new ones."""
        session = self._sessions.pop(asyncio.get_running_loop(), None)
        if session is not None:
            await session.close()

    def _session(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        session = self._sessions.get(loop)
        if session is None:
            connector = aiohttp.TCPConnector(
                limit=MOST_CONNECTIONS, ttl_dns_cache=60, keepalive_timeout=KEEPALIVE_SECONDS
            )
            session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
            self._sessions[loop] = session
        return session

    async def _post(
        self, url: str, payload: bytes, headers: Mapping[str, str], limits: aiohttp.ClientTimeout
    ) -> aiohttp.ClientResponse:
        session = self._session()
        try:
            return await session.post(url, data=payload, headers=headers, timeout=limits, allow_redirects=False)
        except aiohttp.ServerDisconnectedError:
            # A pooled connection that the server had just let go of: no answer was begun, so ask once more.
            return await session.post(url, data=payload, headers=headers, timeout=limits, allow_redirects=False)


# Compressing a token stream only delays it.
_STREAM_HEADERS = {
    "Content-Type": "application/json",
    "Accept": "text/event-stream",
    "Accept-Encoding": "identity",
    "User-Agent": "companion",
}


# server-sent events


class SseParser:
    r"""Bytes in, payloads of whole events out; nothing is decoded.

    >>> parser = SseParser()
    >>> parser.feed(b"data: a\n\nda")
    [b'a']
    >>> parser.feed(b"ta: b\r\n\r\n")
    [b'b']
    """

    __slots__ = ("_held_return", "_rest", "_searched")

    def __init__(self) -> None:
        self._rest = bytearray()
        self._searched = 0
        self._held_return = False

    def feed(self, data: bytes) -> list[bytes]:
        """The payloads that became whole with these bytes.

        Raises:
            UpstreamError: an event is longer than any that makes sense.
        """
        if self._held_return or b"\r" in data:
            data = self._plain_newlines(data)
        if self._rest:
            return self._feed_rest(data)
        end = data.rfind(b"\n\n")
        if end < 0:
            self._rest += data
            return []
        if end + 2 < len(data):
            self._rest += data[end + 2 :]
            self._searched = 0
        return _payloads(data[:end])

    def flush(self) -> list[bytes]:
        """What the stream ended with, where its last event lacks the blank line."""
        block, self._rest = bytes(self._rest), bytearray()
        return _payloads(block)

    def _feed_rest(self, data: bytes) -> list[bytes]:
        rest = self._rest
        rest += data
        end = rest.rfind(b"\n\n", self._searched)
        if end < 0:
            if len(rest) > LONGEST_EVENT:
                raise UpstreamError(UNREADABLE)
            self._searched = len(rest) - 1
            return []
        whole = bytes(rest[:end])
        del rest[: end + 2]
        self._searched = 0
        return _payloads(whole)

    def _plain_newlines(self, data: bytes) -> bytes:
        r"""`\r\n` and `\r` become `\n`; a `\r` at the end waits for what follows it."""
        if self._held_return:
            data = b"\r" + data
        self._held_return = data.endswith(b"\r")
        if self._held_return:
            data = data[:-1]
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _payloads(blocks: bytes) -> list[bytes]:
    payloads: list[bytes] = []
    for block in blocks.split(b"\n\n"):
        if block.startswith(b"data: ") and b"\n" not in block:
            payload = block[6:]
        else:
            payload = b"\n".join([_field(line) for line in block.split(b"\n") if line.startswith(b"data:")])
        if payload:
            payloads.append(payload)
    return payloads


def _field(line: bytes) -> bytes:
    return line[6:] if line.startswith(b"data: ") else line[5:]


async def sse_data(response: aiohttp.ClientResponse) -> AsyncGenerator[list[bytes]]:
    """The payloads of a streamed answer, a list for each read of the socket, up to `[DONE]` or its end.

    Closing the generator ends the call: an answer that was left in the middle takes its connection with it.

    Raises:
        UpstreamError: the connection broke.
        ModelTimeout: silence for too long, or the deadline has passed.
    """
    parser = SseParser()
    content = response.content
    try:
        while data := await content.readany():
            payloads = parser.feed(data)
            if b"[DONE]" in payloads:
                yield payloads[: payloads.index(b"[DONE]")]
                await _drain(content)
                return
            if payloads:
                yield payloads
        rest = parser.flush()
        if rest and rest != [b"[DONE]"]:
            yield rest
    except (aiohttp.ClientError, TimeoutError, OSError) as exc:
        raise stream_error(exc) from exc
    finally:
        response.release()


async def _drain(content: aiohttp.StreamReader) -> None:
    """Read the last bytes of the body, so that its connection can be used again."""
    if content.at_eof():
        return
    try:
        async with asyncio.timeout(DRAIN_SECONDS):
            await content.readany()
    except (aiohttp.ClientError, TimeoutError, OSError):
        return  # the answer is whole; only the connection is not


def read_object(payload: bytes) -> Json:
    """A JSON object.

    Raises:
        UpstreamError: it is not one.
    """
    try:
        value = orjson.loads(payload)
    except orjson.JSONDecodeError as exc:
        raise UpstreamError(UNREADABLE) from exc
    if not isinstance(value, dict):
        raise UpstreamError(UNREADABLE)
    return cast(Json, value)


# errors


def connection_error(exc: BaseException) -> AssistantError:
    """What a failure before the first byte of an answer means."""
    if isinstance(exc, aiohttp.ConnectionTimeoutError):
        return ModelUnavailable("The model's server cannot be connected to; try again later.")
    if isinstance(exc, TimeoutError):
        return ModelTimeout("The model's server did not answer in time; try again.")
    if isinstance(exc, aiohttp.InvalidURL):
        return UpstreamError("The model's server has no usable address; the operator should check OPENAI_BASE_URL.")
    return ModelUnavailable("The model's server cannot be reached; try again later.")


def stream_error(exc: BaseException) -> AssistantError:
    """What a failure in the middle of an answer means."""
    if isinstance(exc, TimeoutError):
        return ModelTimeout("The model's server stopped in the middle of its answer; try again.")
    return UpstreamError(CUT, code="upstream_cut")


async def _refusal(response: aiohttp.ClientResponse, setting: str) -> AssistantError:
    try:
        payload = await response.read()
    except (aiohttp.ClientError, TimeoutError, OSError) as exc:
        return stream_error(exc)
    finally:
        response.release()
    if response.status != 200:
        return status_error(response.status, response.headers, payload, setting=setting)
    return payload_error(read_object(payload)) or UpstreamError("The model's server answered without streaming.")


def status_error(status: int, headers: Mapping[str, str], payload: bytes, *, setting: str = "") -> AssistantError:
    """The error an HTTP status and its body stand for. `setting` names what an operator would correct.

    | status | error |
    |---|---|
    | 400, 404, 413, 422 | `InvalidRequest` with the upstream's code and param; `ContentBlocked` by its filter |
    | 401, 403, 404 of a wrong address, redirects | `UpstreamError`: the operator's to mend |
    | 408, 504 | `ModelTimeout` |
    | 409, 429 | `RateLimited` with `retry_after`; `ModelUnavailable` when the account has no credit |
    | 502, 503, 529 | `ModelUnavailable` |
    | others | `UpstreamError` |
    """
    detail = _Detail.read(payload)
    if status in (401, 403):
        return UpstreamError(f"The model's server refused its credentials; the operator should check {setting}.")
    if status in (408, 504):
        return ModelTimeout("The model's server timed out; try again.", retry_after=retry_after(headers))
    if status in (409, 429):
        return _limited(detail, retry_after(headers))
    if status in (502, 503, 529):
        return ModelUnavailable(
            "The model's server refuses work for now; try again later.", retry_after=retry_after(headers)
        )
    if status == 404 and not detail.is_about_a_model:
        return UpstreamError("The model's server has no such address; the operator should check its base URL.")
    if status in (400, 404, 413, 422):
        return detail.refused()
    return UpstreamError(f"The model's server failed with status {status}; try again.")


def payload_error(payload: Json) -> AssistantError | None:
    """The error inside a payload that came with status 200, or None: `{"error": …}`, or an `error` event."""
    error: Any = payload.get("error")
    if payload.get("type") == "error" and not isinstance(error, dict):
        error = payload
    if not error:
        return None
    detail = _Detail.of(error)
    if detail.status is not None:
        return status_error(detail.status, {}, orjson.dumps({"error": error}))
    kind = f"{detail.code or ''} {detail.type or ''}"
    if "rate_limit" in kind or "insufficient_quota" in kind or "too_many_requests" in kind:
        return _limited(detail, None)
    if "context_length" in kind or "invalid" in kind or "content_filter" in kind or "content_policy" in kind:
        return detail.refused()
    if "overloaded" in kind or "unavailable" in kind:
        return ModelUnavailable("The model's server refuses work for now; try again later.")
    if "timeout" in kind:
        return ModelTimeout("The model's server timed out; try again.")
    return UpstreamError("The model's server failed in the middle of its answer; try again.")


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds to wait, from `retry-after-ms`, or `retry-after` as seconds or a date; None: not said."""
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    text = headers.get("retry-after")
    seconds = _number(text)
    if seconds is not None or not text:
        return seconds
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, date.timestamp() - (time.time() if now is None else now))


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text else None
    except ValueError:
        return None
    return value if value is not None and 0 <= value < 1e9 else None


def _limited(detail: _Detail, seconds: float | None) -> AssistantError:
    if detail.code == "insufficient_quota" or detail.type == "insufficient_quota":
        return ModelUnavailable("The operator's account with the model's server has no credit left.")
    return RateLimited("The model's server is asked too much for now; slow down.", retry_after=seconds)


class _Detail:
    """What an error body says, whichever of the known shapes it has."""

    __slots__ = ("code", "message", "param", "status", "type")

    def __init__(
        self, message: str, type_: str | None, param: str | None, code: str | None, status: int | None
    ) -> None:
        self.message = message
        self.type = type_
        self.param = param
        self.code = code
        self.status = status

    @classmethod
    def read(cls, payload: bytes) -> _Detail:
        try:
            body = orjson.loads(payload)
        except orjson.JSONDecodeError:
            body = payload[:500].decode(errors="replace")
        if isinstance(body, dict):
            body = cast(Json, body)
            return cls.of(body.get("error") or body.get("detail") or body)
        return cls.of(body)

    @classmethod
    def of(cls, error: Any) -> _Detail:
        if not isinstance(error, dict):
            text = error if isinstance(error, str) else orjson.dumps(error).decode()
            return cls(text[:1000], None, None, None, None)
        error = cast(Json, error)
        code, param, message = error.get("code"), error.get("param"), error.get("message")
        return cls(
            message if isinstance(message, str) else "",
            error["type"] if isinstance(error.get("type"), str) else None,
            param if isinstance(param, str) else None,
            code if isinstance(code, str) else None,
            code if isinstance(code, int) and 400 <= code < 600 else None,
        )

    @property
    def is_about_a_model(self) -> bool:
        return self.code in _MODEL_CODES or self.param == "model" or "model" in self.message.lower()

    def refused(self) -> InvalidRequest:
        """The request is at fault, and its maker is told what the upstream said."""
        message = self.message or "The model's server refused the request."
        if self.code in ("content_filter", "content_policy_violation"):
            return ContentBlocked(message, param=self.param)
        if self.code in _MODEL_CODES:
            return InvalidRequest(message, param="model", code="model_not_found")
        return InvalidRequest(message, param=self.param, code=self.code)


_MODEL_CODES = ("model_not_found", "DeploymentNotFound")
