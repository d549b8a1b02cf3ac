"""An owner's rights over their data: export, import, erase, retention; each a job that goes on where it was broken off.

A job is claimed by moving its `due` ahead, checkpointed after each step, and found again by that `due` when its worker
has died. Every step is safe to run twice.
"""

import asyncio
import logging
from typing import Any, cast

import orjson

from shared.app import App
from shared.conversations.deletion import purge, remove, remove_turns
from shared.conversations.records import FINAL, ConversationRecord, Record, TurnRecord
from shared.conversations.repository import conversations
from shared.errors import AssistantError, Conflict, NotFound, StorageUnavailable
from shared.ids import derived_token
from shared.jobs.base import JOBS
from shared.privacy.archive import Blob, open_archive, read_blobs, read_entry, read_records, write_archive
from shared.privacy.foreign import foreign_records
from shared.privacy.pages import everything
from shared.privacy.records import PROFILE, DataJobRecord, ErasureRecord, JobType, ProfileRecord
from shared.privacy.registry import OWNERS_DIRECTORY
from shared.storage.base import (
    DIRECTORY,
    EVENTS,
    KNOWLEDGE,
    STATE,
    AlreadyExists,
    BatchFailed,
    Create,
    Document,
    Missing,
    Replace,
    Stale,
    Stored,
    Upsert,
)
from shared.storage.mutate import Change, mutate
from shared.turns.cancel import cancel_turn
from shared.wire.responses import CreateResponse, effective_params

type Json = dict[str, Any]

log = logging.getLogger("companion.privacy")

CLAIM_SECONDS = 60.0
MAX_TRIES = 5
KEPT_SECONDS = 7 * 86_400
"""How long the file of an export, and the record of a job, stay."""
RECEIPT_SECONDS = 90 * 86_400
QUEUES = ("turns", "turns-low", "jobs")
_FOREVER = 1e12
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
    await app.store.batch(DIRECTORY, receipt.id, [Create(receipt.document())])
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
    token, now = app.ids.token(), app.clock.now()
    job = DataJobRecord(id=f"datajob_{token}", type=type_, created_at=now, due=now, ttl=KEPT_SECONDS)
    if data is not None:
        await app.blobs.put(owner, f"{job.id}.in", data, content_type="application/octet-stream")
    await app.store.batch(STATE, owner, [Create(job.document())])
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
        stored = await app.store.read(STATE, body["owner"], body["job"])
        if stored is not None and stored.body.get("kind") == "data_job":
            await _run_job(app, body["owner"], stored)


async def run_due(app: App) -> int:
    """Jobs whose worker died, conversations deleted long ago, retention that is due. Returns how many it looked at."""
    now = app.clock.now()
    count = 0
    for due in await app.store.due(DIRECTORY, "erasure", before=now - CLAIM_SECONDS):
        count += await _quietly(_run_erasure(app, due.stored))
    for due in await app.store.due(STATE, "data_job", before=now - CLAIM_SECONDS):
        count += await _quietly(_run_job(app, due.partition, due.stored))
    for due in await app.store.due(STATE, "conversation.deleted", before=now):
        count += await _quietly(purge(app.store, app.clock, due.partition, due.stored.body["id"]))
    for due in await app.store.due(STATE, "profile", before=now):
        count += await _quietly(apply_retention(app, due.partition))
    return count


async def _quietly(work: Any) -> int:
    try:
        await work
    except (AssistantError, BatchFailed):
        log.warning("job.failed", exc_info=True)
    return 1


async def _run_job(app: App, owner: str, stored: Stored) -> None:
    job = DataJobRecord.model_validate(stored.body)
    if job.status in ("completed", "failed"):
        return
    job = job.model_copy(
        update={"status": "in_progress", "tries": job.tries + 1, "due": app.clock.now() + CLAIM_SECONDS}
    )
    try:
        await app.store.batch(STATE, owner, [Replace(job.document(), stored.etag)])
    except (Stale, Missing):
        return  # another worker has it
    error: str | None = None
    counts: dict[str, int] = {}
    try:
        counts = await (_export(app, owner, job) if job.type == "export" else _import(app, owner, job))
    except StorageUnavailable:
        if job.tries < MAX_TRIES:
            raise  # delivered again
        error = "The store could not be reached."
    except AssistantError as failure:
        error = failure.message
    status = "failed" if error else "completed"
    done = {"status": status, "completed_at": app.clock.now(), "error": error, "due": None}

    def finish(body: Document | None) -> Document:
        if body is None:
            raise NotFound("The job is gone.")
        found = DataJobRecord.model_validate(body)
        return found.model_copy(update=done | {"counts": counts or found.counts}).document()

    await mutate(app.store, STATE, owner, [], [Change(job.id, finish)])


