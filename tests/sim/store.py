"""A `Store` in memory that remembers every version, so that a reader may be shown an older one.

`MemoryStore` alone is a well-behaved store; `HostStore` is one process's connection to it, with everything that goes
wrong on the way: latency, throttling, time-outs of writes that took effect (or take effect later), and reads of another
process's writes that lag behind, as Cosmos DB's session consistency allows.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import orjson

from shared.clock import Clock
from shared.errors import StorageUnavailable
from shared.storage import rules
from shared.storage.base import (
    AlreadyExists,
    Changed,
    Create,
    Delete,
    Document,
    Due,
    Missing,
    Operation,
    Query,
    Replace,
    Stale,
    Stored,
)
from shared.telemetry import count
from tests.sim.hosts import Host


class _Version(NamedTuple):
    number: int
    at: float
    body: bytes | None
    """None: deleted."""
    expires: float | None


type _Key = tuple[str, str]
type _Documents = dict[str, list[_Version]]


class MemoryStore:
    """All data of a simulated world; the clock decides what has expired."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._partitions: dict[_Key, _Documents] = {}
        self._count = 0

    # at a version

    def newest(self, container: str, partition: str, *, before: float) -> int:
        """The newest version of this partition that was there at a time."""
        documents = self._partitions.get((container, partition), {})
        return max((v.number for versions in documents.values() for v in versions if v.at <= before), default=0)

    def get(self, container: str, partition: str, id_: str, upto: int | None = None) -> Stored | None:
        versions = self._partitions.get((container, partition), {}).get(id_, [])
        return self._shown(versions, upto)

    def all(self, container: str, partition: str, upto: int | None = None) -> list[Stored]:
        """Every document, in id order."""
        documents = self._partitions.get((container, partition), {})
        shown = (self._shown(versions, upto) for _, versions in sorted(documents.items()))
        return [stored for stored in shown if stored is not None]

    def find(self, container: str, partition: str, query: Query, upto: int | None = None) -> list[Stored]:
        found = [
            stored
            for stored in self.all(container, partition, upto)
            if stored.body.get("kind") == query.kind
            and stored.body.get("sort") is not None
            and query.group in (None, stored.body.get("group"))
        ]
        found.sort(key=lambda stored: stored.body["sort"], reverse=query.order == "desc")
        if query.after is not None:
            after = query.after
            found = [s for s in found if (s.body["sort"] > after) == (query.order == "asc") and s.body["sort"] != after]
        return found[: query.limit]

    def partitions(self, container: str) -> list[str]:
        return [partition for name, partition in self._partitions if name == container]

    def write(self, container: str, partition: str, operations: Sequence[Operation]) -> list[str]:
        """All or nothing.

        Raises:
            BatchFailed: a condition does not hold.
        """
        rules.check(operations)
        for index, operation in enumerate(operations):
            self._check(container, partition, index, operation)
        documents = self._partitions.setdefault((container, partition), {})
        now, spec, etags = self._clock.now(), rules.SPECS[container], list[str]()
        for operation in operations:
            self._count += 1
            if isinstance(operation, Delete):
                documents.setdefault(operation.id, []).append(_Version(self._count, now, None, None))
                etags.append("")
                continue
            ttl = rules.time_to_live(spec, operation.body)
            body, expires = orjson.dumps(_numbers(operation.body)), None if ttl is None else now + ttl
            documents.setdefault(operation.body["id"], []).append(_Version(self._count, now, body, expires))
            etags.append(str(self._count))
        return etags

    def wipe(self, container: str, partition: str) -> int:
        ids = [stored.body["id"] for stored in self.all(container, partition)]
        for start in range(0, len(ids), rules.MAX_OPERATIONS):
            self.write(container, partition, [Delete(id_) for id_ in ids[start : start + rules.MAX_OPERATIONS]])
        return len(ids)

    def _check(self, container: str, partition: str, index: int, operation: Operation) -> None:
        id_ = operation.id if isinstance(operation, Delete) else operation.body["id"]
        stored = self.get(container, partition, id_)
        match operation:
            case Create():
                if stored is not None:
                    raise AlreadyExists(index, id_)
            case Replace() | Delete():
                if stored is None:
                    raise Missing(index, id_)
                if operation.etag is not None and operation.etag != stored.etag:
                    raise Stale(index, id_)
            case _:
                pass

    def _shown(self, versions: list[_Version], upto: int | None) -> Stored | None:
        version = next((v for v in reversed(versions) if upto is None or v.number <= upto), None)
        if version is None or version.body is None:
            return None
        if version.expires is not None and version.expires <= self._clock.now():
            return None
        return Stored(orjson.loads(version.body), str(version.number))

    # the port

    async def setup(self) -> None:
        """Containers need no making here."""

    async def read(self, container: str, partition: str, id_: str) -> Stored | None:
        return self.get(container, partition, id_)

    async def query(self, container: str, partition: str, query: Query) -> list[Stored]:
        return self.find(container, partition, query)

    async def scan(self, container: str, partition: str) -> list[Stored]:
        return self.all(container, partition)

    async def batch(self, container: str, partition: str, operations: Sequence[Operation]) -> list[str]:
        return self.write(container, partition, operations)

    async def due(
        self, container: str, kind: str, *, before: float, after: float | None = None, limit: int = 100
    ) -> list[Due]:
        found = [
            Due(partition, stored)
            for partition in self.partitions(container)
            for stored in self.all(container, partition)
            if stored.body.get("kind") == kind
            and (due := stored.body.get("due")) is not None
            and due < before
            and (after is None or due >= after)
        ]
        found.sort(key=lambda due: due.stored.body["due"])
        return found[:limit]

    async def changes(self, container: str, partition: str, *, since: str | None, limit: int = 100) -> Changed:
        start = int(since or 0)
        found = sorted(self.all(container, partition), key=lambda stored: int(stored.etag))
        found = [stored for stored in found if int(stored.etag) > start]
        page = found[:limit]
        return Changed(page, page[-1].etag if page else since or "0", has_more=len(found) > limit)

    async def erase(self, container: str, partition: str) -> int:
        return self.wipe(container, partition)

    async def ping(self) -> None:
        """It is there."""

    async def close(self) -> None:
        """Nothing is open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """How bad it is between a process and its store; chances are per call, times in seconds."""

    latency: tuple[float, float] = (0.002, 0.002)
    """Of each way of a round trip."""
    throttled: float = 0.0
    """Refused for want of capacity; nothing was written."""
    lost: float = 0.0
    """Writes that time out after they took effect."""
    late: float = 0.0
    """Writes that time out, and take effect a little later."""
    lag: float = 0.0
    """How far reads of other processes' writes may be behind, at most."""
    slow: float = 0.0
    """Calls that take a hundred times as long: others overtake them."""


