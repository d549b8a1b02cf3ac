"""The writer under fire: other processes, locks, full disks, several event loops, and ends in the middle."""

import asyncio
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from shared.clock import ManualClock, SystemClock
from shared.errors import StorageUnavailable
from shared.storage import sqlite_schema, sqlite_writer
from shared.storage.base import STATE, AlreadyExists, Create, Upsert
from shared.storage.sqlite import SqliteStore
from shared.storage.sqlite_schema import open_writer
from shared.storage.sqlite_writer import LARGEST_GROUP, Change, Writer
from tests.processes import ROOT


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "companion.db")


async def create(store: SqliteStore, name: str, **fields: Any) -> None:
    await store.batch(STATE, "owner", [Create({"id": name, **fields})])


async def told(*work: Awaitable[Any]) -> list[Any]:
    return await asyncio.gather(*work, return_exceptions=True)


def names(path: str, partition: str = "owner") -> set[str]:
    """What is in the file, after a check of all of it."""
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    rows = connection.execute("SELECT id FROM documents WHERE partition = ?", (partition,)).fetchall()
    connection.close()
    assert len(rows) == len(set(rows))
    return {name for (name,) in rows}


@contextmanager
def locked(path: str) -> Generator[Callable[[], None]]:
    """Another connection writes, until the function is called or the block ends."""
    holder = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN IMMEDIATE")

    def let_go() -> None:
        if holder.in_transaction:
            holder.execute("ROLLBACK")

    try:
        yield let_go
    finally:
        let_go()
        holder.close()


def log_size(path: str) -> int:
    try:
        return Path(f"{path}-wal").stat().st_size
    except FileNotFoundError:
        return 0


PAIRS = """
import asyncio, sys
from shared.clock import SystemClock
from shared.storage.base import STATE, Create
from shared.storage.sqlite import SqliteStore

async def main(path, name):
    store = SqliteStore(path, SystemClock())
    async def pairs(lane):
        for number in range(100_000):
            key = f"{name}-{lane}-{number}"
            text = "x" * (number * 997 % 9000)
            await store.batch(STATE, "owner", [Create({"id": key + side, "text": text}) for side in "ab"])
            print(key, flush=True)
    await asyncio.gather(*(pairs(lane) for lane in range(3)))

asyncio.run(main(*sys.argv[1:]))
"""


