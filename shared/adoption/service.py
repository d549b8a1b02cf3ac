"""A guest signs in: everything of theirs becomes the account's, while a stream of theirs goes on.

The claim is a record of the directory under the guest's id: who makes it has the guest; from then on the guest's token
is refused, so nothing new begins there. Then every thread moves: its turns and its header are written in the account's
partition and deleted in the guest's, the header and what still runs in one batch each, so that a turn which ends
meanwhile ends in one place or the other: its commit finds nothing in the guest's partition, reads there where it went
(`moved`), and goes there (turns/ledger.py). Journals have the response's id as partition: they stay where they are.

Each step can be run again, and takes nothing back that the account did meanwhile. A timer does so until nothing is
found any more, some minutes after the claim. What is written in the account's partition is written together with the
record that says so: once the account was erased, nothing of a guest's can come after.
"""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from shared.app import App
from shared.conversations.records import FINAL, HEADERS
from shared.errors import Conflict, InvalidRequest
from shared.identity import guests
from shared.identity.records import GuestRecord
from shared.ids import derived_token
from shared.principal import Principal
from shared.privacy.pages import everything, in_batches
from shared.privacy.records import AdoptedRecord
from shared.privacy.service import is_being_erased
from shared.storage.base import (
    DIRECTORY,
    KNOWLEDGE,
    STATE,
    AlreadyExists,
    Create,
    Delete,
    Document,
    Missing,
    Operation,
    Replace,
    Stale,
    Stored,
    Upsert,
)
from shared.storage.mutate import Change, mutate
from shared.storage.overdue import overdue
from shared.turns.ledger import MOVED
from shared.usage import meter
from shared.usage.records import Spent, UsageRecord

log = logging.getLogger("companion.privacy")


class _Over(Exception):
    """The account was erased meanwhile: there is nowhere to move to."""


AGAIN_SECONDS = 60.0
SETTLED_SECONDS = 180.0
"""After so long nothing of the guest's can be under way that began before the claim."""
_ROUNDS = 20
_STAYS = frozenset({"adopted", "answer", "tombstone", "data_job", "spent", "sync"})
"""Kinds that say nothing outside of their partition."""


async def adopt(app: App, caller: Principal, guest_token: str) -> int:
    """Make the guest's data the caller's. The same again is the same.

    Returns:
        How many records moved now.

    Raises:
        Unauthenticated: the token is not a guest's.
        Conflict: another account has adopted the guest, or the guest has asked to be erased.
    """
    settings = app.settings.caller
    if caller.is_guest:
        raise InvalidRequest("A guest cannot adopt a guest; sign in first.", code="sign_in_first")
    if not settings.guests or not guest_token.startswith(guests.PREFIX):
        raise InvalidRequest("This is not a guest token.", param="guest_token", code="invalid_value")
    now = app.clock.now()
    guest = guests.read(settings.guest_secret, guest_token, now=now)
    if await is_being_erased(app.store, guest.owner, caller.owner):
        raise Conflict("Data of yours is being erased; sign in again when that is done.", code="being_erased")
    kept = AdoptedRecord(id=_kept(guest.owner), guest=guest.owner, adopted_at=now)
    with suppress(AlreadyExists):
        await app.store.batch(STATE, caller.owner, [Create(kept.document())])
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
            with suppress(Missing):
                await app.store.batch(STATE, caller.owner, [Delete(kept.id)])
            raise Conflict("This guest belongs to another account already.", code="guest_adopted") from None
    return await move(app, guest.owner, caller.owner)


async def finish_adoptions(app: App) -> None:
    """Look after guests adopted lately, until there is nothing left of theirs."""
    for due in await overdue(app.store, DIRECTORY, "guest", before=app.clock.now()):
        record = GuestRecord.model_validate(due.stored.body)
        try:
            moved = await move(app, record.owner, record.account)
            is_over = not moved and app.clock.now() > record.adopted_at + SETTLED_SECONDS
            later = None if is_over else app.clock.now() + AGAIN_SECONDS
            body = record.model_copy(update={"due": later}).document()
            await app.store.batch(DIRECTORY, record.id, [Replace(body, due.stored.etag)])
            if is_over:
                await app.store.erase(STATE, record.owner)
        except Missing:
            continue  # the account was erased, and this with it
        except Exception:  # the worker of many guests: what one of them hits must not keep it from the others
            log.warning("adoption.failed", exc_info=True)


