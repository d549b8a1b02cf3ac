"""Large records: nobody notices, but for the size of what is stored."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import orjson
import pytest

from shared.clock import SystemClock
from shared.storage.base import STATE, AlreadyExists, Create, Delete, Query, Replace, Upsert
from shared.storage.folder import FolderBlobStore
from shared.storage.large import RECORD_BYTES, LargeFieldStore
from shared.storage.sqlite import SqliteStore

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
        self.raw = SqliteStore(":memory:", SystemClock())
        self.blobs = FolderBlobStore(str(folder))
        self.store = LargeFieldStore(self.raw, self.blobs)

    async def names(self) -> list[str]:
        return sorted([name async for name in self.blobs.list(OWNER)])


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncGenerator[Stores]:
    made = Stores(tmp_path)
    yield made
    await made.store.close()


async def test_a_large_record_comes_back_as_it_was(stores: Stores) -> None:
    await stores.store.batch(STATE, OWNER, [Create(RECORD)])
    fresh = LargeFieldStore(stores.raw, stores.blobs)  # nothing cached

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


async def test_many_large_reads_at_once(stores: Stores) -> None:
    records = [{**RECORD, "id": f"resp_{n}", "sort": f"{n}"} for n in range(8)]
    await asyncio.gather(*(stores.store.batch(STATE, OWNER, [Create(record)]) for record in records))

    found = await LargeFieldStore(stores.raw, stores.blobs).query(STATE, OWNER, Query(kind="turn", limit=20))
    assert [stored.body for stored in found] == records
