"""The one writer of a SQLite store: commits whatever is waiting as one group, on the event loop.

In write-ahead mode a commit appends some pages to the log and waits for no disk, so it is done where it is asked for: a
thread would cost two switches a commit and, while the loop is busy, a turn at the interpreter lock for each statement.
What is asked for in one pass of the loop is one transaction: the more tasks write at once, the less a write costs.
What does wait is never done there: where another process holds the lock the group is tried again a moment later; a
thread copies the log into the file, and erases, and what is asked for meanwhile gathers.
"""

import asyncio
import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, cast

from shared.errors import StorageUnavailable
from shared.storage import sqlite_schema
from shared.storage.base import AlreadyExists, BatchFailed, Missing, Stale

LARGEST_GROUP = 256
PURGE_EVERY = 64
"""Batches between two looks for expired documents; each look removes at most four times as many."""
CHECKPOINT_EVERY = 400
"""Batches between two copies of the log into the file: one or two thousand pages. A large one counts as several."""
_SMALL = 16 * 1024
"""Bytes of a batch that counts as one; the log grows by about as much for a document of any size."""
LONGEST_LOG = 2_000
"""Pages. A log that is longer is copied to its end, and emptied, while nobody may write."""
_LOG_SECONDS = 0.05
"""How long that may wait for the readers of the log, and let writers wait."""
_PAUSE, _LONGEST_PAUSE = 0.0005, 0.01
"""Seconds before a group that met another process's lock is tried again; twice as long each time."""

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
    """One operation, made ready by the store: encoded, its expiry computed."""

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
    deadline: float
    """When it gives up waiting for other processes; monotonic."""
    weight: int = 1
    """Small batches that the log grows as much for."""
    scrubs: bool = False
    """The bytes of what it deletes must be gone from the disk before it is done; a group pays that once."""
    is_one_create: bool = False
    """As the appends to a journal are, and so most of all that is written."""


