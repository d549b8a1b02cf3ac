"""The one writer of a SQLite store: a thread that commits whatever is waiting as one group.

The event loop never waits for a lock or a disk: it hands over a job and awaits its future. While one group is being
committed the next one gathers, so the more tasks write at once, the less each write costs.
"""

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from shared.errors import StorageUnavailable
from shared.storage.base import AlreadyExists, BatchFailed, Missing, Stale

LARGEST_GROUP = 256
PURGE_EVERY = 64
"""Batches between two looks for expired documents; each look removes at most four times as many."""

_INSERT = (
    "INSERT INTO documents (container, partition, id, kind, grp, sort, due, expires, body) VALUES (?,?,?,?,?,?,?,?,?)"
)
_WHERE = "WHERE container = ? AND partition = ? AND id = ?"
_DELETE = f"DELETE FROM documents {_WHERE}"  # noqa: S608 - constants only, here and below
_DELETE_LIVE = f"{_DELETE} AND (expires IS NULL OR expires > ?)"
_DELETE_EXPIRED = f"{_DELETE} AND expires <= ?"
_DELETE_MATCHING = f"{_DELETE_LIVE} AND version = ?"
_IS_LIVE = f"SELECT 1 FROM documents {_WHERE} AND (expires IS NULL OR expires > ?)"  # noqa: S608
_ERASE = "DELETE FROM documents WHERE container = ? AND partition = ?"
_PURGE = "DELETE FROM documents WHERE version IN (SELECT version FROM documents WHERE expires <= ? LIMIT ?)"

_UNBINDABLE = (sqlite3.ProgrammingError, sqlite3.InterfaceError, ValueError, TypeError, OverflowError)
"""What binding a value raises that SQLite has no column for: a bug of that job alone."""

type Key = tuple[str, str, str]
"""Container, partition, id."""
type Row = tuple[str | float | bytes | None, ...]
"""The columns that follow the key: kind, grp, sort, due, expires, body."""


@dataclass(frozen=True, slots=True)
class Change:
    """One operation, made ready on the event loop: encoded, its expiry computed."""

    key: Key
    row: Row | None
    """None: a delete."""
    condition: str | None = None
    """The etag that must be stored."""
    must_exist: bool = False
    must_be_new: bool = False


@dataclass(slots=True)
class _Job:
    work: Callable[[sqlite3.Connection], Any]
    now: float
    future: "asyncio.Future[Any]"
    loop: asyncio.AbstractEventLoop
    scrubs: bool = False
    """The bytes of what it deletes must be gone from the disk before it is done; a group pays that once."""


class Writer:
    """Owns the writing connection; `close` drains what was handed over."""

    def __init__(self, connection: sqlite3.Connection, lock: threading.Lock | None) -> None:
        """`lock` is held during each transaction, where readers share the connection (":memory:")."""
        self._connection = connection
        self._lock: contextlib.AbstractContextManager[Any] = lock or contextlib.nullcontext()
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._since_purge = 0
        self._thread = threading.Thread(target=self._run, name="sqlite-writer", daemon=True)
        self._thread.start()

    async def batch(self, changes: Sequence[Change], now: float) -> list[str]:
        """Apply the changes, all or none, and return the new etags once they are committed."""
        return await self._submit(lambda connection: _apply(connection, changes, now), now)

    async def erase(self, container: str, partition: str, now: float) -> int:
        """Delete a partition, and its traces in the file and its log."""
        return await self._submit(lambda connection: _erase(connection, container, partition), now, scrubs=True)

    def close(self) -> None:
        """Finish what was handed over, then close the connection."""
        self._jobs.put(None)
        self._thread.join()

    async def _submit[T](self, work: Callable[[sqlite3.Connection], T], now: float, *, scrubs: bool = False) -> T:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._jobs.put(_Job(work, now, future, loop, scrubs))
        return await future

    def _run(self) -> None:
        """The thread: commit groups until told to stop."""
        is_open = True
        while is_open:
            group, is_open = self._next_group()
            if group:
                _resolve(group, self._commit(group))
        with self._lock:
            self._connection.close()

    def _next_group(self) -> tuple[list[_Job], bool]:
        """Wait for one job and take what else is there; False when that ends with the wish to stop."""
        group: list[_Job] = []
        job = self._jobs.get()
        while job is not None:
            group.append(job)
            if len(group) == LARGEST_GROUP:
                break
            try:
                job = self._jobs.get_nowait()
            except Empty:
                break
        return group, job is not None

    def _commit(self, group: list[_Job]) -> list[Any]:
        """The result of each job, or the error it ends with."""
        with self._lock:
            try:
                results = self._transact(group)
            except sqlite3.Error as exc:
                self._roll_back()
                return [unavailable(exc) for _ in group]
            if not any(job.scrubs for job in group):
                return results
            try:
                self._scrub()
            except sqlite3.Error as exc:
                return [unavailable(exc) if job.scrubs else result for job, result in zip(group, results, strict=True)]
        return results

    def _transact(self, group: list[_Job]) -> list[Any]:
        self._connection.execute("BEGIN IMMEDIATE")
        results = [self._attempt(job) for job in group]
        self._purge(group)
        self._connection.execute("COMMIT")
        return results

    def _attempt(self, job: _Job) -> Any:
        """Run a job so that its failure leaves the rest of the group as it was."""
        self._connection.execute("SAVEPOINT job")
        try:
            result = job.work(self._connection)
        except (BatchFailed, *_UNBINDABLE) as failure:
            self._connection.execute("ROLLBACK TO job")
            result = failure
        self._connection.execute("RELEASE job")
        return result

    def _purge(self, group: list[_Job]) -> None:
        """Remove a few expired documents now and then, faster than they can be written."""
        self._since_purge += len(group)
        if self._since_purge >= PURGE_EVERY:
            self._connection.execute(_PURGE, (group[-1].now, 4 * self._since_purge))
            self._since_purge = 0

    def _scrub(self) -> None:
        """Rewrite the file and empty its log, where an erase (of this or an earlier process) still owes that.

        `secure_delete` alone leaves copies behind: rows that SQLite once moved from one page to another.
        """
        connection = self._connection
        if connection.execute("SELECT 1 FROM debts").fetchone() is None:
            return
        connection.execute("VACUUM")
        is_blocked, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if is_blocked:
            raise sqlite3.OperationalError("another process reads the log; the erased bytes are still in it")
        connection.execute("DELETE FROM debts")

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")


