"""The embedded store: one SQLite file, shared by any number of processes on one machine.

Reads and queries run on the event loop: on the writer's connection, whose cache knows what was just written, and on one
of their own while a thread has that one. In write-ahead mode they wait for no writer, and a point read takes tens of
microseconds. Writes are committed there too, in groups (`sqlite_writer`).
"""

import asyncio
import math
import sqlite3
import threading
from collections.abc import Sequence
from typing import Any, cast

import orjson

from shared import telemetry
from shared.clock import Clock
from shared.errors import InvalidRequest, StorageUnavailable
from shared.storage import charges, rules
from shared.storage.base import (
    Changed,
    ContainerSpec,
    Create,
    Delete,
    Document,
    Due,
    Operation,
    Query,
    Replace,
    Stored,
)
from shared.storage.sqlite_schema import MEMORY, open_reader, open_writer
from shared.storage.sqlite_writer import Change, Row, Writer, unavailable

_LIVE = "(expires IS NULL OR expires > ?)"
_PARTITION = "SELECT version, body FROM documents WHERE container = ? AND partition = ?"
_READ = f"{_PARTITION} AND id = ? AND {_LIVE}"
_SCAN = f"{_PARTITION} AND {_LIVE} ORDER BY id"
_CHANGES = f"{_PARTITION} AND container <> 'events' AND version > ? AND {_LIVE} ORDER BY version LIMIT ?"
_DUE = (
    "SELECT partition, version, body FROM documents"  # noqa: S608 - constants only
    f" WHERE container = ? AND kind = ? AND due >= ? AND due < ? AND {_LIVE} ORDER BY due LIMIT ?"
)