def pairs(path: str, name: str) -> subprocess.Popen[str]:
    """A process that writes, and has begun to."""
    process = subprocess.Popen([sys.executable, "-c", PAIRS, path, name], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    return process


class TestOtherProcesses:
    async def test_of_killed_writers_nothing_that_was_told_is_lost_and_no_batch_is_half(self, path: str) -> None:
        store = SqliteStore(path, SystemClock())
        await store.setup()
        writers = [pairs(path, name) for name in ("p0", "p1")]
        ours = [create(store, f"ours-{number}", text="y" * number) for number in range(300)]
        await asyncio.gather(*ours[:150])
        writers[0].kill()
        await asyncio.gather(*ours[150:])
        writers[1].kill()
        printed = [writer.communicate()[0].splitlines() for writer in writers]
        await create(store, "after")
        await store.close()

        found = names(path)
        theirs = {name for name in found if name.startswith("p")}
        assert {f"{key}{side}" for lines in printed for key in lines[:-1] for side in "ab"} <= found
        assert {name[:-1] + "a" for name in theirs} | {name[:-1] + "b" for name in theirs} == theirs
        assert {f"ours-{number}" for number in range(300)} | {"after"} == found - theirs
        assert all(len(lines) > 3 for lines in printed)

    async def test_a_lock_of_another_lets_writes_wait_and_nothing_else(self, path: str) -> None:
        store = SqliteStore(path, ManualClock())
        await create(store, "first")
        with locked(path) as let_go:
            writes = [asyncio.create_task(create(store, f"{number}")) for number in range(300)]
            longest = 0.0
            for _ in range(60):
                before = time.monotonic()
                await asyncio.sleep(0.005)
                assert await store.read(STATE, "owner", "first") is not None
                longest = max(longest, time.monotonic() - before)
            assert not any(write.done() for write in writes)
            let_go()
            await asyncio.wait_for(asyncio.gather(*writes), 5)
        await store.close()

        assert names(path) == {"first"} | {f"{number}" for number in range(300)}
        assert longest < 2

    async def test_past_the_limit_everybody_is_told_and_nothing_was_done(
        self, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sqlite_schema, "BUSY_SECONDS", 0.2)
        store = SqliteStore(path, ManualClock())
        await create(store, "first")
        count = LARGEST_GROUP * 2 + 50
        with locked(path):
            results = await asyncio.wait_for(told(*(create(store, f"{n}") for n in range(count))), 3)
        await asyncio.gather(*(create(store, f"{number}") for number in range(0, count, 2)))
        await store.close()

        assert [type(result) for result in results] == [StorageUnavailable] * count
        assert names(path) == {"first"} | {f"{number}" for number in range(0, count, 2)}

    async def test_the_log_stays_short_while_several_write_steadily(
        self, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A copy that lets others write on never comes to the log's end, so the log would never begin anew."""
        monkeypatch.setattr(sqlite_writer, "CHECKPOINT_EVERY", 40)
        monkeypatch.setattr(sqlite_writer, "LONGEST_LOG", 200)
        open_writer(path).close()
        sizes: list[int] = []

        async def write(name: str) -> None:
            store = SqliteStore(path, SystemClock())
            for number in range(1000):
                await create(store, f"{name}-{number}", text="x" * 200)
                sizes.append(log_size(path))
            await store.close()

        await asyncio.gather(*(asyncio.to_thread(asyncio.run, write(name)) for name in ("a", "b")))

        assert len(names(path)) == 2000
        assert max(sizes) < 8_000_000

    async def test_large_documents_count_for_the_log_as_what_they_are(self, path: str) -> None:
        store = SqliteStore(path, ManualClock())
        longest = 0
        for number in range(240):
            await create(store, f"{number}", text="x" * 500_000)
            longest = max(longest, log_size(path))
        await store.close()

        assert longest < 60_000_000  # of 120 MB that were written

    @pytest.mark.parametrize("seconds", [0.0, 0.001, 0.05])
    async def test_a_long_reader_stops_no_writer_and_the_log_shrinks_after_it(
        self, path: str, monkeypatch: pytest.MonkeyPatch, seconds: float
    ) -> None:
        """Whether the copy of the log ends among the writes, which miss it then, or between two of them."""
        monkeypatch.setattr(sqlite_writer, "CHECKPOINT_EVERY", 20)
        monkeypatch.setattr(sqlite_writer, "LONGEST_LOG", 100)
        store = SqliteStore(path, ManualClock())
        await create(store, "first")
        reader = sqlite3.connect(path, isolation_level=None)
        reader.execute("BEGIN")
        seen = reader.execute("SELECT count(*) FROM documents").fetchone()
        for number in range(200):
            await create(store, f"{number}")
        while_read = log_size(path)
        assert reader.execute("SELECT count(*) FROM documents").fetchone() == seen == (1,)
        reader.close()
        written = 200
        while log_size(path) >= while_read / 4 and written < 2000:
            await create(store, f"{written}")
            await asyncio.sleep(seconds)
            written += 1
        afterwards = log_size(path)
        await store.close()

        assert afterwards < while_read / 4
        assert len(names(path)) == written + 1

    async def test_reads_wait_for_no_thread_that_has_the_connection(self, path: str) -> None:
        store = SqliteStore(path, ManualClock())
        await create(store, "first")
        with locked(path):
            erasing = asyncio.create_task(store.erase(STATE, "another"))  # a thread waits for the lock
            await asyncio.sleep(0.05)
            began = time.monotonic()
            found = await store.read(STATE, "owner", "first")
            seconds = time.monotonic() - began
        await erasing
        await store.close()

        assert found is not None
        assert seconds < sqlite_schema.BUSY_SECONDS / 5

    async def test_what_was_just_written_is_read_while_another_process_writes(self, path: str) -> None:
        store = SqliteStore(path, ManualClock())
        await create(store, "first")
        with locked(path):
            found = await store.read(STATE, "owner", "first")
        other = SqliteStore(path, ManualClock())
        await create(other, "second")
        seen = await store.read(STATE, "owner", "second")
        await other.close()
        await store.close()

        assert found is not None
        assert seen is not None, "what is cached is not what is there"


class TestRows:
    def test_what_this_connection_cannot_read_is_left_to_another(self, path: str) -> None:
        connection = open_writer(path)
        writer = Writer(connection, threading.Lock(), has_file=True)
        before = writer.rows("SELECT 1", ())
        connection.execute("BEGIN")  # as where a rollback failed: what is read here may never have been committed
        within = writer.rows("SELECT 1", ())
        connection.execute("ROLLBACK")
        failed = writer.rows("SELECT 1 FROM nowhere", ())
        after = writer.rows("SELECT 1", ())
        writer.close()
        closed = writer.rows("SELECT 1", ())

        assert (before, within, failed, after, closed) == ([(1,)], None, None, [(1,)], None)


class TestGroups:
    async def test_one_that_fails_takes_nobody_along(self, path: str) -> None:
        writer = Writer(open_writer(path), threading.Lock(), has_file=True)

        def change(name: str) -> Change:
            return Change(("state", "owner", name), (None, None, None, None, None, b"{}"), must_be_new=True)

        results = await told(
            writer.batch([change("a")], 0),
            writer.batch([change("b"), change("a")], 0),
            writer.batch([change("c"), change("\ud800")], 0),
            writer.batch([change("d")], 0),
        )
        writer.close()

        assert [type(result) for result in results] == [list, AlreadyExists, UnicodeEncodeError, list]
        assert names(path) == {"a", "d"}

    async def test_a_cancelled_one_disturbs_no_other(self, path: str) -> None:
        store = SqliteStore(path, ManualClock())
        await store.setup()
        with locked(path):
            writes = [asyncio.create_task(create(store, f"{number}")) for number in range(20)]
            await asyncio.sleep(0.02)
            for write in writes[::2]:
                write.cancel()
            await asyncio.sleep(0.02)
        results = await told(*writes)
        await create(store, "after")
        await store.close()

        assert [type(result) for result in results] == [asyncio.CancelledError, type(None)] * 10
        assert {f"{number}" for number in range(1, 20, 2)} | {"after"} <= names(path)


class TestClose:
    async def test_it_waits_for_a_lock_and_finishes_everything(self, path: str) -> None:
        store = SqliteStore(path, ManualClock())
        await store.setup()
        with locked(path) as let_go:
            writes = [asyncio.create_task(create(store, f"{number}")) for number in range(600)]
            await asyncio.sleep(0.02)
            closing = asyncio.create_task(store.close())
            await asyncio.sleep(0.1)
            assert not closing.done()
            let_go()
            await asyncio.gather(closing, *writes)

        assert len(names(path)) == 600

    async def test_it_waits_once_however_much_there_is(self, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sqlite_schema, "BUSY_SECONDS", 0.3)
        store = SqliteStore(path, ManualClock())
        await create(store, "first")
        count = LARGEST_GROUP * 5
        with locked(path):
            writes = [asyncio.create_task(create(store, f"{number}")) for number in range(count)]
            await asyncio.sleep(0)
            started = time.monotonic()
            await store.close()
            took = time.monotonic() - started
            results = await asyncio.wait_for(told(*writes), 1)

        assert [type(result) for result in results] == [StorageUnavailable] * count
        assert names(path) == {"first"}
        assert took < 5

    async def test_it_waits_for_the_thread_and_for_what_gathered_meanwhile(self, path: str) -> None:
        store = SqliteStore(path, ManualClock())
        await create(store, "first", text="canary")
        with locked(path) as let_go:
            erasing = asyncio.create_task(store.erase(STATE, "owner"))
            await asyncio.sleep(0.02)
            writes = [asyncio.create_task(create(store, f"{number}")) for number in range(20)]
            await asyncio.sleep(0.02)
            closing = asyncio.create_task(store.close())
            await asyncio.sleep(0.02)
            let_go()
            await asyncio.gather(closing, *writes)

        assert await erasing == 1
        assert names(path) == {f"{number}" for number in range(20)}

    async def test_it_may_come_at_any_moment(self, path: str) -> None:
        """While a flush is due, or just begins."""
        for life in range(10):
            store = SqliteStore(path, ManualClock())
            await store.setup()
            writes = [asyncio.create_task(create(store, f"{life}-{number}")) for number in range(300)]
            for _ in range(life % 5):
                await asyncio.sleep(0)
            results = (await told(asyncio.wait_for(store.close(), 5), *writes))[1:]
            assert {type(result) for result in results} <= {type(None), StorageUnavailable}
            accepted = {f"{life}-{number}" for number, result in enumerate(results) if result is None}
            found = {name for name in names(path) if name.startswith(f"{life}-")}
            assert found == accepted

    async def test_what_comes_afterwards_is_refused(self, path: str) -> None:
        writer = Writer(open_writer(path), threading.Lock(), has_file=True)
        writer.close()

        with pytest.raises(StorageUnavailable, match="closed"):
            await writer.erase("state", "owner", 0)


class TestEventLoops:
    async def test_two_in_two_threads_share_a_store(self, path: str) -> None:
        store = SqliteStore(path, ManualClock())
        await store.setup()

        async def write(name: str) -> None:
            for number in range(40):
                await asyncio.gather(*(create(store, f"{name}-{number}-{lane}") for lane in range(10)))
                assert await store.read(STATE, "owner", f"{name}-{number}-0") is not None

        await asyncio.wait_for(
            asyncio.gather(*(asyncio.to_thread(asyncio.run, write(name)) for name in ("a", "b"))), 20
        )
        await store.close()

        assert len(names(path)) == 800

    async def test_one_that_ends_with_a_flush_due_keeps_no_other_from_writing(self, path: str) -> None:
        store = SqliteStore(path, ManualClock())
        await store.setup()

        async def leave() -> None:
            write = asyncio.create_task(create(store, "left"))
            await asyncio.sleep(0)
            write.cancel()

        def begin_and_leave() -> None:
            loop = asyncio.new_event_loop()
            task = loop.create_task(leave())
            while not task.done():
                loop.call_soon(loop.stop)
                loop.run_forever()
            loop.close()

        await asyncio.to_thread(begin_and_leave)
        await asyncio.wait_for(create(store, "mine"), 3)
        await store.close()

        assert "mine" in names(path)

    @pytest.mark.parametrize("how", ["a lock", "a thread"])
    async def test_one_that_ends_while_it_waits_leaves_no_other_waiting(self, path: str, how: str) -> None:
        store = SqliteStore(path, ManualClock())
        await create(store, "first")
        ended, joined = threading.Event(), threading.Event()

        def live_shortly() -> None:
            async def main() -> None:
                work = store.erase(STATE, "nobody") if how == "a thread" else create(store, "theirs")
                task = asyncio.create_task(work)
                await asyncio.to_thread(joined.wait)
                await asyncio.sleep(0.05)  # its flush finds what the other has asked for
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

            asyncio.run(main())
            ended.set()

        with locked(path) as let_go:
            living = asyncio.create_task(asyncio.to_thread(live_shortly))
            await asyncio.sleep(0.02)
            write = asyncio.create_task(create(store, "mine"))
            await asyncio.sleep(0.01)
            joined.set()
            await living
            assert ended.is_set()
            assert not write.done()
            let_go()
            await asyncio.wait_for(write, 3)
        await store.close()

        assert "mine" in names(path)


FULL = """
import asyncio, resource, sys
from shared.clock import ManualClock
from shared.errors import StorageUnavailable
from shared.storage.base import STATE, Create
from shared.storage.sqlite import SqliteStore

async def main(path, lanes):
    store = SqliteStore(path, ManualClock())
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    await store.batch(STATE, "owner", [Create({"id": "first"})])
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, hard))
    kept, refused = ["first"], []
    async def create(name):
        try:
            await store.batch(STATE, "owner", [Create({"id": name, "text": "x" * 5000})])
            kept.append(name)
        except StorageUnavailable:
            refused.append(name)
    for number in range(200):
        await asyncio.gather(*(create(f"{number}-{lane}") for lane in range(int(lanes))))
    seen = {one.body["id"] for one in await store.scan(STATE, "owner")}
    assert seen == set(kept), (seen ^ set(kept))
    assert refused and len(kept) > 5, (len(kept), len(refused))
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    again = refused[:]
    refused.clear()
    for name in again:
        await create(name)
    assert not refused
    seen = {one.body["id"] for one in await store.scan(STATE, "owner")}
    assert seen == set(kept)
    assert await store.erase(STATE, "owner") == len(kept)
    await store.close()
    print("done")

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("lanes", ["1", "7"])
def test_a_full_disk_is_told_to_whom_it_concerns_and_forgotten_when_there_is_room(path: str, lanes: str) -> None:
    printed = subprocess.check_output([sys.executable, "-c", FULL, path, lanes], cwd=ROOT, text=True, timeout=60)

    assert printed == "done\n"
    assert names(path) == set()


class TestErase:
    async def test_writes_go_on_around_it(self, tmp_path: Path, path: str) -> None:
        store, other = SqliteStore(path, ManualClock()), SqliteStore(path, ManualClock())

        async def write(to: SqliteStore, name: str) -> None:
            for number in range(100):
                await create(to, f"{name}-{number}")

        writing = asyncio.gather(write(store, "a"), asyncio.to_thread(asyncio.run, write(other, "b")))
        for number in range(8):
            await store.batch(STATE, f"canary-{number}", [Upsert({"id": "x", "text": f"canary-{number}-" * 500})])
            assert await store.erase(STATE, f"canary-{number}") == 1
        await writing
        contents = await asyncio.to_thread(lambda: b"".join(file.read_bytes() for file in tmp_path.iterdir()))
        await store.close()
        await other.close()

        assert len(names(path)) == 200
        assert b"canary-" not in contents

    async def test_a_reader_of_the_log_is_told_and_the_debt_is_paid_later(
        self, tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sqlite_schema, "BUSY_SECONDS", 0.2)
        store = SqliteStore(path, ManualClock())
        await create(store, "mine", text="canary")
        reader = sqlite3.connect(path, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM documents").fetchone()

        with pytest.raises(StorageUnavailable):
            await store.erase(STATE, "owner")
        await create(store, "next")
        reader.close()
        assert await store.erase(STATE, "nobody") == 0
        contents = await asyncio.to_thread(lambda: b"".join(file.read_bytes() for file in tmp_path.iterdir()))
        await store.close()

        assert b"canary" not in contents
        assert names(path) == {"next"}
