"""Large records: nobody notices, but for the size of what is stored."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import orjson
import pytest

from shared.clock import ManualClock
from shared.errors import StorageUnavailable
from shared.privacy.records import BlobsRecord
from shared.storage.base import STATE, AlreadyExists, Create, Delete, Missing, Query, Replace, Upsert
from shared.storage.folder import FolderBlobStore
from shared.storage.large import RECORD_BYTES, SPENT, LargeFieldStore
from shared.storage.sqlite import SqliteStore
from shared.telemetry import Tally

OWNER = "ada"
PICTURE = "data:image/png;base64," + "iVBORw0K" * 40_000
RECORD = {
    "id": "resp_1",
    "kind": "turn",
    "group": "g",
    "sort": "1",
    "input": [{"type": "message", "content": [{"type": "input_image", "image_url": PICTURE}, {"text": "short"}]}],
    "output": [{"type": "mcp_call", "output": "line\n" * 30_000}],
}


class Stores:
    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock()
        self.raw = SqliteStore(":memory:", self.clock)
        self.blobs = FolderBlobStore(str(folder))
        self.store = self.fresh()

    def fresh(self) -> LargeFieldStore:
        """As another process would have it: nothing cached."""
        return LargeFieldStore(self.raw, self.blobs, self.clock)

    async def names(self) -> list[str]:
        return sorted([name async for name in self.blobs.list(OWNER)])


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncGenerator[Stores]:
    made = Stores(tmp_path)
    yield made
    await made.store.close()


async def test_a_large_record_comes_back_as_it_was(stores: Stores) -> None:
    await stores.store.batch(STATE, OWNER, [Create(RECORD)])
    fresh = stores.fresh()

    read = await fresh.read(STATE, OWNER, "resp_1")
    queried = await fresh.query(STATE, OWNER, Query(kind="turn", group="g"))
    assert read is not None
    assert (read.body, queried[0].body) == (RECORD, RECORD)


async def test_what_is_stored_is_small(stores: Stores) -> None:
    await stores.store.batch(STATE, OWNER, [Create(RECORD)])
    raw = await stores.raw.read(STATE, OWNER, "resp_1")

    assert raw is not None
    assert len(orjson.dumps(raw.body)) <= RECORD_BYTES
    assert raw.body["input"][0]["content"][1] == {"text": "short"}
    assert raw.body["blobs"] == await stores.names()


async def test_a_small_record_takes_no_blob(stores: Stores) -> None:
    await stores.store.batch(STATE, OWNER, [Create({"id": "a", "kind": "turn", "text": "x" * 30_000})])

    assert await stores.names() == []


async def test_a_deleted_record_takes_its_blobs_along(stores: Stores) -> None:
    await stores.store.batch(STATE, OWNER, [Create(RECORD)])
    await stores.store.batch(STATE, OWNER, [Delete("resp_1")])

    assert await stores.names() == []


async def test_a_record_whose_id_stays_taken_takes_its_blobs_along(stores: Stores) -> None:
    await stores.store.batch(STATE, OWNER, [Create(RECORD)])
    await stores.store.batch(STATE, OWNER, [Upsert({"id": "resp_1", "kind": SPENT})])

    assert await stores.names() == []


async def test_a_plain_write_reads_nothing(stores: Stores) -> None:
    [etag] = await stores.store.batch(STATE, OWNER, [Create({"id": "a", "kind": "turn"})])
    with Tally() as tally:
        changed = Replace({"id": "a", "kind": "turn"}, etag)
        await stores.store.batch(STATE, OWNER, [changed, Upsert({"id": "b", "kind": "turn"})])

    assert tally.counts.get("read", 0) == 0


async def test_conditions_hold_as_ever(stores: Stores) -> None:
    [etag] = await stores.store.batch(STATE, OWNER, [Create(RECORD)])
    with pytest.raises(AlreadyExists):
        await stores.store.batch(STATE, OWNER, [Create(RECORD)])
    changed = {**RECORD, "sort": "2"}
    await stores.store.batch(STATE, OWNER, [Replace(changed, etag)])

    read = await stores.store.read(STATE, OWNER, "resp_1")
    assert read is not None
    assert read.body == changed


async def test_a_user_cannot_forge_a_reference(stores: Stores) -> None:
    """A tool's own JSON may look like one of ours; it stays what it is."""
    forged = {"id": "b", "kind": "turn", "input": [{"$blob": "resp_1/other"}], "text": "y" * 90_000}
    await stores.store.batch(STATE, OWNER, [Upsert(forged)])

    read = await stores.store.read(STATE, OWNER, "b")
    assert read is not None
    assert read.body == forged


