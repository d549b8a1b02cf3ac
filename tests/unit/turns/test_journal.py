"""The journal as a fence."""

import asyncio
from pathlib import Path

import pytest

from shared.clock import ManualClock
from shared.storage.sqlite import SqliteStore
from shared.turns.events import Batch
from shared.turns.journal import Fenced, Journal, Tail, read_tail, seal


async def test_a_seal_comes_to_a_writer_that_is_quicker_than_a_reading_of_the_whole(tmp_path: Path) -> None:
    clock = ManualClock()
    store = SqliteStore(str(tmp_path / "companion.db"), clock)
    old = Journal(store, "resp_1", clock, writer="old", lease=5.0)
    new = Journal(store, "resp_1", clock, writer="new", lease=5.0, attempt=2)

    async def read() -> Tail:
        tail = await read_tail(store, "resp_1")
        for _ in range(2):  # meanwhile
            try:
                await old.append(Batch(0, 0, data=b"more"))
            except Fenced:
                break
        return tail

    await read()
    tail = await asyncio.wait_for(seal(new, read), 5)
    with pytest.raises(Fenced):
        await old.append(Batch(0, 0, data=b"late"))
    await store.close()

    assert (tail.number, tail.entries[-1].attempt) == (new.number, 2)
    assert [entry.batch.data for entry in tail.entries] == [b"more", b"more", b""]