def unavailable(exc: Exception) -> StorageUnavailable:
    """SQLite's own errors (locked, full, damaged) as the port's."""
    error = StorageUnavailable(f"The database file cannot be used now ({exc}); try again.", retry_after=1)
    error.__cause__ = exc
    return error


def _erase(connection: sqlite3.Connection, container: str, partition: str) -> int:
    deleted = connection.execute(_ERASE, (container, partition)).rowcount
    if deleted:
        connection.execute("INSERT INTO debts DEFAULT VALUES")
    return deleted


def _apply(connection: sqlite3.Connection, changes: Sequence[Change], now: float) -> list[str]:
    return [_apply_one(connection, index, change, now) for index, change in enumerate(changes)]


def _apply_one(connection: sqlite3.Connection, index: int, change: Change, now: float) -> str:
    """One operation; returns the new etag."""
    if not change.must_be_new:
        _remove(connection, index, change, now)
    if change.row is None:
        return ""
    values = change.key + change.row
    try:
        return str(connection.execute(_INSERT, values).lastrowid)
    except sqlite3.IntegrityError:
        if not connection.execute(_DELETE_EXPIRED, (*change.key, now)).rowcount:
            raise AlreadyExists(index, change.key[2]) from None
        return str(connection.execute(_INSERT, values).lastrowid)


def _remove(connection: sqlite3.Connection, index: int, change: Change, now: float) -> None:
    """Take away the document's present version, where the operation's condition holds."""
    if not change.must_exist:
        connection.execute(_DELETE, change.key)
        return
    if change.condition is None:
        removed = connection.execute(_DELETE_LIVE, (*change.key, now)).rowcount
    else:
        removed = connection.execute(_DELETE_MATCHING, (*change.key, now, _version(change.condition))).rowcount
    if removed:
        return
    is_live = connection.execute(_IS_LIVE, (*change.key, now)).fetchone() is not None
    raise (Stale if is_live else Missing)(index, change.key[2])


def _version(etag: str) -> int:
    """The version an etag names; one that is not ours matches nothing."""
    return int(etag) if etag.isascii() and etag.isdecimal() and len(etag) < 19 else -1


def _resolve(group: list[_Job], results: list[Any]) -> None:
    """Wake the waiting tasks: one call into each event loop."""
    loops: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any]]] = {}
    for job, result in zip(group, results, strict=True):
        loops.setdefault(job.loop, []).append((job.future, result))
    for loop, outcomes in loops.items():
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(_settle, outcomes)


def _settle(outcomes: list[tuple["asyncio.Future[Any]", Any]]) -> None:
    for future, result in outcomes:
        if future.done():  # its task was cancelled
            continue
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)
