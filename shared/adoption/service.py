"""A guest signs in: everything of theirs becomes the account's, while a stream of theirs goes on.

The claim is a record of the directory under the guest's id: who makes it has the guest; from then on the guest's token
is refused, so nothing new begins there. Then every thread moves: its turns and its header are written in the account's
partition and deleted in the guest's, the header and what still runs in one batch each, so that a turn which ends
meanwhile ends in one place or the other: its commit finds nothing in the guest's partition, reads there where it went
(`moved`), and goes there (turns/ledger.py). Journals have the response's id as partition: they stay where they are.

Each step can be run again. A timer does so until nothing is found any more, some minutes after the claim.
"""

import logging
from collections.abc import Sequence

from shared.app import App
from shared.conversations.records import FINAL
from shared.errors import AssistantError, Conflict, InvalidRequest
from shared.identity import guests
from shared.identity.records import GuestRecord
from shared.ids import derived_token
from shared.principal import Principal
from shared.privacy.pages import everything
from shared.privacy.records import AdoptedRecord
from shared.storage.base import (
    DIRECTORY,
    KNOWLEDGE,
    STATE,
    AlreadyExists,
    BatchFailed,
    Create,
    Delete,
    Document,
    Missing,
    Replace,
    Stale,
    Stored,
    Upsert,
)
from shared.storage.mutate import Change, mutate
from shared.turns.ledger import MOVED
from shared.usage import meter
from shared.usage.records import Spent, UsageRecord

log = logging.getLogger("companion.privacy")

AGAIN_SECONDS = 60.0
SETTLED_SECONDS = 180.0
"""After so long nothing of the guest's can be under way that began before the claim."""
_ROUNDS = 20
_BATCH = 90
_STAYS = frozenset({"adopted", "tombstone", "data_job", "spent"})
"""Kinds that say nothing outside of their partition."""


async def adopt(app: App, caller: Principal, guest_token: str) -> int:
    """Make the guest's data the caller's. The same again is the same.

    Returns:
        How many records moved now.

    Raises:
        Unauthenticated: the token is not a guest's.
        Conflict: another account has adopted the guest.
    """
    settings = app.settings.caller
    if caller.is_guest:
        raise InvalidRequest("A guest cannot adopt a guest; sign in first.", code="sign_in_first")
    if not settings.guests or not guest_token.startswith(guests.PREFIX):
        raise InvalidRequest("This is not a guest token.", param="guest_token", code="invalid_value")
    now = app.clock.now()
    guest = guests.read(settings.guest_secret, guest_token, now=now)
    record = GuestRecord(
        id=guest.owner,
        owner=guest.owner,
        account=caller.owner,
        adopted_at=now,
        due=now + AGAIN_SECONDS,
        ttl=guests.LIFETIME + 86_400,
    )
    try:
        await app.store.batch(DIRECTORY, guest.owner, [Create(record.document())])
    except AlreadyExists:
        found = await guests.find_adoption(app.store, guest.owner)
        if found is None or found.account != caller.owner:
            raise Conflict("This guest belongs to another account already.", code="guest_adopted") from None
    return await move(app, guest.owner, caller.owner)


async def finish_adoptions(app: App) -> None:
    """Look after guests adopted lately, until there is nothing left of theirs."""
    for due in await app.store.due(DIRECTORY, "guest", before=app.clock.now()):
        record = GuestRecord.model_validate(due.stored.body)
        try:
            moved = await move(app, record.owner, record.account)
            is_over = not moved and app.clock.now() > record.adopted_at + SETTLED_SECONDS
            later = None if is_over else app.clock.now() + AGAIN_SECONDS
            body = record.model_copy(update={"due": later}).document()
            await app.store.batch(DIRECTORY, record.id, [Replace(body, due.stored.etag)])
            if is_over:
                await app.store.erase(STATE, record.owner)
        except (AssistantError, BatchFailed):
            log.warning("adoption.failed", exc_info=True)


async def move(app: App, guest: str, account: str) -> int:
    """Everything that is in the guest's partitions now. Safe to repeat, and to break off."""
    now = app.clock.now()
    mark = AdoptedRecord(id=MOVED, guest=guest, account=account, adopted_at=now)
    await app.store.batch(STATE, guest, [Upsert(mark.document())])
    kept = AdoptedRecord(id=f"adopted_{guest}", guest=guest, adopted_at=now)
    await app.store.batch(STATE, account, [Upsert(kept.document())])
    await _move_blobs(app, guest, account)
    moved = 0
    for _ in range(_ROUNDS):  # what changes while it is moved is moved again
        count = await _move_state(app, guest, account)
        if not count:
            break
        moved += count
    async for page in everything(app.store, KNOWLEDGE, guest):
        await app.store.batch(KNOWLEDGE, account, [Upsert(stored.body) for stored in page])
        await app.store.batch(KNOWLEDGE, guest, [Delete(stored.body["id"]) for stored in page])
        moved += len(page)
    await app.blobs.erase(guest)
    return moved


