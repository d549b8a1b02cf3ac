"""Companion API keys: `ck_<prefix>_<secret>`. Shown once, stored as a digest, found by the prefix."""

import hashlib
import hmac
import secrets
from collections.abc import Sequence

from shared.clock import Clock
from shared.conversations.records import header_sort
from shared.errors import InvalidRequest, NotFound, PermissionDenied, Unauthenticated
from shared.identity.records import ApiKeyRecord, KeyEntry
from shared.identity.static import masked
from shared.principal import Principal
from shared.storage.base import DIRECTORY, STATE, Delete, Missing, Query, Store, Upsert

PREFIX = "ck_"
MAX_KEYS = 100
"""Of one owner."""

_NO_ENTRY = KeyEntry(id="", owner="", digest="0" * 64, scopes=[], plan="")


async def create_key(
    store: Store,
    clock: Clock,
    caller: Principal,
    *,
    token: str,
    name: str,
    scopes: Sequence[str],
    expires_at: float | None,
) -> tuple[ApiKeyRecord, str]:
    """A new key of the caller's. What was made under the same token, and never answered, is replaced.

    Returns:
        Its record, and the key itself, which nobody will see again.

    Raises:
        PermissionDenied: it would do more than the credential that asks for it.
        InvalidRequest: there are too many, or it would have expired already.
    """
    now = clock.now()
    if not all(caller.may(scope) for scope in scopes):
        raise PermissionDenied("A key cannot do more than the credential it is made with.", param="scopes")
    if expires_at is not None and expires_at <= now:
        raise InvalidRequest("'expires_at' must lie in the future.", param="expires_at", code="invalid_value")
    if len(await list_keys(store, caller.owner)) >= MAX_KEYS:
        raise InvalidRequest(f"There are {MAX_KEYS} keys already; delete one first.", code="too_many_keys")
    prefix, secret = token[:16], secrets.token_urlsafe(32).replace("_", "-")
    key = f"{PREFIX}{prefix}_{secret}"
    id_ = f"key_{prefix}"
    record = ApiKeyRecord(
        id=id_,
        sort=header_sort(now, prefix),
        name=name,
        scopes=sorted(scopes),
        plan=caller.plan,
        hint=key[-4:],
        created_at=now,
        expires_at=expires_at,
    )
    entry = KeyEntry(
        id=id_, owner=caller.owner, digest=_digest(key), scopes=record.scopes, plan=caller.plan, expires_at=expires_at
    )
    # The owner's record first: what works is always listed, so it can be taken back.
    await store.batch(STATE, caller.owner, [Upsert(record.document())])
    await store.batch(DIRECTORY, id_, [Upsert(entry.document())])
    return record, key


async def list_keys(store: Store, owner: str) -> list[ApiKeyRecord]:
    """Newest first."""
    found = await store.query(STATE, owner, Query(kind="api_key", order="desc", limit=MAX_KEYS))
    return [ApiKeyRecord.model_validate(stored.body) for stored in found]


async def get_key(store: Store, owner: str, id_: str) -> ApiKeyRecord:
    """Raises `NotFound`."""
    stored = await store.read(STATE, owner, id_)
    if stored is None or stored.body.get("kind") != "api_key":
        raise NotFound(f"API key with id {id_!r} not found.", param="key_id")
    return ApiKeyRecord.model_validate(stored.body)


async def revoke_key(store: Store, owner: str, id_: str) -> None:
    """From now on the key is unknown, on every host.

    Raises:
        NotFound: there is no such key.
    """
    await get_key(store, owner, id_)
    for container, partition in ((DIRECTORY, id_), (STATE, owner)):
        try:
            await store.batch(container, partition, [Delete(id_)])
        except Missing:
            continue


async def principal_of_key(store: Store, clock: Clock, key: str) -> Principal:
    """Raises `Unauthenticated` for a key that is unknown, revoked or expired: the same answer."""
    prefix, _, secret = key.removeprefix(PREFIX).partition("_")
    is_plausible = len(prefix) == 16 and prefix.isascii() and prefix.isalnum() and bool(secret) and len(key) < 200
    stored = await store.read(DIRECTORY, f"key_{prefix}", f"key_{prefix}") if is_plausible else None
    entry = KeyEntry.model_validate(stored.body) if stored and stored.body.get("kind") == "key_entry" else _NO_ENTRY
    is_right = hmac.compare_digest(entry.digest, _digest(key))
    if not is_right or (entry.expires_at is not None and entry.expires_at <= clock.now()):
        raise Unauthenticated(f"Incorrect API key provided: {masked(key)}.")
    return Principal(owner=entry.owner, scopes=frozenset(entry.scopes), plan=entry.plan)


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