async def _export(app: App, owner: str, job: DataJobRecord) -> dict[str, int]:
    records: list[Json] = []
    for container in (STATE, KNOWLEDGE):
        async for page in everything(app.store, container, owner):
            records += [stored.body for stored in page]
    blobs: list[Blob] = []
    async for name in app.blobs.list(owner):
        if "/" in name or name.startswith(_OWN_BLOBS):
            continue  # parts of records, which have them again; files of jobs
        blob = await app.blobs.get(owner, name)
        if blob is not None:
            blobs.append((name, blob[1], blob[0]))
    data = await asyncio.to_thread(write_archive, records, blobs, now=job.created_at)
    await app.blobs.put(owner, f"{job.id}.zip", data, content_type="application/zip")
    manifest = orjson.loads(read_entry(open_archive(data), "manifest.json"))
    counts: dict[str, int] = manifest["counts"]
    return {**{f"state/{kind}": count for kind, count in counts.items()}, "blobs": len(blobs)}


async def _import(app: App, owner: str, job: DataJobRecord) -> dict[str, int]:
    blob = await app.blobs.get(owner, f"{job.id}.in")
    if blob is None:
        raise NotFound("The file to import is gone.")
    records, blobs = await asyncio.to_thread(_read_upload, blob[0], owner, app.clock.now())
    counts: dict[str, int] = {}
    for place, record in enumerate(records):
        body = record.document()
        kind = str(body["kind"])
        counts[f"state/{kind}"] = counts.get(f"state/{kind}", 0) + 1
        if place < job.step:
            continue
        await _put_new(app, owner, body)
        if place % 200 == 199:
            job = await _checkpoint(app, owner, job, step=place + 1)
    for name, content_type, data in blobs:
        await app.blobs.put(owner, name, data, content_type=content_type)
        counts["blobs"] = counts.get("blobs", 0) + 1
    await app.blobs.delete(owner, f"{job.id}.in")
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


_PARAMS = frozenset(effective_params(CreateResponse.model_validate({}), model=""))


def _renderable(record: Record) -> Record:
    """A turn whose settings are not whole is kept as part of its conversation, not as a response."""
    if isinstance(record, TurnRecord) and record.is_stored and not record.params.keys() >= _PARAMS:
        return record.model_copy(update={"is_stored": False, "params": {"model": "imported"}})
    return record


async def _put_new(app: App, owner: str, body: Json) -> None:
    """Write it unless it is there: what the owner did since an earlier try or import stays."""
    try:
        await app.store.batch(STATE, owner, [Create(body)])
    except AlreadyExists:
        return


async def _checkpoint(app: App, owner: str, job: DataJobRecord, *, step: int) -> DataJobRecord:
    due = app.clock.now() + CLAIM_SECONDS

    def apply(body: Document | None) -> Document:
        if body is None:
            raise NotFound("The job is gone.")
        return DataJobRecord.model_validate(body).model_copy(update={"step": step, "due": due}).document()

    await mutate(app.store, STATE, owner, [], [Change(job.id, apply)])
    return job.model_copy(update={"step": step, "due": due})


# erasing


async def _run_erasure(app: App, stored: Stored) -> None:
    work = ErasureRecord.model_validate(stored.body)
    claimed = work.model_copy(update={"due": app.clock.now() + CLAIM_SECONDS, "tries": work.tries + 1})
    try:
        await app.store.batch(DIRECTORY, work.id, [Replace(claimed.document(), stored.etag)])
    except (Stale, Missing):
        return
    await _receipt(app, work.receipt, {}, status="in_progress")
    for _ in range(MAX_TRIES):  # what began before the keys were gone may write once more
        counts = await erase_once(app, work.owner)
        await _receipt(app, work.receipt, counts, status="in_progress")
        if not counts:
            break
    await _receipt(app, work.receipt, {}, status="completed")
    await app.store.erase(DIRECTORY, work.id)
    log.info("erasure.completed", extra={"receipt": work.receipt})