class Writer:
    """Owns the writing connection; `close` finishes what was asked for."""

    def __init__(self, connection: sqlite3.Connection, lock: threading.Lock, *, has_file: bool) -> None:
        self._connection = connection
        self._has_file = has_file
        self._lock = lock
        """Event loops of several threads may share a store; held for an append or a commit, never while waiting."""
        self._jobs: list[_Job] = []
        self._due: set[asyncio.AbstractEventLoop] = set()
        """The loops on which a flush is due."""
        self._is_closing = False
        self._away: Future[None] | None = None
        """Work of a thread, which has the connection until it ends."""
        self._copying: Future[None] | None = None
        """A thread that copies the log beside the writes."""
        self._is_log_long = False
        self._pause = _PAUSE
        self._since_purge = 0
        self._since_checkpoint = CHECKPOINT_EVERY - 20  # an earlier process may have left a long log
        # A log that begins anew keeps the size of its longest day, unless it is told not to.
        (page,) = connection.execute("PRAGMA page_size").fetchone()
        connection.execute(f"PRAGMA journal_size_limit = {LONGEST_LOG * page}")

    async def batch(self, changes: Sequence[Change], now: float) -> list[str]:
        """Apply the changes, all or none, and return the new etags once they are committed."""
        is_one_create = len(changes) == 1 and changes[0].must_be_new
        return await self._submit(
            lambda connection: _apply(connection, changes, now),
            now,
            weight=_weight(changes),
            is_one_create=is_one_create,
        )

    async def erase(self, container: str, partition: str, now: float) -> int:
        """Delete a partition, and its traces in the file and its log."""
        return await self._submit(lambda connection: _erase(connection, container, partition), now, scrubs=True)

    def close(self) -> None:
        """Finish what was asked for, then close the connection. Waits for other processes; not for the event loop."""
        with self._lock:
            self._is_closing = True  # the connection is no flush's any more
        for thread in (self._away, self._copying):
            if thread is not None:
                thread.result()
        deadline = time.monotonic() + sqlite_schema.BUSY_SECONDS
        while self._jobs:
            self._commit_patiently(self._next_group(), deadline - time.monotonic())
        self._connection.close()

    def rows(self, sql: str, parameters: Sequence[str | float]) -> list[Any] | None:
        """Read on this connection, whose cache knows what was just written; None where it cannot: read elsewhere then.

        The store's lock is held.
        """
        is_away = self._away is not None and not self._away.done()
        if self._is_closing or is_away or self._connection.in_transaction:  # one that could not be rolled back
            return None
        try:
            return self._connection.execute(sql, parameters).fetchall()
        except sqlite3.Error:
            return None

    async def _submit[T](
        self,
        work: Callable[[sqlite3.Connection], T],
        now: float,
        *,
        weight: int = 1,
        scrubs: bool = False,
        is_one_create: bool = False,
    ) -> T:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        deadline = time.monotonic() + sqlite_schema.BUSY_SECONDS
        with self._lock:
            if self._is_closing:
                raise StorageUnavailable("The store has been closed.")
            self._jobs.append(_Job(work, now, future, loop, deadline, weight, scrubs, is_one_create))
            if loop not in self._due:
                self._due.add(loop)
                loop.call_soon(self._flush)
        return await future

    def _flush(self) -> None:
        """Commit what is there; the rest, and what meets a lock, a little later."""
        loop = asyncio.get_running_loop()
        with self._lock:
            self._due.discard(loop)
            if self._jobs and not self._is_closing and (self._away is None or self._away.done()):
                self._flush_group(self._next_group(), loop)
            # else there is nothing, or the thread's end brings the next flush

    def _flush_group(self, group: list[_Job], loop: asyncio.AbstractEventLoop) -> None:
        if self._has_file and any(job.scrubs for job in group):
            self._send_away(lambda: self._commit_patiently(group, sqlite_schema.BUSY_SECONDS))
            return
        try:
            results = self._commit(group)
        except _Locked as locked:
            self._wait(group, locked, loop)
            return
        self._pause = _PAUSE
        _resolve(group, results, loop)
        self._since_checkpoint += sum(job.weight for job in group)
        if self._is_log_long:
            self._is_log_long = False
            self._send_away(self._checkpoint)
            return
        if self._has_file and self._since_checkpoint >= CHECKPOINT_EVERY:
            self._copy_log()
        if self._jobs:
            self._flush_later(0)

    def _wait(self, group: list[_Job], locked: "_Locked", loop: asyncio.AbstractEventLoop) -> None:
        """Another process writes: try the group again in a moment; tell those who have waited long enough."""
        now = time.monotonic()
        late = [job for job in group if job.deadline <= now]
        _resolve(late, [unavailable(locked.error) for _ in late], loop)
        self._jobs[:0] = [job for job in group if job.deadline > now]
        self._flush_later(self._pause)
        self._pause = min(_LONGEST_PAUSE, self._pause * 2)

    def _flush_later(self, seconds: float) -> None:
        """On every loop that somebody waits on: any of them may end before."""
        for loop in {job.loop for job in self._jobs} - self._due:
            with contextlib.suppress(RuntimeError):  # it is closed: nobody waits
                loop.call_soon_threadsafe(loop.call_later, seconds, self._flush)
                self._due.add(loop)

    def _next_group(self) -> list[_Job]:
        group = self._jobs[:LARGEST_GROUP]
        del self._jobs[:LARGEST_GROUP]
        return group

    def _commit(self, group: list[_Job]) -> list[Any]:
        """The result of each job, or the error it ends with.

        Raises:
            _Locked: another process holds the file; nothing was done.
        """
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as exc:
            if is_busy(exc):
                raise _Locked(exc) from exc
            return [unavailable(exc) for _ in group]
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
        if len(group) == 1:
            try:
                results = [group[0].work(self._connection)]
            except (BatchFailed, *_UNBINDABLE) as failure:
                self._connection.execute("ROLLBACK")
                return [failure]
        else:
            results = [self._attempt(job) for job in group]
        self._purge(group)
        self._connection.execute("COMMIT")
        return results

    def _attempt(self, job: _Job) -> Any:
        """Run a job so that its failure leaves the rest of the group as it was."""
        if job.is_one_create:  # one statement: it fails as a whole or not at all
            try:
                return job.work(self._connection)
            except (BatchFailed, *_UNBINDABLE) as failure:
                return failure
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

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")

    # what waits for the disk, or for other processes

    def _send_away(self, work: Callable[[], None]) -> None:
        """Run this in a thread, which has the connection alone; then flush."""
        away = self._away = Future[None]()

        def run() -> None:
            try:
                work()
            finally:
                away.set_result(None)
                with self._lock:
                    self._flush_later(0)

        threading.Thread(target=run, name="sqlite", daemon=True).start()

    def _commit_patiently(self, group: list[_Job], seconds: float) -> None:
        """As SQLite itself waits for a lock; wakes whoever asked."""
        try:
            with self._waiting(seconds):
                results = self._commit(group)
        except _Locked as locked:
            results = [unavailable(locked.error) for _ in group]
        _resolve(group, results, None)

    @contextlib.contextmanager
    def _waiting(self, seconds: float) -> Generator[None]:
        """Let statements wait so long for other processes."""
        self._connection.execute(f"PRAGMA busy_timeout = {max(0, int(seconds * 1000))}")
        try:
            yield
        finally:
            self._connection.execute("PRAGMA busy_timeout = 0")

    def _copy_log(self) -> None:
        """Copy the log into the file, beside the writes; the first one after it has missed nothing begins the log anew.

        Where there is always one, that never comes true: a log that has become long is emptied while they wait. Most
        of it is in the file by then, so they do not wait long.
        """
        copying = self._copying
        if copying is not None and not copying.done():
            if self._since_checkpoint >= 2 * CHECKPOINT_EVERY:  # more is written than it can copy
                self._since_checkpoint = 0
                self._send_away(lambda: self._checkpoint(behind=copying))
            return
        self._since_checkpoint = 0
        copying = self._copying = Future[None]()
        _, _, path = self._connection.execute("PRAGMA database_list").fetchone()

        def run() -> None:
            try:
                with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
                    _, pages, _ = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                    self._is_log_long = pages > LONGEST_LOG
            except sqlite3.Error:
                pass  # the next one does what this could not
            finally:
                copying.set_result(None)

        threading.Thread(target=run, name="sqlite-log", daemon=True).start()

    def _checkpoint(self, *, behind: Future[None] | None = None) -> None:
        """Empty the log, as far as no reader needs it."""
        if behind is not None:
            behind.result()
        with contextlib.suppress(sqlite3.Error):  # the next one does what this could not
            _, pages, _ = self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            if pages > LONGEST_LOG:
                with self._waiting(_LOG_SECONDS):
                    # Not RESTART, though a log that is written over costs less than one that grows again: it leaves the
                    # reset to the next commit, where another process's checkpoint may meet it, and before 3.51.3 SQLite
                    # can lose pages then (sqlite.org/wal.html, "The WAL-Reset Bug").
                    self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _scrub(self) -> None:
        """Rewrite the file and empty its log, where an erase (of this or an earlier process) still owes that.

        `secure_delete` alone leaves copies behind: rows that SQLite once moved from one page to another.
        """
        connection = self._connection
        if connection.execute("SELECT 1 FROM debts").fetchone() is None:
            return
        connection.execute("VACUUM")
        deadline = time.monotonic() + sqlite_schema.BUSY_SECONDS
        while connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
            if time.monotonic() > deadline:
                raise sqlite3.OperationalError("another process reads the log; the erased bytes are still in it")
            time.sleep(_LONGEST_PAUSE)  # for readers SQLite has waited itself, for another's checkpoint it does not
        connection.execute("DELETE FROM debts")