async def _move_state(app: App, guest: str, account: str) -> int:
    """One round; returns how many records moved."""
    found = [stored async for page in everything(app.store, STATE, guest) for stored in page]
    threads: dict[str, list[Stored]] = {}
    others: list[Stored] = []
    moved = 0
    for stored in found:
        kind, body = stored.body.get("kind"), stored.body
        if kind in _STAYS:
            continue
        if kind == "usage":
            moved += await _hand_over_usage(app, guest, stored)
        elif kind == "usage.moved":
            moved += await _add_usage(app, guest, account, stored)
        elif kind == "turn":
            threads.setdefault(body["group"], []).append(stored)
        elif kind in ("conversation", "conversation.deleted"):
            threads.setdefault(body["id"], []).append(stored)
        else:
            others.append(stored)
    for thread in threads.values():
        moved += await _move_thread(app, guest, account, thread)
    for stored in others:
        moved += await _move_batch(app, guest, account, [stored], replace=stored.body.get("kind") != "profile")
    return moved


async def _move_thread(app: App, guest: str, account: str, thread: Sequence[Stored]) -> int:
    """What is final first, in batches; then the header together with what still runs."""
    done = [stored for stored in thread if stored.body.get("status") in FINAL]
    last = [stored for stored in thread if stored.body.get("status") not in FINAL]
    moved = 0
    # Deleted only once the header is there too: an account that sees a thread sees all of it.
    for start in range(0, len(done), _BATCH):
        await _copy(app, account, done[start : start + _BATCH])
    if last:
        moved += await _move_batch(app, guest, account, last)
        if not moved:
            return 0  # it changed meanwhile: the next round has the newer one
    for start in range(0, len(done), _BATCH):
        moved += await _take_away(app, guest, done[start : start + _BATCH])
    return moved


async def _move_batch(app: App, guest: str, account: str, batch: Sequence[Stored], *, replace: bool = True) -> int:
    await _copy(app, account, batch, replace=replace)
    return await _take_away(app, guest, batch)


async def _copy(app: App, account: str, batch: Sequence[Stored], *, replace: bool = True) -> None:
    """Write in the account's partition. What is there already came from an earlier round that was broken off."""
    if replace:
        await app.store.batch(STATE, account, [Upsert(stored.body) for stored in batch])
        return
    for stored in batch:
        try:
            await app.store.batch(STATE, account, [Create(stored.body)])
        except AlreadyExists:
            continue  # the account has its own


async def _take_away(app: App, guest: str, batch: Sequence[Stored]) -> int:
    """Delete in the guest's partition what has not changed since it was read; 0 when something has."""
    try:
        await app.store.batch(STATE, guest, [Delete(stored.body["id"], stored.etag) for stored in batch])
    except (Stale, Missing):
        return 0
    return len(batch)


async def _hand_over_usage(app: App, guest: str, stored: Stored) -> int:
    """Rename the month's record, so that it is added to the account's once; what is used later makes another."""
    token = derived_token(guest, stored.body["id"], stored.etag, str(app.clock.now()))
    handed = {**stored.body, "id": f"moved_{token}", "kind": "usage.moved", "month": stored.body["id"]}
    handed.pop("due", None)
    try:
        await app.store.batch(STATE, guest, [Delete(stored.body["id"], stored.etag), Create(handed)])
    except (Stale, Missing, AlreadyExists):
        return 0
    return 1


async def _add_usage(app: App, guest: str, account: str, stored: Stored) -> int:
    id_ = stored.body["id"]
    theirs = UsageRecord.model_validate({**stored.body, "id": stored.body["month"], "kind": "usage"})

    def add(body: Document | None) -> Document:
        ours = UsageRecord.model_validate(body) if body else meter.fresh(theirs.id)
        if id_ in ours.adopted:
            return ours.document()
        days = {day: dict(models) for day, models in ours.days.items()}
        for day, models in theirs.days.items():
            for model, spent in models.items():
                own = days.setdefault(day, {})
                own[model] = own.get(model, Spent()).plus(spent)
        changes: Document = {
            "days": days,
            "reserved": theirs.reserved | ours.reserved,
            "background": [*ours.background, *theirs.background],
            "waiting": [*ours.waiting, *theirs.waiting],
            "adopted": [*ours.adopted, id_],
        }
        return ours.model_copy(update=changes).document()

    await mutate(app.store, STATE, account, [], [Change(theirs.id, add)])
    return await _take_away(app, guest, [stored])


async def _move_blobs(app: App, guest: str, account: str) -> None:
    """Copied before the records that name them; the guest's go at the end."""
    async for name in app.blobs.list(guest):
        blob = await app.blobs.get(guest, name)
        if blob is not None:
            await app.blobs.put(account, name, blob[0], content_type=blob[1])