async def erase_once(app: App, owner: str) -> dict[str, int]:
    """Everything of the owner's that is there now, in an order that can be broken off anywhere.

    What leads to something else goes last: the records of keys and links after the directory, turns after journals.

    Returns:
        How many went, per store and kind; empty when there was nothing.
    """
    counts: dict[str, int] = {}

    def count(name: str, number: int = 1) -> None:
        if number:
            counts[name] = counts.get(name, 0) + number

    running: list[str] = []
    turns: list[str] = []
    async for page in everything(app.store, STATE, owner):
        for document in page:
            body = document.body
            kind = str(body.get("kind"))
            count(f"state/{kind}")
            if kind in OWNERS_DIRECTORY:
                id_ = body[OWNERS_DIRECTORY[kind]]
                count(f"directory/{kind}", await app.store.erase(DIRECTORY, id_))
            if kind == "turn":
                turns.append(body["id"])
                running += [body["id"]] if body["status"] not in FINAL else []
    for id_ in running:
        await _stop(app, owner, id_)
    for start in range(0, len(turns), 64):
        erased = await asyncio.gather(*(app.store.erase(EVENTS, id_) for id_ in turns[start : start + 64]))
        count("events", sum(erased))
    count("knowledge", await app.store.erase(KNOWLEDGE, owner))
    count("queue", await _erase_messages(app, owner))
    count("blobs", await app.blobs.erase(owner))
    await app.store.erase(STATE, owner)
    return counts


async def _stop(app: App, owner: str, turn: str) -> None:
    try:
        await cancel_turn(app, owner, turn)
    except AssistantError:
        log.info("erasure.turn_not_stopped", exc_info=True)


async def _erase_messages(app: App, owner: str) -> int:
    """Messages in the store's own queue. A queue service hands its few out soon, to workers that find nothing."""
    gone = 0
    for queue in (name for each in QUEUES for name in (each, f"{each}-poison")):
        for due in await app.store.due(DIRECTORY, f"message:{queue}", before=_FOREVER, limit=1000):
            body: object = orjson.loads(due.stored.body["body"])
            if isinstance(body, dict) and cast(Json, body).get("owner") == owner:
                gone += await app.store.erase(DIRECTORY, due.stored.body["id"])
    return gone


async def _receipt(app: App, id_: str, counts: dict[str, int], *, status: str) -> None:
    is_final = status == "completed"

    def apply(body: Document | None) -> Document:
        if body is None:
            raise NotFound("The receipt is gone.")
        record = DataJobRecord.model_validate(body)
        total = {name: record.counts.get(name, 0) + number for name, number in counts.items()}
        changes: Json = {"status": status, "counts": record.counts | total}
        if is_final and record.completed_at is None:
            changes["completed_at"] = app.clock.now()
        return record.model_copy(update=changes).document()

    await mutate(app.store, DIRECTORY, id_, [], [Change(id_, apply)])


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


async def _purge_conversations(app: App, owner: str, before: float) -> int:
    gone = 0
    after: str | None = None
    while page := await conversations(app.store, owner, after=after, limit=100, order="asc"):
        for header in page:
            if header.updated_at >= before:
                return gone
            if header.running is None and not header.pinned:
                hidden = header.model_copy(update={"kind": "conversation.deleted", "due": 0.0})
                await app.store.batch(STATE, owner, [Upsert(hidden.document())])
                gone += await purge(app.store, app.clock, owner, header.id)
        after = page[-1].sort
    return gone


async def _purge_turns(app: App, owner: str, before: float) -> int:
    """Responses and chat completions outside of conversations; of a chain, all of it or nothing."""
    newest: dict[str, float] = {}
    ids: dict[str, list[str]] = {}
    async for page in everything(app.store, STATE, owner):
        for stored in page:
            body = stored.body
            if body.get("kind") != "turn" or str(body["group"]).startswith("conv_"):
                continue
            chain = body["id"] if body["group"] == "chat" else body["group"]
            at = body.get("completed_at") or (body["created_at"] if body["status"] in FINAL else _FOREVER)
            newest[chain] = max(newest.get(chain, 0.0), at)
            ids.setdefault(chain, []).append(body["id"])
    old = [id_ for chain, at in newest.items() if at < before for id_ in ids[chain]]
    for start in range(0, len(old), 90):
        await remove_turns(app.store, owner, old[start : start + 90], now=app.clock.now())
    comments = [f"feedback_{id_.removeprefix('resp_')}" for id_ in old]
    await remove(app.store, owner, comments, "feedback", now=app.clock.now())
    return len(old)
