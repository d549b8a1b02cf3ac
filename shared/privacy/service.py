"""An owner's rights over their data: export, import, erase, retention; each a job that goes on where it was broken off.

A job is claimed by moving its `due` ahead, checkpointed after each step, and found again by that `due` when its worker
has died. Every step is safe to run twice.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, cast

import orjson
from pydantic import TypeAdapter

from shared.answers.records import KEPT_SECONDS as KEY_SECONDS
from shared.app import App
from shared.conversations.deletion import purge, remove, remove_turns
from shared.conversations.records import CHATS, DELETED, FINAL, ConversationRecord, Record, TurnRecord, header_sort
from shared.conversations.repository import conversations
from shared.errors import AssistantError, Conflict, NotFound, RateLimited, StorageUnavailable
from shared.identity.guests import find_adoption
from shared.ids import RandomIds, derived_token
from shared.jobs.base import JOBS
from shared.privacy.archive import Blob, open_archive, read_blobs, read_entry, read_records, write_archive
from shared.privacy.foreign import foreign_records
from shared.privacy.pages import BATCH, everything, in_batches
from shared.privacy.records import PROFILE, DataJobRecord, ErasureRecord, JobStatus, JobType, ProfileRecord
from shared.privacy.registry import OWNERS_DIRECTORY
from shared.privacy.sweep import sweep_blobs
from shared.sharing.service import revoke_shares_of
from shared.storage.base import (
    DIRECTORY,
    EVENTS,
    KNOWLEDGE,
    STATE,
    AlreadyExists,
    Create,
    Delete,
    Document,
    Missing,
    Operation,
    Query,
    Replace,
    Stale,
    Store,
    Stored,
    Upsert,
)
from shared.storage.large import outlines, sweep
from shared.storage.mutate import Change, mutate
from shared.storage.overdue import overdue
from shared.turns.cancel import end_turn
from shared.turns.journal import Journal, read_tail, scrub, seal
from shared.turns.ledger import MOVED
from shared.usage import limits, meter
from shared.usage.records import UsageRecord
from shared.wire.answers.chat import StoredChatCompletion
from shared.wire.answers.responses import ResponseObject
from shared.wire.chat_output import render_stored
from shared.wire.responses import render_response

type Json = dict[str, Any]

log = logging.getLogger("companion.privacy")

CLAIM_SECONDS = 60.0
MAX_TRIES = 5
MAX_JOBS = 3
"""Exports and imports of one owner that wait or run: each may be the whole of their data."""
KEPT_SECONDS = 7 * 86_400
"""How long the file of an export, and the record of a job, stay."""
RECEIPT_SECONDS = 90 * 86_400
QUEUES = ("turns", "turns-low", "jobs")
_FOREVER = 1e12
_AT_ONCE = 64
_OWN_BLOBS = ("datajob_",)
"""Names of blobs that jobs make for themselves; no part of an export."""


# asking for jobs


async def start_export(app: App, owner: str) -> DataJobRecord:
    return await _start(app, owner, "export")


async def start_import(app: App, owner: str, data: bytes) -> DataJobRecord:
    """Import a zip: an export of ours, or ChatGPT's or Claude's; or their `conversations.json` alone."""
    return await _start(app, owner, "import", data=data)


async def start_erase(app: App, owner: str) -> DataJobRecord:
    """Erase everything of the owner's. The receipt is what stays, and does not say whose it is."""
    token, now = app.ids.token(), app.clock.now()
    receipt = DataJobRecord(
        id=f"datajob_{token}",
        kind="receipt",
        type="erase",
        created_at=now,
        owner_digest=_digest(owner),
        ttl=RECEIPT_SECONDS,
    )
    work = ErasureRecord(id=f"erasure_{token}", owner=owner, receipt=receipt.id, due=now)
    try:
        await app.store.batch(DIRECTORY, receipt.id, [Create(receipt.document())])
    except AlreadyExists:  # an earlier try of this very request
        receipt = await get_job(app, owner, receipt.id)
        if receipt.status == "completed" and receipt.created_at > now - KEY_SECONDS:
            return receipt
        if receipt.status == "completed":  # the key has been free for long
            return await start_erase(replace(app, ids=RandomIds()), owner)
    with suppress(AlreadyExists):
        await app.store.batch(DIRECTORY, work.id, [Create(work.document())])
    await _send(app, {"erasure": work.id})
    return receipt