async def move(app: App, guest: str, account: str) -> int:
    """Everything that is in the guest's partitions now. Safe to repeat, and to break off."""
    run = _Move(app, guest, account)
    mark = AdoptedRecord(id=MOVED, guest=guest, account=account, adopted_at=app.clock.now())
    try:
        await run.check()
        await app.store.batch(STATE, guest, [Upsert(mark.document())])
        return await run.everything()
    except _Over:
        await app.store.erase(STATE, guest)
        return 0


def _kept(guest: str) -> str:
    """The account's record of an adoption: without it nothing is written there."""
    return f"adopted_{guest}"


@dataclass(frozen=True, slots=True)
class _Move:
    """One run of it."""

    app: App
    guest: str
    account: str
    copied: dict[str, str] = field(default_factory=dict[str, str])
    """Etags of what this run wrote among the account's."""

    async def everything(self) -> int:
        await _move_blobs(self)
        moved = 0
        for _ in range(_ROUNDS):  # what changes while it is moved is moved again
            found, count = await _move_state(self)
            moved += count
            if not found:
                break
        else:
            return moved  # it changes all the time: later then, with its blobs
        async for page in everything(self.app.store, KNOWLEDGE, self.guest):
            for some in _in_batches(page):
                await self.check()
                await self.app.store.batch(KNOWLEDGE, self.account, [Upsert(stored.body) for stored in some])
                await self.app.store.batch(KNOWLEDGE, self.guest, [Delete(stored.body["id"]) for stored in some])
            moved += len(page)
        await self.app.blobs.erase(self.guest)
        await self.check()
        return moved

    async def check(self) -> Stored:
        """Raises `_Over`."""
        kept = await self.app.store.read(STATE, self.account, _kept(self.guest))
        if kept is None:
            raise _Over
        return kept

    async def write(self, operations: Sequence[Operation]) -> list[str]:
        """Into the account's partition, as long as the adoption stands. Returns the new etags."""
        while True:
            kept = await self.check()
            try:
                etags = await self.app.store.batch(STATE, self.account, [*operations, Replace(kept.body, kept.etag)])
            except (Stale, Missing) as failure:
                if failure.id != kept.body["id"]:
                    raise
            else:
                return etags[:-1]


async def _move_state(move: _Move) -> tuple[int, int]:
    """One round; returns how many records there were to move, and how many moved."""
    found = [stored async for page in everything(move.app.store, STATE, move.guest) for stored in page]
    threads: dict[str, list[Stored]] = {}
    others: list[Stored] = []
    moved, stays = 0, 0
    for stored in found:
        kind, body = stored.body.get("kind"), stored.body
        if kind in _STAYS:
            stays += 1
        elif kind == "usage":
            moved += await _hand_over_usage(move, stored)
        elif kind == "usage.moved":
            moved += await _add_usage(move, stored)
        elif kind == "turn":
            threads.setdefault(body["group"], []).append(stored)
        elif kind in HEADERS:
            threads.setdefault(body["id"], []).append(stored)
        else:
            others.append(stored)
    for thread in threads.values():
        moved += await _move_thread(move, thread)
    for stored in others:
        if stored.body.get("kind") == "share":
            await _lead_to_account(move, stored.body["id"])
        moved += await _move_batch(move, [stored])
    return len(found) - stays, moved


async def _lead_to_account(move: _Move, share: str) -> None:
    """A link goes on showing what it showed: its snapshot is among the account's blobs now."""
    await _move_blob(move, share)
    stored = await move.app.store.read(DIRECTORY, share, share)
    if stored is not None:
        with suppress(Stale, Missing):  # revoked at this very moment, or another run has done it
            await move.app.store.batch(DIRECTORY, share, [Replace({**stored.body, "owner": move.account}, stored.etag)])


async def _move_thread(move: _Move, thread: Sequence[Stored]) -> int:
    """What is final first, in batches; then the header together with what still runs."""
    done = [stored for stored in thread if stored.body.get("status") in FINAL]
    last = [stored for stored in thread if stored.body.get("status") not in FINAL]
    moved = 0
    # Deleted only once the header is there too: an account that sees a thread sees all of it.
    for some in _in_batches(done):
        await _copy(move, some)
    if last:
        moved += await _move_batch(move, last)
        if not moved:
            return 0  # it changed meanwhile: the next round has the newer one
    for some in _in_batches(done):
        moved += await _take_away(move, some)
    return moved


def _in_batches(found: Sequence[Stored]) -> Iterator[Sequence[Stored]]:
    return in_batches(found, lambda stored: stored.body)