FAIR = Weather()


class HostStore:
    """One process's connection to a `MemoryStore`; also a port whose every call is a point where it may die."""

    def __init__(self, store: MemoryStore, host: Host, *, weather: Weather, chance: random.Random) -> None:
        self._store = store
        self._host = host
        self.weather = weather
        self._chance = chance
        self._seen: dict[_Key, int] = {}
        """The version of each partition that this process has written or read: it never reads an older one."""
        self._late: set[asyncio.Task[None]] = set()

    async def setup(self) -> None:
        """Containers need no making here."""

    async def read(self, container: str, partition: str, id_: str) -> Stored | None:
        return await self._call(
            "read", lambda: self._store.get(container, partition, id_, self._view(container, partition))
        )

    async def query(self, container: str, partition: str, query: Query) -> list[Stored]:
        return await self._call(
            "query", lambda: self._store.find(container, partition, query, self._view(container, partition))
        )

    async def scan(self, container: str, partition: str) -> list[Stored]:
        return await self._call("scan", lambda: self._store.all(container, partition, self._view(container, partition)))

    async def batch(self, container: str, partition: str, operations: Sequence[Operation]) -> list[str]:
        # What was handed over is what is written, whatever its owner does to it meanwhile.
        frozen = [_copied(operation) for operation in operations]

        def write() -> list[str]:
            etags = self._store.write(container, partition, frozen)
            self._seen[container, partition] = max(int(etag or 0) for etag in etags)
            return etags

        return await self._call("batch", write, is_write=True)

    async def due(
        self, container: str, kind: str, *, before: float, after: float | None = None, limit: int = 100
    ) -> list[Due]:
        found = await self._store.due(container, kind, before=before, after=after, limit=limit)
        return await self._call("due", lambda: found)

    async def changes(self, container: str, partition: str, *, since: str | None, limit: int = 100) -> Changed:
        found = await self._store.changes(container, partition, since=since, limit=limit)
        return await self._call("changes", lambda: found)

    async def erase(self, container: str, partition: str) -> int:
        return await self._call("erase", lambda: self._store.wipe(container, partition), is_write=True)

    async def ping(self) -> None:
        await self._call("ping", lambda: None)

    async def close(self) -> None:
        """Nothing is open."""

    def _view(self, container: str, partition: str) -> int | None:
        """Up to which version a read sees its partition; None: the newest."""
        if not self.weather.lag:
            return None
        before = self._store._clock.now() - self._chance.uniform(0, self.weather.lag)  # pyright: ignore[reportPrivateUsage]
        upto = max(self._seen.get((container, partition), 0), self._store.newest(container, partition, before=before))
        self._seen[container, partition] = upto
        return upto

    async def _call[T](self, name: str, work: Callable[[], T], *, is_write: bool = False) -> T:
        weather, chance = self.weather, self._chance
        count(name, 1.0)
        self._host.point(f"store.{name} before")
        await self._pass()
        if chance.random() < weather.throttled:
            raise StorageUnavailable("throttled", retry_after=0.05)
        if is_write and chance.random() < weather.late:
            self._later(work)
            raise StorageUnavailable("timed out")
        if self._host.is_dead:
            self._host.point("")
        result = work()
        await self._pass()
        if is_write and chance.random() < weather.lost:
            raise StorageUnavailable("timed out")
        self._host.point(f"store.{name} after")
        return result

    async def _pass(self) -> None:
        seconds = self._chance.uniform(*self.weather.latency)
        if self._chance.random() < self.weather.slow:
            seconds *= 100
        await asyncio.sleep(seconds)

    def _later(self, work: Callable[[], object]) -> None:
        """The network delivers it when the caller has given up; its death changes nothing about that."""

        def arrive() -> None:
            with suppress(AlreadyExists, Missing, Stale):  # nobody hears the refusal
                work()

        asyncio.get_running_loop().call_later(self._chance.uniform(0, 0.6), arrive)


def _numbers(value: Any) -> Any:
    """As a store that knows but one kind of number gives it back: 1.0 is 1."""
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if isinstance(value, dict):
        return {key: _numbers(inner) for key, inner in cast(Document, value).items()}
    if isinstance(value, list | tuple):
        return [_numbers(inner) for inner in cast(list[Any], value)]
    return value


def _copied(operation: Operation) -> Operation:
    match operation:
        case Create():
            return Create(_copy(operation.body))
        case Replace():
            return Replace(_copy(operation.body), operation.etag)
        case Delete():
            return operation
        case _:
            return type(operation)(_copy(operation.body))


def _copy(body: Document) -> Document:
    return orjson.loads(orjson.dumps(body))
