"""What a model's server says over HTTP: server-sent events read as bytes, and one table of errors."""

from __future__ import annotations

import asyncio
import re
import time
from codecs import BOM_UTF8
from collections.abc import AsyncGenerator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, cast

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
from shared.models.base import Json
from shared.models.connections import Answer, Failed, NoAddress, NotConnected, NotTrusted, Patience, Pool, TimedOut

CONNECT_SECONDS = 5.0
SILENCE_SECONDS = 300.0
"""A reasoning model says nothing for minutes; a dead connection says nothing for ever."""
TOTAL_SECONDS = 600.0
LARGEST_BODY = 64 * 1024 * 1024
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
        self._pools: dict[asyncio.AbstractEventLoop, Pool] = {}

    async def post_stream(
        self, url: str, body: Json, headers: Mapping[str, str], *, deadline: float | None = None, setting: str = ""
    ) -> Answer:
        """The answer to a streamed POST once its status is known to be 200; the caller releases it.

        Raises:
            AssistantError: refused, failed or unreachable, as `status_error` and `connection_error` say.
        """
        total = self._total if deadline is None else min(deadline, self._total)
        patience = Patience(connect=self._connect, silence=self._silence, total=total)
        sent = {**_STREAM_HEADERS, **headers}
        try:
            answer = await self._pool().request("POST", url, sent, orjson.dumps(body), patience=patience)
        except Failed as exc:
            raise connection_error(exc) from exc
        if answer.status == 200 and answer.content_type != "application/json":
            return answer
        raise await _refusal(answer, setting)

    async def get_json(self, url: str, headers: Mapping[str, str], *, seconds: float = 15.0, setting: str = "") -> Json:
        """A small JSON object.

        Raises:
            AssistantError: refused, failed, unreachable or not a JSON object.
        """
        return await self._json("GET", url, b"", {**_HEADERS, **headers}, seconds=seconds, setting=setting)

    async def post_json(
        self, url: str, body: Json, headers: Mapping[str, str], *, seconds: float = 15.0, setting: str = ""
    ) -> Json:
        """A small JSON object for another. Raises as `get_json` does."""
        sent = {**_HEADERS, "Content-Type": "application/json", **headers}
        return await self._json("POST", url, orjson.dumps(body), sent, seconds=seconds, setting=setting)

    async def close(self) -> None:
        """Close this loop's connections; a later call opens new ones."""
        pool = self._pools.pop(asyncio.get_running_loop(), None)
        if pool is not None:
            await pool.close()

    def _pool(self) -> Pool:
        loop = asyncio.get_running_loop()
        pool = self._pools.get(loop)
        if pool is None:
            for ended in [one for one in self._pools if one.is_closed()]:
                del self._pools[ended]
            pool = self._pools[loop] = Pool()
        return pool

    async def _json(
        self, method: str, url: str, body: bytes, headers: Mapping[str, str], *, seconds: float, setting: str
    ) -> Json:
        patience = Patience(connect=self._connect, silence=seconds, total=seconds)
        try:
            answer = await self._pool().request(method, url, headers, body, patience=patience)
            payload = await _whole(answer)
        except Failed as exc:
            raise connection_error(exc) from exc
        if answer.status != 200:
            raise status_error(answer.status, answer.headers, payload, setting=setting)
        return read_object(payload)


async def _whole(answer: Answer) -> bytes:
    try:
        return await answer.read(LARGEST_BODY)
    finally:
        answer.release()


# Compressing a token stream only delays it.
_HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "companion"}
_STREAM_HEADERS = {**_HEADERS, "Content-Type": "application/json", "Accept": "text/event-stream"}


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
        return _payloads(self._whole(data))

    def flush(self) -> list[bytes]:
        """What the stream ended with, where its last event lacks the blank line."""
        block, self._rest = bytes(self._rest), bytearray()
        return _payloads(block)

    def _whole(self, data: bytes) -> bytes:
        """The events that became whole with these bytes, without the last blank line."""
        if self._held_return or b"\r" in data:
            data = self._plain_newlines(data)
        if self._rest:
            return self._feed_rest(data)
        end = data.rfind(b"\n\n")
        if end < 0:
            self._rest += data
            return b""
        if end + 2 < len(data):
            self._rest += data[end + 2 :]
            self._searched = 0
        return data[:end]

    def _feed_rest(self, data: bytes) -> bytes:
        rest = self._rest
        rest += data
        end = rest.rfind(b"\n\n", self._searched)
        if end < 0:
            if len(rest) > LONGEST_EVENT:
                raise UpstreamError(UNREADABLE)
            self._searched = len(rest) - 1
            return b""
        whole = bytes(rest[:end])
        del rest[: end + 2]
        self._searched = 0
        return whole

    def _plain_newlines(self, data: bytes) -> bytes:
        r"""`\r\n` and `\r` become `\n`; a `\r` at the end waits for what follows it."""
        if self._held_return:
            data = b"\r" + data
        self._held_return = data.endswith(b"\r")
        if self._held_return:
            data = data[:-1]
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