async def _move_batch(move: _Move, batch: Sequence[Stored]) -> int:
    await _copy(move, batch)
    return await _take_away(move, batch)


async def _copy(move: _Move, batch: Sequence[Stored]) -> None:
    """Write in the account's partition. What is there already came from an earlier run that was broken off."""
    while True:
        found = await asyncio.gather(*(_operation(move, stored.body) for stored in batch))
        operations = [operation for operation in found if operation is not None]
        try:
            if operations:
                etags = await move.write(operations)
                move.copied.update(zip((each.body["id"] for each in operations), etags, strict=True))
        except (AlreadyExists, Stale, Missing):
            continue  # the account changed one of them just now
        return


async def _operation(move: _Move, theirs: Document) -> Create | Replace | None:
    """How a record of the guest's is written among the account's; None where it is there, or was deleted there."""
    read, id_ = move.app.store.read, theirs["id"]
    ours, gone = await asyncio.gather(read(STATE, move.account, id_), read(STATE, move.account, f"gone_{id_}"))
    if ours is None:
        return Create(theirs) if gone is None else None
    is_untouched = move.copied.get(id_) == ours.etag
    if not is_untouched and await _is_held_by_own(move, ours.body, theirs):
        return None
    body = theirs if is_untouched else _merged(ours.body, theirs)
    return Replace(body, ours.etag) if body != ours.body else None


async def _is_held_by_own(move: _Move, ours: Document, theirs: Document) -> bool:
    """Whether a conversation is held by a turn that the account began, and not by one of the guest's."""
    running = ours.get("running")
    if theirs["kind"] not in HEADERS or running in (None, theirs.get("running")):
        return False
    return await move.app.store.read(STATE, move.guest, running) is None


def _merged(ours: Document, theirs: Document) -> Document:
    """What the account has since an earlier run, and how far the guest's turn has come that ran at that time."""
    if theirs["kind"] == "turn":
        is_over = ours.get("status", "completed") in FINAL  # of a deleted one only its id is left
        is_ahead = theirs["status"] not in FINAL and not is_over and ours["attempt"] > theirs["attempt"]
        return ours if is_over or is_ahead else theirs
    if theirs["kind"] not in HEADERS:
        return ours
    is_newer = theirs["updated_at"] > ours["updated_at"]
    if not is_newer and ours.get("running") in (None, theirs.get("running")):
        return ours
    moved = {"head", "running", "is_rewound", *(("updated_at", "sort") if is_newer else ())}
    return theirs | {name: value for name, value in ours.items() if name not in moved}


async def _take_away(move: _Move, batch: Sequence[Stored]) -> int:
    """Delete in the guest's partition what has not changed since it was read; 0 when something has."""
    try:
        await move.app.store.batch(STATE, move.guest, [Delete(stored.body["id"], stored.etag) for stored in batch])
    except (Stale, Missing):
        return 0
    return len(batch)


async def _hand_over_usage(move: _Move, stored: Stored) -> int:
    """Rename the month's record, so that it is added to the account's once; what is used later makes another."""
    token = derived_token(move.guest, stored.body["id"], stored.etag, str(move.app.clock.now()))
    handed = {**stored.body, "id": f"moved_{token}", "kind": "usage.moved", "month": stored.body["id"]}
    handed.pop("due", None)
    try:
        deleted = Delete(stored.body["id"], stored.etag)
        await move.app.store.batch(STATE, move.guest, [deleted, Create(handed)])
    except (Stale, Missing, AlreadyExists):
        return 0
    return 1


async def _add_usage(move: _Move, stored: Stored) -> int:
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

    def stands(body: Document | None) -> Document:
        if body is None:
            raise _Over
        return body

    await mutate(move.app.store, STATE, move.account, [], [Change(theirs.id, add), Change(_kept(move.guest), stands)])
    return await _take_away(move, [stored])


async def _move_blobs(move: _Move) -> None:
    """Copied before the records that name them; the guest's go at the end."""
    async for name in move.app.blobs.list(move.guest):
        await _move_blob(move, name)


async def _move_blob(move: _Move, name: str) -> None:
    blobs = move.app.blobs
    if await move.app.store.read(STATE, move.account, f"gone_{name.partition('/')[0]}") is not None:
        return  # an earlier run moved it, and the account deleted what it was part of
    blob = await blobs.get(move.guest, name)
    if blob is None:
        return
    await blobs.put(move.account, name, blob[0], content_type=blob[1])
    try:
        await move.check()
    except _Over:
        await blobs.delete(move.account, name)
        raise