async def get_job(app: App, owner: str, id_: str) -> DataJobRecord:
    """Raises `NotFound`: there is none, or it is somebody else's."""
    is_id = id_.startswith("datajob_") and id_.isascii() and id_.replace("_", "").isalnum()
    stored = await app.store.read(STATE, owner, id_) if is_id else None
    if stored is None and is_id:
        stored = await app.store.read(DIRECTORY, id_, id_)
        if stored is not None and stored.body.get("owner_digest") != _digest(owner):
            stored = None
    if stored is None or stored.body.get("kind") not in ("data_job", "receipt"):
        raise NotFound(f"Job with id {id_!r} not found.", param="job_id")
    return DataJobRecord.model_validate(stored.body)


async def read_export(app: App, owner: str, id_: str) -> bytes:
    """The zip of a finished export.

    Raises:
        NotFound: there is no such job, or its file is gone.
        Conflict: it is not finished.
    """
    job = await get_job(app, owner, id_)
    if job.type == "export" and job.status in ("queued", "in_progress"):
        raise Conflict("The export is still being made.", retry_after=1)
    blob = await app.blobs.get(owner, f"{id_}.zip") if job.type == "export" else None
    if blob is None:
        raise NotFound(f"Content of job {id_!r} not found.", param="job_id")
    return blob[0]


async def _start(app: App, owner: str, type_: JobType, *, data: bytes | None = None) -> DataJobRecord:
    newest = await app.store.query(STATE, owner, Query(kind="data_job", order="desc", limit=20))
    if sum(each.body["status"] in ("queued", "in_progress") for each in newest) >= MAX_JOBS:
        raise RateLimited(f"{MAX_JOBS} jobs of yours are waiting; try again when one is done.", retry_after=30)
    token, now = app.ids.token(), app.clock.now()
    sort = header_sort(now, token)
    job = DataJobRecord(id=f"datajob_{token}", type=type_, sort=sort, created_at=now, due=now, ttl=KEPT_SECONDS)
    if data is not None:
        await app.blobs.put(owner, f"{job.id}.in", data, content_type="application/octet-stream")
    files = sweep(job.id, [f"{job.id}.in", f"{job.id}.zip"], now + KEPT_SECONDS)
    try:
        await app.store.batch(STATE, owner, [Create(job.document()), Create(files)])
    except AlreadyExists:  # an earlier try of this very request
        job = await get_job(app, owner, job.id)
    await _send(app, {"owner": owner, "job": job.id})
    return job


async def _send(app: App, body: Json) -> None:
    try:
        await app.queue.send(JOBS, body)
    except StorageUnavailable:
        log.warning("job.not_sent", exc_info=True)  # the timer finds it


def _digest(owner: str) -> str:
    return derived_token("receipt", owner)


# running them


async def run_message(app: App, body: Json) -> None:
    """What the queue `jobs` delivers. Safe to be told twice, late, or of what is gone."""
    if "erasure" in body:
        stored = await app.store.read(DIRECTORY, body["erasure"], body["erasure"])
        if stored is not None:
            await _run_erasure(app, stored)
    else:
        owner: str = body["owner"]
        stored = await app.store.read(STATE, owner, body["job"])
        if stored is not None and stored.body.get("kind") == "data_job":
            await _run_job(app, owner, stored)


async def run_due(app: App) -> int:
    """Jobs whose worker died, conversations deleted long ago, retention that is due. Returns how many it looked at."""
    now = app.clock.now()
    count = 0
    for due in await overdue(app.store, DIRECTORY, "erasure", before=now - CLAIM_SECONDS):
        count += await _quietly(_run_erasure(app, due.stored))
    for due in await overdue(app.store, STATE, "data_job", before=now - CLAIM_SECONDS):
        count += await _quietly(_run_job(app, due.partition, due.stored))
    for due in await overdue(app.store, STATE, DELETED, before=now):
        count += await _quietly(_purge(app, due.partition, due.stored.body["id"]))
    for due in await overdue(app.store, STATE, "blobs", before=now):
        count += await _quietly(sweep_blobs(app.store, app.blobs, app.clock, due))
    for due in await overdue(app.store, STATE, "profile", before=now):
        count += await _quietly(apply_retention(app, due.partition))
    return count


