"""The SQLite file: how it is opened, and its schema as numbered, append-only migrations."""

import sqlite3
import time
from pathlib import Path

BUSY_SECONDS = 5.0
"""How long a writer waits for another process before it gives up."""
READER_BUSY_SECONDS = 1.0
"""Readers wait for nobody but a process that recovers or closes the file; they do so on the event loop."""

MEMORY = ":memory:"

# `version` is the rowid: every write of a document takes the next one, so it is etag and change token at once, and
# AUTOINCREMENT never gives one twice, and every index ends in it. Only documents with a kind or a date enter the
# indexes of those: a journal has neither, and nobody asks for its changes. A row of `debts` is an erase whose bytes may
# still be in the file.
MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE documents (
        version INTEGER PRIMARY KEY AUTOINCREMENT,
        container TEXT NOT NULL,
        partition TEXT NOT NULL,
        id TEXT NOT NULL,
        kind TEXT,
        grp TEXT,
        sort TEXT,
        due REAL,
        expires REAL,
        body BLOB NOT NULL
    );
    CREATE UNIQUE INDEX by_id ON documents (container, partition, id);
    CREATE INDEX by_group ON documents (container, partition, kind, grp, sort) WHERE kind IS NOT NULL;
    CREATE INDEX by_kind ON documents (container, partition, kind, sort) WHERE kind IS NOT NULL;
    CREATE INDEX by_change ON documents (container, partition);
    CREATE INDEX by_due ON documents (container, kind, due) WHERE due IS NOT NULL;
    CREATE INDEX by_expiry ON documents (expires) WHERE expires IS NOT NULL;
    CREATE TABLE debts (id INTEGER PRIMARY KEY);
    """,
    """
    DROP INDEX by_change;
    CREATE INDEX by_change ON documents (container, partition) WHERE container <> 'events';
    """,
)
"""Applied in order, once each; `PRAGMA user_version` says how many have been. Never edit one: append the next."""


def open_writer(path: str) -> sqlite3.Connection:
    """The connection that writes, on a file whose schema is the newest. ":memory:" gives a private database.

    Raises:
        sqlite3.Error, OSError: the file cannot be opened or made.
    """
    if path != MEMORY:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    connection = _connect(path, BUSY_SECONDS)
    try:
        _use_wal(connection)
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA secure_delete = ON")
        _migrate(connection)
        # From now on it is used on the event loop, where nothing may wait: neither for other processes nor for a disk.
        connection.execute("PRAGMA busy_timeout = 0")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
    except BaseException:
        connection.close()
        raise
    return connection


def open_reader(path: str) -> sqlite3.Connection:
    """A second connection, for reading only, to a file that `open_writer` has opened."""
    connection = _connect(path, READER_BUSY_SECONDS)
    connection.execute("PRAGMA query_only = ON")
    # Every commit of the writer empties its cache: a large one would hold memory and nothing that is read again.
    connection.execute("PRAGMA cache_size = -256")
    return connection


def _connect(path: str, busy_seconds: float) -> sqlite3.Connection:
    # Used on loops, one at a time, and by the writer's thread while they do not.
    return sqlite3.connect(path, timeout=busy_seconds, isolation_level=None, check_same_thread=False)


def _use_wal(connection: sqlite3.Connection) -> None:
    """Change to the write-ahead log; SQLite does not wait for another process that is doing the same."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _migrate(connection: sqlite3.Connection) -> None:
    if _applied(connection) == len(MIGRATIONS):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for number in range(_applied(connection), len(MIGRATIONS)):
            for statement in MIGRATIONS[number].split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number + 1}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _applied(connection: sqlite3.Connection) -> int:
    return connection.execute("PRAGMA user_version").fetchone()[0]
