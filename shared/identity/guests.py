"""Guests: a signed token stands for an owner that nobody signed in as."""

import base64
import binascii
import hashlib
import hmac
from typing import NamedTuple

from shared.clock import Clock
from shared.errors import Unauthenticated
from shared.identity.records import GuestRecord
from shared.principal import Principal
from shared.settings import Secret
from shared.storage.base import DIRECTORY, Store

PREFIX = "cg_"
LIFETIME = 30 * 86_400
"""Seconds a guest token is good for."""


class Guest(NamedTuple):
    owner: str
    expires_at: int


def issue(secret: Secret, token: str, *, now: float) -> tuple[str, Guest]:
    """A token for a new guest, whose owner id is `guest_<token>`."""
    guest = Guest(f"guest_{token}", int(now) + LIFETIME)
    payload = f"{guest.owner}.{guest.expires_at}"
    return f"{PREFIX}{_encoded(payload.encode())}.{_encoded(_signature(secret, payload))}", guest


def read(secret: Secret, token: str, *, now: float) -> Guest:
    """The guest a token stands for.

    Raises:
        Unauthenticated: it is not ours, was changed, or has expired.
    """
    encoded, _, signature = token.removeprefix(PREFIX).partition(".")
    try:
        payload, given = _decoded(encoded).decode(), _decoded(signature)
    except (ValueError, binascii.Error):
        raise _refused() from None
    if not hmac.compare_digest(given, _signature(secret, payload)):
        raise _refused()
    owner, _, expires = payload.partition(".")
    guest = Guest(owner, int(expires))
    if guest.expires_at <= now:
        raise _refused()
    return guest


async def principal_of_guest(store: Store, clock: Clock, secret: Secret, token: str) -> Principal:
    """Raises `Unauthenticated` also for a guest who has signed in meanwhile: the data is the account's now."""
    guest = read(secret, token, now=clock.now())
    if await find_adoption(store, guest.owner) is not None:
        raise Unauthenticated("This guest has signed in; use the account.", code="guest_adopted")
    return Principal(owner=guest.owner, plan="guest", is_guest=True)


async def find_adoption(store: Store, guest: str) -> GuestRecord | None:
    stored = await store.read(DIRECTORY, guest, guest)
    return GuestRecord.model_validate(stored.body) if stored else None


def _signature(secret: Secret, payload: str) -> bytes:
    return hmac.digest(secret.reveal().encode(), b"companion-guest:" + payload.encode(), hashlib.sha256)


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decoded(text: str) -> bytes:
    if len(text) > 512:
        raise ValueError("too long")
    data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    if _encoded(data) != text:
        raise ValueError("not the one way to write it")
    return data


def _refused() -> Unauthenticated:
    return Unauthenticated("The guest token cannot be accepted; ask for a new one.")