async def _quietly(work: Awaitable[object]) -> int:
    try:
        await work
    except Exception:  # the worker of many owners: what one of them hits must not keep it from the others
        log.warning("job.failed", exc_info=True)
    return 1


async def _run_job(app: App, owner: str, stored: Stored) -> None:
    record = DataJobRecord.model_validate(stored.body)
    if record.status in ("completed", "failed"):
        return
    job = _Job(app, owner, record, stored.etag)
    due = app.clock.now() + CLAIM_SECONDS
    try:
        await job.write([], status="in_progress", tries=record.tries + 1, due=due)
        counts, error = await _outcome(job)
        status = "failed" if error else "completed"
        changes: Json = {"status": status, "completed_at": app.clock.now(), "error": error, "due": None}
        await job.write([], counts=counts, **changes)
        await app.blobs.delete(owner, f"{record.id}.in")
    except _Gone:
        return  # another worker has it, or its owner was erased


async def _outcome(job: "_Job") -> tuple[dict[str, int], str | None]:
    """What it did, or why it cannot be done."""
    try:
        return await (_export(job) if job.record.type == "export" else _import(job)), None
    except StorageUnavailable:
        if job.record.tries < MAX_TRIES:
            raise  # delivered again
        return {}, "The store could not be reached."
    except AssistantError as failure:
        return {}, failure.message
    except _Gone:
        raise
    except Exception:
        if job.record.tries < MAX_TRIES:
            raise  # delivered again
        log.exception("job.failed", extra={"job": job.record.id})
        return {}, "The server had an error."


class _Gone(Exception):
    """The job is no longer ours: nothing may be written for it any more."""


@dataclass(slots=True)
class _Job:
    """A job that this worker has claimed."""

    app: App
    owner: str
    record: DataJobRecord
    etag: str

    async def write(self, operations: Sequence[Operation], **changes: Any) -> None:
        """Into the owner's partition, as long as the job is ours.

        Raises:
            _Gone: it is not.
            AlreadyExists: of one of the operations.
        """
        record = self.record.model_copy(update=changes)
        try:
            etags = await self.app.store.batch(STATE, self.owner, [*operations, Replace(record.document(), self.etag)])
        except (Stale, Missing) as failure:
            raise _Gone from failure
        self.record, self.etag = record, etags[-1]

    async def stay(self) -> None:
        """Hold the claim through a long step. Raises `_Gone`."""
        now = self.app.clock.now()
        if (self.record.due or 0.0) - now < CLAIM_SECONDS / 2:
            await self.write([], due=now + CLAIM_SECONDS)

    async def put(self, name: str, data: bytes, content_type: str) -> None:
        """A blob, gone again if the owner was erased meanwhile. Raises `_Gone`."""
        await self.app.blobs.put(self.owner, name, data, content_type=content_type)
        stored = await self.app.store.read(STATE, self.owner, self.record.id)
        if stored is None:
            await self.app.blobs.delete(self.owner, name)
            raise _Gone


async def _export(job: _Job) -> dict[str, int]:
    app, owner = job.app, job.owner
    records: list[Json] = []
    for container in (STATE, KNOWLEDGE):
        async for page in everything(app.store, container, owner):
            records += [stored.body for stored in page]
            await job.stay()
    blobs: list[Blob] = []
    async for name in app.blobs.list(owner):
        if "/" in name or name.startswith(_OWN_BLOBS):
            continue  # parts of records, which have them again; files of jobs
        blob = await app.blobs.get(owner, name)
        await job.stay()
        if blob is not None:
            blobs.append((name, blob[1], blob[0]))
    data = await asyncio.to_thread(write_archive, records, blobs, now=job.record.created_at)
    await job.put(f"{job.record.id}.zip", data, "application/zip")
    manifest = orjson.loads(read_entry(open_archive(data), "manifest.json"))
    counts: dict[str, int] = manifest["counts"]
    return {**{f"state/{kind}": count for kind, count in counts.items()}, "blobs": len(blobs)}


