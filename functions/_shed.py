"""Refusing a turn before anything is done for it: where the host is full, and the caller was here a moment ago.

An edge that begins turns remembers who asked it with which credential. So the guard knows, of the next request like it,
whose it is and that it would ask for a place; where the gate would refuse it, it is answered before the runtime hears
of it. That costs a small part of what the way through runtime and edge costs, and four refusals for each turn must
leave the turns their time. Nobody gains anything by it: whoever is not known goes the long way, and what is remembered
can refuse, never admit.
"""

import hashlib
import secrets
import time
from collections.abc import Callable
from typing import NamedTuple

from starlette.datastructures import Headers
from starlette.types import Scope

from functions._errors import error_response, new_request_id
from functions._headers import complete
from shared.errors import ModelUnavailable
from shared.settings import HttpSettings

SECONDS = 5.0
"""How long a caller is remembered: a key may be revoked."""
MOST = 4096

CHECKED = "companion.checked"
"""In the scope of a request that was not refused, what the check gave. It is not refused later, when that would cost
more and take longer."""

_SALT = secrets.token_bytes(16)
_DIGEST = "companion.digest"
"""In the scope of a request: what `_digest` gave."""


class _Caller(NamedTuple):
    check: Callable[[], int]
    """`Gate.check` for this caller."""
    settings: HttpSettings
    until: float


callers: dict[bytes, _Caller] = {}
"""By digest of route and credential; the one seen last comes last."""


class Refusal(NamedTuple):
    """An answer as it is sent."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


_answers: dict[tuple[float | None, str | None, bool], Refusal] = {}
"""By what they depend on: when to come back, the page's origin, whether it was asked by HTTPS."""


def remember(scope: Scope, check: Callable[[], int], settings: HttpSettings) -> None:
    """Of a request that a shedding edge takes: how to find out whether the next one like it will be refused."""
    digest = _digest(scope)
    if digest is None:
        return
    callers.pop(digest, None)
    callers[digest] = _Caller(check, settings, time.monotonic() + SECONDS)
    if len(callers) > MOST:
        del callers[next(iter(callers))]


def forget() -> None:
    callers.clear()
    _answers.clear()


def refusal(scope: Scope) -> Refusal | None:
    """The answer to a request that its edge would refuse for want of a place; None: ask the edge."""
    caller = _caller(scope)
    if caller is None or caller.until < time.monotonic():
        return None
    try:
        scope[CHECKED] = caller.check()
    except ModelUnavailable as full:
        return _answer(full, caller.settings, Headers(scope=scope))
    return None


def _answer(full: ModelUnavailable, settings: HttpSettings, asked: Headers) -> Refusal:
    """Made once for all that are alike: they differ in their request id only."""
    origin = asked.get("origin")
    is_https = asked.get("x-forwarded-proto") == "https"
    alike = (full.retry_after, origin if origin in settings.cors_origins else None, is_https)
    made = _answers.get(alike)
    if made is None:
        if len(_answers) > MOST:
            _answers.clear()
        answer = complete(error_response(full, ""), asked, settings, seconds=0)
        others = [(name, value) for name, value in answer.raw_headers if name != b"x-request-id"]
        made = _answers[alike] = Refusal(answer.status_code, others, bytes(answer.body))
    return made._replace(headers=[(b"x-request-id", new_request_id().encode()), *made.headers])


def _caller(scope: Scope) -> _Caller | None:
    if not callers:
        return None
    digest = _digest(scope)
    return callers.get(digest) if digest is not None else None


def _digest(scope: Scope) -> bytes | None:
    """None: not by a bearer token, or not by one alone."""
    if _DIGEST not in scope:
        scope[_DIGEST] = _digest_of(scope)
    return scope[_DIGEST]


def _digest_of(scope: Scope) -> bytes | None:
    given = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(given) != 1:
        return None
    scheme, _, token = given[0].partition(b" ")
    if scheme.lower() != b"bearer" or not token.strip():
        return None
    asked = f"{scope['method']} {scope['path']} ".encode()
    return hashlib.blake2b(asked + token, digest_size=16, key=_SALT).digest()
