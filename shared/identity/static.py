"""Callers known without asking anybody: by the operator's static keys, or because they sit at this machine."""

import hashlib
import hmac
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import urlsplit

from shared.errors import PermissionDenied, Unauthenticated
from shared.principal import Principal
from shared.settings import CallerSettings

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


def identify(settings: CallerSettings, headers: Mapping[str, str]) -> Principal:
    """The caller behind these headers (names in lower case).

    Static keys, when there are any, are the only way in; without them the local owner is, on the local machine.

    Raises:
        Unauthenticated: no credential, or one that is not known.
        PermissionDenied: the local owner's browser, but led here by another site.
    """
    if settings.api_keys:
        return _by_static_key(settings, bearer(headers))
    if settings.local_owner:
        _require_same_machine(headers)
        return Principal(owner=settings.local_owner, plan="local")
    raise Unauthenticated("No way to sign in is set up here; see COMPANION_API_KEYS.")


def bearer(headers: Mapping[str, str]) -> str:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated(
            "You didn't provide an API key. Provide it in an Authorization header: `Authorization: Bearer YOUR_KEY`."
        )
    return token.strip()


def _by_static_key(settings: CallerSettings, key: str) -> Principal:
    """Every key is compared, by digest, so that the time taken tells nothing about any of them."""
    digest = hashlib.sha256(key.encode()).digest()
    owner = None
    for known, known_owner in _digests(tuple(settings.api_keys.items())):
        if hmac.compare_digest(known, digest):
            owner = known_owner
    if owner is None:
        raise Unauthenticated(f"Incorrect API key provided: {masked(key)}.")
    return Principal(owner=owner, plan="static")


@lru_cache(maxsize=4)
def _digests(pairs: tuple[tuple[str, str], ...]) -> tuple[tuple[bytes, str], ...]:
    return tuple((hashlib.sha256(key.encode()).digest(), owner) for key, owner in pairs)


def masked(key: str) -> str:
    """Enough to recognise one's own key by, as OpenAI shows it."""
    return f"{key[:3]}{'*' * 8}{key[-4:]}" if len(key) >= 12 else "*" * 8


def _require_same_machine(headers: Mapping[str, str]) -> None:
    """A key is not asked for here, so a web page elsewhere must not get in through the owner's browser."""
    if _hostname(f"//{headers.get('host', '')}") not in _LOOPBACK:
        raise PermissionDenied("The local owner is served under a loopback name only, such as 127.0.0.1.")
    origin = headers.get("origin")
    if origin is not None and _hostname(origin) not in _LOOPBACK:
        raise PermissionDenied(f"Pages of {origin!r} may not use the local owner's data.")


@lru_cache(maxsize=64)
def _hostname(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