async def _import(job: _Job) -> dict[str, int]:
    app, owner, id_ = job.app, job.owner, job.record.id
    blob = await app.blobs.get(owner, f"{id_}.in")
    if blob is None:
        raise NotFound("The file to import is gone.")
    records, blobs = await asyncio.to_thread(_read_upload, blob[0], owner, app.clock.now())
    bodies = [record.document() for record in records]
    for name, content_type, data in blobs:
        await job.put(name, data, content_type)
        await job.stay()
    step = 0
    for some in in_batches(bodies, lambda body: body):
        step += len(some)
        if step > job.record.step:
            await _put_new(job, some, step=step)
    counts: dict[str, int] = {"blobs": len(blobs)} if blobs else {}
    for body in bodies:
        kind = f"state/{body['kind']}"
        counts[kind] = counts.get(kind, 0) + 1
    return counts


def _read_upload(data: bytes, owner: str, now: float) -> tuple[list[Record], list[Blob]]:
    """Whatever the file is: headers last, so that a conversation is seen once it is whole."""
    blobs: list[Blob] = []
    if data[:2] == b"PK":
        archive = open_archive(data)
        names = archive.namelist()
        if "manifest.json" in names:
            records = [_renderable(record) for record in read_records(archive, owner)]
            blobs = list(read_blobs(archive, owner))
        else:
            name = next((name for name in names if name.rpartition("/")[2] == "conversations.json"), "manifest.json")
            records = foreign_records(_json(read_entry(archive, name)), owner, now=now)
    else:
        records = foreign_records(_json(data), owner, now=now)
    return sorted(records, key=lambda record: isinstance(record, ConversationRecord)), blobs


def _json(data: bytes) -> object:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return None


def _renderable(record: Record) -> Record:
    """A turn that could not be shown as the document says is kept as part of its conversation, not as a response."""
    if not isinstance(record, TurnRecord) or not record.is_stored or _is_showable(record):
        return record
    return record.model_copy(update={"is_stored": False, "params": {"model": "imported"}, "usage": None, "error": None})


def _is_showable(turn: TurnRecord) -> bool:
    is_chat = turn.surface == "chat"
    try:
        shown = render_stored(turn) if is_chat else render_response(turn)
        (_COMPLETION if is_chat else _RESPONSE).validate_python(shown, strict=True)
    except Exception:
        return False
    return True


_RESPONSE, _COMPLETION = TypeAdapter(ResponseObject), TypeAdapter(StoredChatCompletion)


async def _put_new(job: _Job, bodies: Sequence[Json], *, step: int) -> None:
    """Write what is not there: what the owner did since an earlier try or import stays."""
    operations = [Create(body) for body in bodies]
    due = job.app.clock.now() + CLAIM_SECONDS
    while True:
        try:
            await job.write(operations, step=step, due=due)
        except AlreadyExists as failure:
            del operations[failure.index]
        else:
            return


# erasing


async def is_being_erased(store: Store, *owners: str) -> bool:
    pending = await store.due(DIRECTORY, "erasure", before=_FOREVER, limit=1000)
    return any(due.stored.body["owner"] in owners for due in pending)


async def _run_erasure(app: App, stored: Stored) -> None:
    work = ErasureRecord.model_validate(stored.body)
    changes: Json = {"due": app.clock.now() + CLAIM_SECONDS, "tries": work.tries + 1}
    claim = _Erasure(app, work, stored.etag)
    try:
        await claim.save(**changes)
        for _ in range(MAX_TRIES):  # what began before the keys were gone may write once more, or have begun just now
            if not await erase_once(app, work.owner, claim.note):
                break
            await claim.save(counts=_sum(claim.work.counts, claim.work.found), found={})
    except (Stale, Missing):
        return  # another worker has it
    await _leave_no_traces(app, work.id)
    await _receipt(app, claim.work, status="completed")
    await app.store.erase(DIRECTORY, work.id)
    log.info("erasure.completed", extra={"receipt": work.receipt})


async def _leave_no_traces(app: App, id_: str) -> None:
    """What is deleted by its id may leave bytes in a file; to erase anything, after it, takes them along."""
    await app.store.batch(EVENTS, id_, [Upsert({"id": id_})])
    await app.store.erase(EVENTS, id_)