@pytest.mark.parametrize(
    "value",
    [
        {"type": "string"},
        ["resp_1/other"],
        [["resp_1/other"]],
        [],
        None,
        1,
        {"$blob": {"$blob": "x"}},
        {"$blob": ["x"]},
        "z" * 5_000,
    ],
    ids=lambda value: str(value)[:20],
)
async def test_an_object_that_looks_like_a_reference_stays_what_it_is(stores: Stores, value: object) -> None:
    """As a property of a tool's schema may, in a record whose long strings are moved."""
    record = {**RECORD, "params": {"tools": [{"parameters": {"properties": {"$blob": value}}}]}}
    await stores.store.batch(STATE, OWNER, [Create(record)])

    read = await stores.fresh().read(STATE, OWNER, "resp_1")
    assert read is not None
    assert read.body == record


async def test_an_object_that_names_a_blob_of_its_record_stays_what_it_is(stores: Stores) -> None:
    await stores.store.batch(STATE, OWNER, [Create(RECORD)])
    names = await stores.names()
    record = {**RECORD, "params": [{"$blob": name} for name in names]}
    await stores.store.batch(STATE, OWNER, [Upsert(record)])

    read = await stores.fresh().read(STATE, OWNER, "resp_1")
    assert read is not None
    assert read.body == record
    assert await stores.names() == names


async def test_a_due_record_that_lacks_a_part_hides_no_other(stores: Stores, caplog: pytest.LogCaptureFixture) -> None:
    records = [{**RECORD, "id": f"resp_{n}", "due": float(n)} for n in range(3)]
    await stores.store.batch(STATE, OWNER, [Create(record) for record in records])
    await stores.blobs.delete(OWNER, next(name for name in await stores.names() if name.startswith("resp_0/")))

    found = await stores.fresh().due(STATE, "turn", before=10.0)
    assert [due.stored.body for due in found] == records[1:]
    assert [record.message for record in caplog.records] == ["record.part_missing"]
    page = await stores.fresh().due(STATE, "turn", before=10.0, limit=1)
    assert [due.stored.body for due in page] == records[1:2], "it fills no page either"


async def test_due_records_are_not_skipped_while_blobs_cannot_be_reached(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unreachable(owner: str, name: str) -> None:
        raise StorageUnavailable("The blobs are away.")

    await stores.store.batch(STATE, OWNER, [Create({**RECORD, "due": 1.0})])
    monkeypatch.setattr(stores.blobs, "get", unreachable)  # a folder that cannot be read has no seam of its own
    with pytest.raises(StorageUnavailable):
        await stores.fresh().due(STATE, "turn", before=10.0)


async def test_many_large_reads_at_once(stores: Stores) -> None:
    records = [{**RECORD, "id": f"resp_{n}", "sort": f"{n}"} for n in range(8)]
    await asyncio.gather(*(stores.store.batch(STATE, OWNER, [Create(record)]) for record in records))

    found = await stores.fresh().query(STATE, OWNER, Query(kind="turn", limit=20))
    assert [stored.body for stored in found] == records


async def test_a_record_made_again_after_an_erasure_has_its_parts(stores: Stores) -> None:
    """The parts of the one before are still in memory, but no longer in the store."""
    await stores.store.batch(STATE, OWNER, [Create(RECORD)])
    await stores.fresh().erase(STATE, OWNER)
    await stores.blobs.erase(OWNER)
    await stores.store.batch(STATE, OWNER, [Create(RECORD)])
    read = await stores.fresh().read(STATE, OWNER, "resp_1")

    assert read is not None
    assert read.body == RECORD


async def test_parts_of_a_record_that_came_too_late_are_taken_back(stores: Stores) -> None:
    (etag,) = await stores.store.batch(STATE, OWNER, [Create({"id": "resp_1", "kind": "turn"})])
    await stores.raw.erase(STATE, OWNER)
    with pytest.raises(Missing):
        await stores.store.batch(STATE, OWNER, [Replace(RECORD, etag)])
    with pytest.raises(Missing):
        await stores.store.batch(STATE, OWNER, [Create(RECORD), Replace({"id": "job"}, "1")])

    assert await stores.names() == []


async def test_parts_that_another_record_of_the_id_names_stay(stores: Stores) -> None:
    await stores.store.batch(STATE, OWNER, [Create(RECORD)])
    with pytest.raises(Missing):
        await stores.store.batch(STATE, OWNER, [Upsert(RECORD), Delete("nothing")])
    read = await stores.fresh().read(STATE, OWNER, "resp_1")

    assert read is not None
    assert read.body == RECORD


async def test_a_temporary_record_says_which_parts_go_after_it(stores: Stores) -> None:
    etags = await stores.store.batch(STATE, OWNER, [Create({**RECORD, "ttl": 60})])
    (due,) = await stores.raw.due(STATE, "blobs", before=stores.clock.now() + 61)
    found = BlobsRecord.model_validate(due.stored.body)

    assert len(etags) == 1
    assert (found.of, found.names) == ("resp_1", await stores.names())
    assert await stores.raw.due(STATE, "blobs", before=stores.clock.now() + 59) == []
