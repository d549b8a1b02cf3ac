"""Server-sent events: chunks to the socket as they come, a comment line in silence, an event for a late error.

One task beside the response's own (it waits for the client to leave) and one timer per heartbeat, however many events
there are: what an open stream costs is a budget.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping
from types import CoroutineType
from typing import Any

import orjson
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from functions._errors import Restarting, as_assistant_error, error_response
from shared.errors import AssistantError

HEARTBEAT = b": heartbeat\n\n"
DONE = b"data: [DONE]\n\n"
"""The last line of every stream, whether it ended well or broke."""

_HEADERS: list[tuple[bytes, bytes]] = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]
_END: Message = {"type": "http.response.body", "body": DONE, "more_body": False}
_SEQUENCE_NUMBER = re.compile(rb'"sequence_number": ?(\d+)')

type RenderError = Callable[[AssistantError, int], bytes]
"""What a stream that broke says last: from the error and the next sequence number."""


def error_event(error: AssistantError, sequence_number: int) -> bytes:
    """An `error` event as Responses clients expect it: flat for those that yield it, nested for those that raise."""
    nested = error.body()["error"]
    event = {
        "type": "error",
        "sequence_number": sequence_number,
        "message": error.message,
        "code": error.code,
        "param": error.param,
        "error": nested,
    }
    return b"event: error\ndata: " + orjson.dumps(event) + b"\n\n"


def sse_response(
    source: AsyncIterator[bytes],
    *,
    heartbeat: float,
    headers: Mapping[str, str] | None = None,
    on_error: RenderError = error_event,
) -> Response:
    """A response that sends each chunk of `source` in one write, at once, and `[DONE]` with the stream's end.

    After `heartbeat` seconds of silence it sends a comment line. An error before the first chunk is an ordinary error
    answer; a later one is rendered by `on_error` and the stream ends properly. When the client leaves, whatever
    `source` is waiting for is cancelled and `source` is closed: so it must watch its turn, not be it.
    """
    return EventStream(source, heartbeat=heartbeat, headers=headers, on_error=on_error)


class EventStream(Response):
    """See `sse_response`."""

    def __init__(
        self,
        source: AsyncIterator[bytes],
        *,
        heartbeat: float,
        headers: Mapping[str, str] | None,
        on_error: RenderError,
    ) -> None:
        self.status_code = 200
        self.background = None
        self.source = source
        self.heartbeat = heartbeat
        self.on_error = on_error
        self.raw_headers = _HEADERS + [
            (name.lower().encode(), value.encode()) for name, value in (headers or {}).items()
        ]

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> CoroutineType[Any, Any, None]:
        return _Delivery(self, scope, send).run(receive)

    def forget_headers(self) -> list[tuple[bytes, bytes]]:
        """All of them, once: a stream is open for long, and what it is still asked for is its id."""
        headers = self.raw_headers
        self.raw_headers = [pair for pair in headers if pair[0] == b"x-request-id"]
        return headers

    @property
    def request_id(self) -> str:
        return next((value.decode() for name, value in self.raw_headers if name == b"x-request-id"), "")


class _Delivery:
    """One run of a stream to one client."""

    __slots__ = (
        "beat",
        "has_left",
        "is_done",
        "is_sending",
        "is_started",
        "last",
        "loop",
        "response",
        "scope",
        "send",
        "task",
        "timer",
        "written",
    )

    def __init__(self, response: EventStream, scope: Scope, send: Send) -> None:
        self.response = response
        self.scope = scope
        self.send = send
        self.is_started = self.is_sending = self.is_done = self.has_left = False
        self.last = b""
        self.beat: asyncio.Task[None] | None = None

    async def run(self, receive: Receive) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.task = task
        self.loop = asyncio.get_running_loop()
        self.written = self.loop.time()
        self.timer = self.loop.call_later(self.response.heartbeat, self._tick)
        watcher = self.loop.create_task(self._watch(receive))
        try:
            await self._deliver()
        except OSError:
            pass  # how some servers say that the client has left
        except asyncio.CancelledError:
            if not self.has_left or task.cancelling() > 1:
                await self._break_off()
                raise
        finally:
            if self.has_left:
                task.uncancel()
            self.timer.cancel()
            watcher.cancel()
            if self.beat is not None:
                self.beat.cancel()
            await _close(self.response.source)

    async def _deliver(self) -> None:
        source = aiter(self.response.source)
        while not self.has_left:
            try:
                chunk = await anext(source)
            except StopAsyncIteration:
                break
            except Exception as exc:
                if not self.is_started:
                    await self._refuse(exc)
                    return
                await self._write(self._last_words(exc))
                break
            self.last = chunk
            await self._write(chunk)
        if not self.is_started:
            await self._write(b"")
        if self.beat is not None:
            await self.beat
        self.is_done = self.is_sending = True  # no heartbeat behind the end
        await self.send(_END)

    async def _write(self, chunk: bytes) -> None:
        if self.beat is not None:
            await self.beat  # never two sends at once
        await self._send_now(chunk)

    async def _send_now(self, chunk: bytes) -> None:
        self.is_sending = True
        try:
            if not self.is_started:
                self.is_started = True
                headers = self.response.forget_headers()
                await self.send({"type": "http.response.start", "status": 200, "headers": headers})
            await self.send({"type": "http.response.body", "body": chunk, "more_body": True})
        finally:
            self.is_sending = False
            self.written = self.loop.time()

    async def _refuse(self, exc: Exception) -> None:
        """Nothing was sent yet, so the failure can still be a status."""
        response = error_response(exc, self.response.request_id)
        taken = {name for name, _ in response.raw_headers} | {name for name, _ in _HEADERS}
        response.raw_headers += [pair for pair in self.response.raw_headers if pair[0] not in taken]
        self.is_done = True
        await response(self.scope, _never, self.send)

    async def _break_off(self) -> None:
        """The server is going down: a stream must not end without a word."""
        if self.is_started and not self.is_done and not self.has_left:
            await self._send_now(self._last_words(Restarting("This server is restarting; resume the stream.")))
            self.is_done = True
            await self.send(_END)

    def _last_words(self, exc: Exception) -> bytes:
        numbers = _SEQUENCE_NUMBER.findall(self.last)
        error = as_assistant_error(exc, self.response.request_id)
        return self.response.on_error(error, int(numbers[-1]) + 1 if numbers else 0)

    def _tick(self) -> None:
        """Re-armed once per heartbeat instead of once per chunk."""
        wait = self.written + self.response.heartbeat - self.loop.time()
        if wait <= 0.001:
            wait = self.response.heartbeat
            if not self.is_sending and self.beat is None:
                self.beat = self.loop.create_task(self._beat())
        self.timer = self.loop.call_later(wait, self._tick)

    async def _beat(self) -> None:
        try:
            await self._send_now(HEARTBEAT)
        except OSError:
            pass
        finally:
            self.beat = None

    async def _watch(self, receive: Receive) -> None:
        """Stop the delivery when the client leaves."""
        while (await receive())["type"] != "http.disconnect":
            pass
        if not self.is_done:
            self.has_left = True
            self.task.cancel()


async def _never() -> Message:
    raise AssertionError("an error answer reads nothing")


async def _close(source: Any) -> None:
    """Iterators need not have `aclose`; generators do."""
    aclose = getattr(source, "aclose", None)
    if aclose is not None:
        await aclose()