@dataclass(slots=True)
class _Erasure:
    """An erasure that is ours: its record, and how it changes."""

    app: App
    work: ErasureRecord
    etag: str

    async def save(self, **changes: Any) -> None:
        """Raises `Stale`, `Missing`: it is somebody else's."""
        work = self.work.model_copy(update=changes)
        (self.etag,) = await self.app.store.batch(DIRECTORY, work.id, [Replace(work.document(), self.etag)])
        self.work = work
        await _receipt(self.app, work, status="in_progress")

    async def note(self, found: dict[str, int]) -> None:
        """About to be deleted. What an earlier try found is among it, but for what that one deleted already."""
        most = {name: max(number, self.work.found.get(name, 0)) for name, number in found.items()}
        due = self.app.clock.now() + CLAIM_SECONDS
        await self.save(found=self.work.found | most, due=due)


async def erase_once(app: App, owner: str, note: Callable[[dict[str, int]], Awaitable[None]]) -> bool:
    """Everything of the owner's that is there now, in an order that can be broken off anywhere.

    What leads to something else goes after it: the records of keys, links and guests, turns after journals.

    Args:
        note: told what was found, per store and kind, before anything of it is deleted.

    Returns:
        False when there was nothing.
    """
    found = await _find_everything(app, owner)
    if not found.counts:
        return False
    await note(found.counts)
    for guest in found.guests:
        await _erase_partitions(app, guest, await _find_everything(app, guest))
    await _erase_partitions(app, owner, found)
    return True


@dataclass(slots=True)
class _Found:
    """What an owner has, or some of what it leads to."""

    counts: dict[str, int] = field(default_factory=dict[str, int])
    records: list[str] = field(default_factory=list[str])
    """All but turns that run."""
    running: list[str] = field(default_factory=list[str])
    turns: list[str] = field(default_factory=list[str])
    """All but those that run."""
    fenced: set[str] = field(default_factory=set[str])
    """Of these, the ones taken from a host that may not know of it yet."""
    directory: list[str] = field(default_factory=list[str])
    guests: list[str] = field(default_factory=list[str])
    messages: list[str] = field(default_factory=list[str])
    usage: Replace | None = None
    """Bare sums in the place of this month's usage."""

    def count(self, name: str, number: int = 1) -> None:
        if number:
            self.counts[name] = self.counts.get(name, 0) + number

    def add(self, body: Document) -> None:
        """A record of the owner's."""
        kind = str(body.get("kind"))
        self.count(f"state/{kind}")
        if kind == "turn" and body["status"] not in FINAL:
            self.running.append(body["id"])
            return
        self.records.append(body["id"])
        if kind == "turn":
            self.turns.append(body["id"])
            self.fenced |= {body["id"]} if body.get("attempt", 1) > 1 else set()
        elif kind == "adopted":
            self.guests += [body["guest"]] if body["id"] != MOVED else []
        elif kind in OWNERS_DIRECTORY:
            self.count(f"directory/{kind}")
            self.directory.append(body[OWNERS_DIRECTORY[kind]])


async def _find_everything(app: App, owner: str) -> _Found:
    found = _Found()
    async for page in everything(outlines(app.store), STATE, owner):
        for stored in page:
            bare = _bare(app, stored.body) if stored.body.get("kind") == "usage" else None
            if bare is None:
                found.add(stored.body)
            elif bare != {name: value for name, value in stored.body.items() if name != "ttl"}:
                found.count("state/usage")
                found.usage = Replace(bare | {"ttl": _left_of_the_month(app)}, stored.etag)
    for guest in list(found.guests):
        adoption = await find_adoption(app.store, guest)
        if adoption is None or adoption.account != owner:
            found.guests.remove(guest)  # the claim was another account's
        else:
            found.count("directory/guest")
            found.directory.append(guest)
    turns = found.running + found.turns
    for start in range(0, len(turns), _AT_ONCE):
        some = turns[start : start + _AT_ONCE]
        for journal in await asyncio.gather(*(app.store.scan(EVENTS, id_) for id_ in some)):
            found.count("events", len(journal))
    async for page in everything(app.store, KNOWLEDGE, owner):
        found.count("knowledge", len(page))
    found.messages = await _messages(app, owner)
    found.count("queue", len(found.messages))
    async for _ in app.blobs.list(owner):
        found.count("blobs")
    return found


def _bare(app: App, body: Document) -> Document | None:
    """What stays of this month's usage, until it ends: else an owner could lift a ceiling of money by an erasure.

    Whoever comes again within the month goes on from it, and keeps it as the rest of their usage.
    """
    now = app.clock.now()
    if body["id"] != meter.month_id(now):
        return None
    bare = meter.bare(UsageRecord.of(body), now)
    return orjson.loads(orjson.dumps(bare.document())) if bare.days or bare.reserved else None