class SqliteStore:
    """A `Store` in one file; ":memory:" gives a private one that ends with `close`.

    Opened at first use. The clock decides what has expired.
    """

    def __init__(self, path: str, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._writer: Writer | None = None
        self._reader: sqlite3.Connection | None = None
        self._is_closed = False
        self._lock = threading.Lock()
        """Event loops of several threads may share a store: who reads beside another would see what that one saw."""

    async def setup(self) -> None:
        self._open()

    async def read(self, container: str, partition: str, id_: str) -> Stored | None:
        rows = self._rows(_READ, (container, partition, id_, self._clock.now()))
        if not rows:
            telemetry.count("read", charges.read(0))
            return None
        version, body = rows[0]
        telemetry.count("read", charges.read(len(body)))
        return Stored(orjson.loads(body), str(version))

    async def query(self, container: str, partition: str, query: Query) -> list[Stored]:
        sql, parameters = _query_sql(query)
        rows = self._rows(sql, (container, partition, *parameters, self._clock.now(), query.limit))
        return self._counted("query", rows)

    async def scan(self, container: str, partition: str) -> list[Stored]:
        return self._counted("scan", self._rows(_SCAN, (container, partition, self._clock.now())))

    async def batch(self, container: str, partition: str, operations: Sequence[Operation]) -> list[str]:
        rules.check(operations)
        writer, _ = self._open()
        now = self._clock.now()
        spec = rules.SPECS[container]
        changes = [_change(spec, partition, operation, now) for operation in operations]
        size, charge = _cost(changes)
        if size > rules.MAX_BYTES:
            raise rules.too_large()
        telemetry.count("batch", charge)
        return await writer.batch(changes, now)

    async def due(
        self, container: str, kind: str, *, before: float, after: float | None = None, limit: int = 100
    ) -> list[Due]:
        rows = self._rows(
            _DUE, (container, kind, -math.inf if after is None else after, before, self._clock.now(), limit)
        )
        telemetry.count("due", charges.query(len(body) for _, _, body in rows))
        return [Due(partition, Stored(orjson.loads(body), str(version))) for partition, version, body in rows]

    async def changes(self, container: str, partition: str, *, since: str | None, limit: int = 100) -> Changed:
        rows = self._rows(_CHANGES, (container, partition, _token(since), self._clock.now(), limit + 1))
        page = rows[:limit]
        token = str(page[-1][0]) if page else since or "0"
        return Changed(self._counted("changes", page), token, has_more=len(rows) > limit)

    async def erase(self, container: str, partition: str) -> int:
        writer, _ = self._open()
        telemetry.count("erase", charges.write(0, 0))
        return await writer.erase(container, partition, self._clock.now())

    async def ping(self) -> None:
        self._rows("SELECT 1", ())

    async def close(self) -> None:
        """Finish what has been accepted, then close; safe to repeat."""
        self._is_closed = True
        writer, reader, self._writer, self._reader = self._writer, self._reader, None, None
        if reader is not None and self._path != MEMORY:
            reader.close()
        if writer is not None:
            await asyncio.to_thread(writer.close)

    def _open(self) -> tuple[Writer, sqlite3.Connection]:
        if self._writer is not None and self._reader is not None:
            return self._writer, self._reader
        if self._is_closed:
            raise StorageUnavailable("The store has been closed.")
        try:
            connection = open_writer(self._path)
            # ":memory:" has but one connection.
            self._reader = connection if self._path == MEMORY else open_reader(self._path)
        except (sqlite3.Error, OSError) as exc:
            raise unavailable(exc) from exc
        self._writer = Writer(connection, self._lock, has_file=self._path != MEMORY)
        return self._writer, self._reader

    def _rows(self, sql: str, parameters: tuple[str | float, ...]) -> list[Any]:
        writer, reader = self._open()
        try:
            with self._lock:
                rows = writer.rows(sql, parameters)
                return reader.execute(sql, parameters).fetchall() if rows is None else rows
        except sqlite3.Error as exc:
            raise unavailable(exc) from exc

    def _counted(self, operation: str, rows: list[Any]) -> list[Stored]:
        telemetry.count(operation, charges.query(len(body) for _, body in rows))
        return [Stored(orjson.loads(body), str(version)) for version, body in rows]


def _query_sql(query: Query) -> tuple[str, tuple[str, ...]]:
    """The statement, and its parameters between the partition and the time."""
    sql, parameters = f"{_PARTITION} AND kind = ?", (query.kind,)
    if query.group is not None:
        sql, parameters = f"{sql} AND grp = ?", (*parameters, query.group)
    if query.after is None:
        sql = f"{sql} AND sort IS NOT NULL"
    else:
        sql, parameters = f"{sql} AND sort {'>' if query.order == 'asc' else '<'} ?", (*parameters, query.after)
    return f"{sql} AND {_LIVE} ORDER BY sort {'ASC' if query.order == 'asc' else 'DESC'} LIMIT ?", parameters


def _change(spec: ContainerSpec, partition: str, operation: Operation, now: float) -> Change:
    if isinstance(operation, Delete):
        return Change((spec.name, partition, operation.id), None, operation.etag, must_exist=True)
    return Change(
        (spec.name, partition, operation.body["id"]),
        _row(spec, operation.body, now),
        operation.etag if isinstance(operation, Replace) else None,
        must_exist=isinstance(operation, Replace),
        must_be_new=isinstance(operation, Create),
    )


def _row(spec: ContainerSpec, body: Document, now: float) -> Row:
    ttl = rules.time_to_live(spec, body)
    expires = None if ttl is None else now + ttl
    if not spec.indexed:
        return (None, None, None, None, expires, orjson.dumps(body))
    kind, group, sort, due = [body.get(path[1:]) if path in spec.indexed else None for path in _COLUMNS]
    return (kind, group, sort, due, expires, orjson.dumps(body))


_COLUMNS = ("/kind", "/group", "/sort", "/due")


def _cost(changes: list[Change]) -> tuple[int, float]:
    """Bytes of the documents, and the request charge."""
    total, charge = 0, 0.0
    for change in changes:
        size, paths = 0, 0
        if change.row is not None:
            *columns, _, body = change.row
            size, paths = len(cast(bytes, body)), len(columns) - columns.count(None)
        total += size
        charge += charges.write(size, paths)
    return total, charge


def _token(since: str | None) -> int:
    if since is None:
        return 0
    if not (since.isascii() and since.isdecimal() and len(since) < 19):
        raise InvalidRequest("This token is not one of ours; start again without one.", param="since")
    return int(since)
