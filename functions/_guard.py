"""What stands before either web extension's catch-all, and closes what they leave open.

The host sends each request twice: over HTTP, and as an invocation; an id joins both in the runtime's coordinator.
The guard answers 400 when that id cannot join anything and 503 where the host is full, renders what escapes the
catch-all in the error envelope, and takes the coordinator's entry away when the response is done (the runtime never
does).
"""

import asyncio
import re
import sys
from collections.abc import Callable, MutableMapping
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from functions._errors import error_response, new_request_id
from functions._shed import refusal
from shared.errors import InvalidRequest

HEADER = b"x-ms-invocation-id"
UNCLAIMED = 60.0
"""Seconds after which a request that no invocation has asked for is answered; a forged id would wait forever."""

ANSWERED = "companion.answered"
"""In the scope of a request that was refused before its invocation came; called where none will come."""

_REFUSED = Request({"type": "http", ANSWERED: True})
"""What the invocation of a refused request gets for it."""
_HERE = asyncio.Event()

_PLAUSIBLE = re.compile(rb"[0-9A-Fa-f-]{32,36}")


type Entries = MutableMapping[str, Any]
"""The coordinator's: one per invocation id, holding the request, the response and an event for each."""


def entries_of(catch_all: Callable[..., Any]) -> Entries:
    """The entries of the runtime that made this catch-all; the runtime has no public way to let one go."""
    coordinator = sys.modules[catch_all.__module__].http_coordinator
    return coordinator._context_references


class Guard:
    """An ASGI app around a web extension's."""

    def __init__(self, app: ASGIApp, entries: Entries) -> None:
        self._app = app
        self._entries = entries
        self.answered: dict[str, float] = {}
        """By invocation id, oldest first: when to stop waiting for the invocation of a request that was refused."""
        self._sweeper: asyncio.TimerHandle | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        id_ = self._invocation_id(scope)
        if id_ is None:
            wrong = InvalidRequest(f"The {HEADER.decode()} header must be set once, by the Functions host.")
            await error_response(wrong, new_request_id())(scope, receive, send)
            return
        full = refusal(scope)
        if full is not None:
            self._need_no_invocation(scope, id_)
            await send({"type": "http.response.start", "status": full.status, "headers": full.headers})
            await send({"type": "http.response.body", "body": full.body})
            return
        progress = _Progress(self, id_, send)
        try:
            await self._app(scope, receive, progress.send)
        except asyncio.CancelledError:
            self._abandon(id_)
            raise
        except Exception as exc:
            if progress.is_begun and not progress.is_done:
                raise
            if not progress.is_begun:
                await error_response(exc, new_request_id())(scope, receive, progress.send)
        finally:
            progress.begin()

    def _invocation_id(self, scope: Scope) -> str | None:
        """The id of this request; None when there is none, or not one, or one that another request is using."""
        ids = [value for name, value in scope["headers"] if name == HEADER]
        if len(ids) != 1 or not _PLAUSIBLE.fullmatch(ids[0]):
            return None
        id_ = ids[0].decode()
        entry = self._entries.get(id_)
        return id_ if entry is None or not entry.http_request_available_event.is_set() else None

    def expire(self, id_: str) -> None:
        entry = self._entries.get(id_)
        if entry is not None and entry.http_request is not None:
            entry.http_response = InvalidRequest("No invocation came for this request.")

    def _abandon(self, id_: str) -> None:
        """The server gave up waiting, the handler has not: its answer must find an entry, and take it away."""
        entry = self._entries.get(id_)
        if entry is not None and not entry.http_response_available_event.is_set():
            self._entries[id_] = _Unread(
                entry.http_request, entry.http_request_available_event, partial(self._let_go, id_)
            )

    def _need_no_invocation(self, scope: Scope, id_: str) -> None:
        """Its invocation, which may be here, or come, or not, finds a request that was answered, and ends."""
        entry = self._entries.get(id_)
        is_here = _HERE if entry is None else entry.http_request_available_event
        is_here.set()
        let_go = scope[ANSWERED] = partial(self._let_go, id_)
        self._entries[id_] = _Unread(_REFUSED, is_here, let_go)
        loop = asyncio.get_running_loop()
        if self._sweeper is None:
            self._sweeper = loop.call_later(UNCLAIMED, self._sweep)
        self.answered[id_] = loop.time() + UNCLAIMED

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        for id_ in [id_ for id_, until in self.answered.items() if until <= loop.time()]:
            self._let_go(id_)
        oldest = next(iter(self.answered.values()), None)
        self._sweeper = loop.call_at(oldest, self._sweep) if oldest is not None else None

    def _let_go(self, id_: str) -> None:
        self.answered.pop(id_, None)
        self._entries.pop(id_, None)

    def forget(self, id_: str) -> None:
        if not isinstance(self._entries.get(id_), _Unread):
            self._entries.pop(id_, None)


class _Progress:
    """Knows how far the response has come; once it has begun, nothing of its invocation is kept."""

    __slots__ = ("_expiry", "_guard", "_id", "_send", "is_done")

    def __init__(self, guard: Guard, id_: str, send: Send) -> None:
        self._guard = guard
        self._id = id_
        self._send = send
        self._expiry: asyncio.TimerHandle | None = asyncio.get_running_loop().call_later(UNCLAIMED, guard.expire, id_)
        self.is_done = False

    @property
    def is_begun(self) -> bool:
        return self._expiry is None

    def begin(self) -> None:
        expiry, self._expiry = self._expiry, None
        if expiry is not None:
            expiry.cancel()
            self._guard.forget(self._id)

    async def send(self, message: Message) -> None:
        self.begin()
        self.is_done = message["type"] == "http.response.body" and not message.get("more_body", False)
        await self._send(message)


class _Unread:
    """Stands in for a coordinator entry whose response nobody waits for."""

    def __init__(self, request: object, is_available: asyncio.Event, let_go: Callable[[], None]) -> None:
        self.http_request = request
        self.http_request_available_event = is_available
        self._let_go = let_go

    @property
    def http_response(self) -> None:
        return None

    @http_response.setter
    def http_response(self, _: object) -> None:
        self._let_go()
