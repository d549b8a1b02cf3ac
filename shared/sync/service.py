"""Delta sync: what changed since a token. The store knows the order; here is what a token is good for.

A token names the life of the data it was given for. Once everything was erased, or where it is another owner's, nothing
can be said about what changed since: whoever asks begins again, and so has the same copy as everybody.
"""

from contextlib import suppress

from shared.app import App
from shared.conversations.records import Tombstone
from shared.errors import InvalidRequest
from shared.storage.base import STATE, AlreadyExists, Changed, Create
from shared.sync.records import SYNC, SyncRecord

MAX_TOKEN = 4096
KEPT_SECONDS = float(Tombstone.model_fields["ttl"].default)
"""How long deletions are told of."""


async def changes_since(app: App, owner: str, *, since: str | None, limit: int) -> Changed:
    """The owner's records that changed, oldest first, each in its latest form.

    Raises:
        InvalidRequest: the token is not one of this owner's, or too old.
    """
    life, now = await life_of(app, owner), int(app.clock.now())
    inner: str | None = None
    if since is not None:
        named, _, rest = since.partition(".")
        at, _, inner = rest.partition(".")
        is_time = at.isascii() and at.isdecimal() and len(at) < 12
        if len(since) > MAX_TOKEN or named != life or not is_time or int(at) < now - KEPT_SECONDS:
            raise InvalidRequest(
                "This token is not, or no longer, one of yours; start again without one.",
                param="since",
                code="token_expired",
            )
    changed = await app.store.changes(STATE, owner, since=inner, limit=limit)
    return changed._replace(token=f"{life}.{now}.{changed.token}")


async def life_of(app: App, owner: str) -> str:
    """32 random digits that only the owner hears of, until everything is erased."""
    while True:
        stored = await app.store.read(STATE, owner, SYNC)
        if stored is not None:
            return SyncRecord.model_validate(stored.body).life
        with suppress(AlreadyExists):  # another host was faster
            record = SyncRecord(life=app.ids.token())
            await app.store.batch(STATE, owner, [Create(record.document())])
            return record.life