def _left_of_the_month(app: App) -> int:
    now = app.clock.now()
    return int(limits.next_month(now) - now) + 1


async def _erase_partitions(app: App, owner: str, found: _Found) -> None:
    """The records that were found, one by one, and never their whole partition.

    A turn may be accepted on another host at any moment. Were its record erased unseen, nothing would lead to its
    journal any more, and its host would go on writing there. To refuse such turns would cost each turn a look-up, and
    one that looked a moment before would still come through. So its record stays: the next round finds it.
    """
    for id_ in found.running:
        await _erase_running(app, owner, id_)
    for start in range(0, len(found.turns), _AT_ONCE):
        some = found.turns[start : start + _AT_ONCE]
        await asyncio.gather(*(_erase_journal(app, id_, found) for id_ in some))
    for id_ in (*found.messages, *found.directory):
        await app.store.erase(DIRECTORY, id_)
    await app.store.erase(KNOWLEDGE, owner)
    for start in range(0, len(found.records), BATCH):
        await _delete(app, owner, found.records[start : start + BATCH])
    if found.usage is not None:
        with suppress(Stale, Missing):  # a turn has just been settled: the next round finds it
            await outlines(app.store).batch(STATE, owner, [found.usage])
    await app.blobs.erase(owner)  # after the records: one whose parts are gone could not be read any more


async def _erase_journal(app: App, turn: str, found: _Found) -> None:
    """The empty batches that a `scrub` leaves stay a day: they refuse whatever an earlier host still writes."""
    await (scrub(app.store, turn) if turn in found.fenced else app.store.erase(EVENTS, turn))


async def _erase_running(app: App, owner: str, turn: str) -> None:
    """End a turn, and refuse whatever its host still writes; or only that, should it be beyond reading."""
    try:
        await end_turn(app, owner, turn)
    except Exception:  # whatever is wrong with it, it is to go
        log.info("erasure.turn_not_stopped", exc_info=True)
    stored = await outlines(app.store).read(STATE, owner, turn)
    if stored is not None and stored.body.get("status") not in FINAL:
        await _shut(app, turn)
    await scrub(app.store, turn)
    if stored is not None:
        with suppress(Stale, Missing):  # another host took it over at this moment: the next round finds it
            await outlines(app.store).batch(STATE, owner, [Delete(turn, stored.etag)])


async def _shut(app: App, turn: str) -> None:
    """Keep whoever writes a journal from writing more."""
    tail = await read_tail(app.store, turn)
    lease = app.settings.turn.lease
    journal = Journal(app.store, turn, app.clock, writer=app.host, lease=lease, number=tail.number)
    await seal(journal, lambda: read_tail(app.store, turn))


async def _delete(app: App, owner: str, ids: Sequence[str]) -> None:
    """Records, as many as one batch may have, of which some may be gone already."""
    operations = [Delete(id_) for id_ in ids]
    while operations:
        try:
            await outlines(app.store).batch(STATE, owner, operations)
        except Missing as gone:
            del operations[gone.index]
        else:
            return


async def _messages(app: App, owner: str) -> list[str]:
    """Messages in the store's own queue. A queue service hands its few out soon, to workers that find nothing."""
    found: list[str] = []
    for queue in (name for each in QUEUES for name in (each, f"{each}-poison")):
        limit = 1000
        while len(due := await app.store.due(DIRECTORY, f"message:{queue}", before=_FOREVER, limit=limit)) == limit:
            limit *= 4
        for message in due:
            body: object = orjson.loads(message.stored.body["body"])
            if isinstance(body, dict) and cast(Json, body).get("owner") == owner:
                found.append(message.stored.body["id"])
    return found


async def _receipt(app: App, work: ErasureRecord, *, status: JobStatus) -> None:
    def apply(body: Document | None) -> Document:
        if body is None:
            raise NotFound("The receipt is gone.")
        changes: Json = {"status": status, "counts": _sum(work.counts, work.found)}
        if status == "completed":
            changes["completed_at"] = app.clock.now()
        return DataJobRecord.model_validate(body).model_copy(update=changes).document()

    await mutate(app.store, DIRECTORY, work.receipt, [], [Change(work.receipt, apply)])