_SEAM = b"\n\ndata: "


def _payloads(blocks: bytes) -> list[bytes]:
    if blocks.startswith(b"data: "):
        payloads = blocks[6:].split(_SEAM)
        if blocks.count(b"\n") == 2 * len(payloads) - 2 and b"" not in payloads:
            return payloads  # no other line breaks: each event is one line of `data:`, as nearly all are
    payloads: list[bytes] = []
    # Some servers begin with a byte order mark, which is no part of the first line.
    for block in blocks.removeprefix(BOM_UTF8).split(b"\n\n"):
        if block.startswith(b"data: ") and b"\n" not in block:
            payload = block[6:]
        else:
            payload = b"\n".join([_field(line) for line in block.split(b"\n") if line.startswith(b"data:")])
        if payload:
            payloads.append(payload)
    return payloads


def _field(line: bytes) -> bytes:
    return line[6:] if line.startswith(b"data: ") else line[5:]


async def sse_data(answer: Answer) -> AsyncGenerator[list[bytes]]:
    """The payloads of a streamed answer, a list for each read of the socket, up to `[DONE]` or its end.

    Closing the generator ends the call: an answer that was left in the middle takes its connection with it.

    Raises:
        UpstreamError: the connection broke.
        ModelTimeout: silence for too long, or the deadline has passed.
    """
    parser = SseParser()
    is_done = False
    try:
        while data := await answer.read_any():
            payloads = parser.feed(data)
            del data  # not kept while its reader rests
            if b"[DONE]" in payloads:
                is_done = True
                yield payloads[: payloads.index(b"[DONE]")]
                return
            if payloads:
                yield payloads
        rest = parser.flush()
        if rest and rest != [b"[DONE]"]:
            yield rest
    except Failed as exc:
        raise stream_error(exc) from exc
    finally:
        answer.release(is_done=is_done)


class Halves:
    r"""Payloads of a server that cuts its words in the middle of a character: JSON has half of it in each of two.

    >>> halves = Halves()
    >>> halves.join(rb'{"content": "a\ud83d"}'), halves.join(rb'{"content": "\ude42b"}')
    (b'{"content": "a"}', b'{"content": "\\ud83d\\ude42b"}')
    """

    __slots__ = ("_half",)

    def __init__(self) -> None:
        self._half = b""

    def join(self, payload: bytes) -> bytes:
        """Of a payload that is not valid as it came: with the half before it, without the half that it ends with."""
        half, self._half = self._half, b""
        if half:
            payload = _SECOND_HALF.sub(lambda found: b'"' + half + found[1], payload)
        first = _FIRST_HALF.search(payload)
        if first is not None:
            self._half = first[1]
            payload = _FIRST_HALF.sub(b'"', payload)
        return payload


_FIRST_HALF = re.compile(rb'(\\u[dD][89abAB][0-9a-fA-F]{2})"')
_SECOND_HALF = re.compile(rb'"(\\u[dD][c-fC-F][0-9a-fA-F]{2})')


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


def connection_error(exc: Failed) -> AssistantError:
    """What a failure before the first byte of an answer means."""
    match exc:
        case NoAddress():
            return UpstreamError(
                "The model's server has no usable address or key; the operator should check OPENAI_BASE_URL and"
                " OPENAI_API_KEY."
            )
        case TimedOut():
            return ModelTimeout("The model's server did not answer in time; try again.")
        case NotTrusted():
            return UpstreamError(
                "The model's server shows a certificate that is not trusted; the operator should check OPENAI_BASE_URL,"
                " or name the certificate's issuer in SSL_CERT_FILE."
            )
        case NotConnected():
            return ModelUnavailable("The model's server cannot be connected to; try again later.")
        case _:
            return ModelUnavailable("The model's server cannot be reached; try again later.")


def stream_error(exc: Failed) -> AssistantError:
    """What a failure in the middle of an answer means."""
    if isinstance(exc, TimedOut):
        return ModelTimeout("The model's server stopped in the middle of its answer; try again.")
    return UpstreamError(CUT, code="upstream_cut")


async def _refusal(answer: Answer, setting: str) -> AssistantError:
    try:
        payload = await _whole(answer)
    except Failed as exc:
        return stream_error(exc)
    if answer.status != 200:
        return status_error(answer.status, answer.headers, payload, setting=setting)
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