class _Locked(Exception):
    """Another process holds the write lock."""

    def __init__(self, error: sqlite3.Error) -> None:
        super().__init__(str(error))
        self.error = error


def is_busy(exc: sqlite3.Error) -> bool:
    """Whether SQLite would have waited, had it been allowed to."""
    code: int | None = getattr(exc, "sqlite_errorcode", None)
    return code is not None and code & 0xFF == sqlite3.SQLITE_BUSY


def unavailable(exc: Exception) -> StorageUnavailable:
    """SQLite's own errors (locked, full, damaged) as the port's."""
    error = StorageUnavailable(f"The database file cannot be used now ({exc}); try again.", retry_after=1)
    error.__cause__ = exc
    return error


def _weight(changes: Sequence[Change]) -> int:
    sizes = [len(cast(bytes, change.row[-1])) for change in changes if change.row is not None]
    return 1 + sum(sizes) // _SMALL


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


def _resolve(group: list[_Job], results: list[Any], here: asyncio.AbstractEventLoop | None) -> None:
    """Wake the waiting tasks: at once those of the loop that runs here, the others by one call into each loop."""
    loops: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any]]] = {}
    for job, result in zip(group, results, strict=True):
        loops.setdefault(job.loop, []).append((job.future, result))
    for loop, outcomes in loops.items():
        if loop is here:
            _settle(outcomes)
            continue
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