def _sum(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in sorted(one.keys() | other.keys())}


# profile and retention


async def read_profile(app: App, owner: str) -> ProfileRecord:
    stored = await app.store.read(STATE, owner, PROFILE)
    return ProfileRecord.model_validate(stored.body) if stored else ProfileRecord()


async def update_profile(app: App, owner: str, **given: Any) -> ProfileRecord:
    """Change the fields given."""
    now = app.clock.now()

    def apply(body: Document | None) -> Document:
        record = ProfileRecord.model_validate(body) if body else ProfileRecord()
        record = record.model_copy(update={**given, "updated_at": now})
        return record.model_copy(update={"due": now if record.retention_days else None}).document()

    _, stored = await mutate(app.store, STATE, owner, [], [Change(PROFILE, apply)])
    return ProfileRecord.model_validate(stored[0].body)


async def apply_retention(app: App, owner: str) -> int:
    """Delete, for good, what has not changed for as long as the owner's policy says; look again in a day.

    Returns:
        How many conversations and responses went.
    """
    profile = await read_profile(app, owner)
    gone = 0
    if profile.retention_days:
        before = app.clock.now() - profile.retention_days * 86_400
        gone += await _purge_conversations(app, owner, before)
        gone += await _purge_turns(app, owner, before)

    def apply(body: Document | None) -> Document:
        record = ProfileRecord.model_validate(body) if body else ProfileRecord()
        due = app.clock.now() + 86_400 if record.retention_days else None
        return record.model_copy(update={"due": due}).document()

    await mutate(app.store, STATE, owner, [], [Change(PROFILE, apply)])
    return gone


async def _purge(app: App, owner: str, conversation: str) -> bool:
    """A hidden conversation, and the links to it."""
    await revoke_shares_of(app, owner, conversation)
    return await purge(app.store, app.clock, owner, conversation)


class _Kept(Exception):
    """It was used, or pinned, since it was looked at."""


async def _purge_conversations(app: App, owner: str, before: float) -> int:
    def hide(body: Document | None) -> Document:
        if body is None or body.get("kind") != "conversation":
            raise _Kept
        header = ConversationRecord.model_validate(body)
        if header.updated_at >= before or header.running is not None or header.pinned:
            raise _Kept
        return header.model_copy(update={"kind": DELETED, "due": 0.0}).document()

    gone = 0
    after: str | None = None
    while page := await conversations(app.store, owner, after=after, limit=100, order="asc"):
        for header in page:
            if header.updated_at >= before:
                return gone
            with suppress(_Kept):
                await mutate(app.store, STATE, owner, [], [Change(header.id, hide)])
                gone += await _purge(app, owner, header.id)
        after = page[-1].sort
    return gone


async def _purge_turns(app: App, owner: str, before: float) -> int:
    """Responses and chat completions outside of conversations; of a chain, all of it or nothing.

    What was forked off a conversation goes by its own age, and stays as long as something younger goes on from it.
    """
    newest: dict[str, float] = {}
    ids: dict[str, list[str]] = {}
    forked: dict[str, str | None] = {}
    async for page in everything(app.store, STATE, owner):
        for stored in page:
            body = stored.body
            if body.get("kind") != "turn" or body.get("conversation") is not None:
                continue
            is_fork = body["group"].startswith("conv_")
            chain = body["id"] if is_fork or body["group"] == CHATS else body["group"]
            at = body.get("completed_at") or (body["created_at"] if body["status"] in FINAL else _FOREVER)
            newest[chain] = max(newest.get(chain, 0.0), at)
            ids.setdefault(chain, []).append(body["id"])
            if is_fork:
                forked[chain] = body.get("parent")
    for id_, parent in forked.items():
        above = parent
        while above in forked and newest[above] < newest[id_]:
            newest[above] = newest[id_]
            above = forked[above]
    old = [id_ for chain, at in newest.items() if at < before for id_ in ids[chain]]
    for start in range(0, len(old), 90):
        await remove_turns(app.store, owner, old[start : start + 90], now=app.clock.now())
    comments = [f"feedback_{id_.removeprefix('resp_')}" for id_ in old]
    await remove(app.store, owner, comments, "feedback", now=app.clock.now())
    return len(old)
