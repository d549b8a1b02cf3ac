"""The ports to durable state: a document store of partitions, and a blob store.

A document is a JSON object with an `id`, unique in its container and partition. Four further top-level fields mean
something to the store; every other field is opaque:

    kind   str    what it is ("turn", "conversation", …); queries name one
    group  str    what it belongs to (the thread of a turn); optional
    sort   str    its key inside (kind, group); queries return this order
    due    float  epoch seconds; `Store.due` finds it, across partitions, once that time has come
    ttl    int    seconds after the last write when it disappears; optional

Only one partition is ever written at a time, atomically. That is what Cosmos DB and SQLite both keep.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

type Document = dict[str, Any]

STATE = "state"
"""Records of an owner; the partition is the owner."""
EVENTS = "events"
"""Journal batches of a turn's stream; the partition is the response id; not indexed; lives a day."""
KNOWLEDGE = "knowledge"
"""Passages with text and embedding; the partition is the owner."""
DIRECTORY = "directory"
"""The few look-ups across owners; the partition is the document's own id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSpec:
    """What a store must set up for a container; the cloud's templates say the same and a test compares them."""

    name: str
    default_ttl: int | None = None
    """None: no expiry at all. -1: only documents that carry a `ttl`. Otherwise seconds."""
    indexed: tuple[str, ...] = ()
    """Paths queries filter or order by; everything else is left out of the index."""


CONTAINERS: tuple[ContainerSpec, ...] = (
    ContainerSpec(name=STATE, default_ttl=-1, indexed=("/kind", "/group", "/sort", "/due")),
    ContainerSpec(name=EVENTS, default_ttl=86_400),
    ContainerSpec(name=KNOWLEDGE, default_ttl=-1, indexed=("/kind", "/group", "/sort")),
    ContainerSpec(name=DIRECTORY, default_ttl=-1, indexed=("/kind", "/due")),
)


class Stored(NamedTuple):
    """A document as read, with the etag that a conditional write must name."""

    body: Document
    etag: str


@dataclass(frozen=True, slots=True)
class Create:
    """Fails with `AlreadyExists` when the id is taken."""

    body: Document


@dataclass(frozen=True, slots=True)
class Replace:
    """Fails with `Stale` unless the stored etag is this one, with `Missing` when there is none."""

    body: Document
    etag: str


@dataclass(frozen=True, slots=True)
class Upsert:
    body: Document


@dataclass(frozen=True, slots=True)
class Delete:
    """Fails with `Missing` when not there; with an etag, with `Stale` when it changed meanwhile."""

    id: str
    etag: str | None = None


type Operation = Create | Replace | Upsert | Delete


class BatchFailed(Exception):
    """Nothing of the batch was written. `index` is the operation that did not hold.

    A normal outcome of a race, for the caller to resolve: never shown to a client as it is.
    """

    def __init__(self, index: int, id_: str) -> None:
        super().__init__(f"operation {index} on {id_!r}")
        self.index = index
        self.id = id_


class AlreadyExists(BatchFailed):
    """A create found its id taken."""


class Stale(BatchFailed):
    """A condition named an etag that is no longer the stored one."""


class Missing(BatchFailed):
    """A replace or delete found nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One page of one partition, in key order."""

    kind: str
    group: str | None = None
    """Only documents of this group; None: of any."""
    after: str | None = None
    """Start behind this sort key, in the direction asked; None: from the first."""
    order: Literal["asc", "desc"] = "asc"
    limit: int = 20


class Changed(NamedTuple):
    """What changed in a partition since a token, oldest first, the latest version of each."""

    documents: list[Stored]
    token: str
    """Continues from here."""
    has_more: bool


class Due(NamedTuple):
    """A document whose time has come, and the partition it lives in."""

    partition: str
    stored: Stored


class Store(Protocol):
    """Every method raises `StorageUnavailable` when the store cannot answer within its time limit."""

    async def setup(self) -> None:
        """Make the containers where that is this process's job (SQLite, emulators); safe to repeat."""
        ...

    async def read(self, container: str, partition: str, id_: str) -> Stored | None: ...

    async def query(self, container: str, partition: str, query: Query) -> list[Stored]: ...

    async def scan(self, container: str, partition: str) -> list[Stored]:
        """The whole of a small partition, in id order; needs no index."""
        ...

    async def batch(self, container: str, partition: str, operations: Sequence[Operation]) -> list[str]:
        """All of them or none; at most 100. Returns the new etags, in order ("" for a delete).

        Raises:
            BatchFailed: a condition did not hold (`AlreadyExists`, `Stale`, `Missing`).
            PayloadTooLarge: the documents have more than 2 MB; nothing was written, and trying again is in vain.
            StorageUnavailable: whether it was written is unknown; reading tells.
        """
        ...

    async def due(
        self, container: str, kind: str, *, before: float, after: float | None = None, limit: int = 100
    ) -> list[Due]:
        """Documents of any partition with `due` earlier than `before` and not earlier than `after`, earliest first."""
        ...

    async def changes(self, container: str, partition: str, *, since: str | None, limit: int = 100) -> Changed: ...

    async def erase(self, container: str, partition: str) -> int:
        """Delete everything in the partition; returns how many documents went. Safe to repeat."""
        ...

    async def ping(self) -> None: ...

    async def close(self) -> None: ...


class BlobStore(Protocol):
    """Bytes too large for a record, by `owner/name`. Errors as in `Store`."""

    async def put(self, owner: str, name: str, data: bytes, *, content_type: str) -> None: ...

    async def get(self, owner: str, name: str) -> tuple[bytes, str] | None:
        """The bytes and their content type; None when not there."""
        ...

    async def delete(self, owner: str, name: str) -> None:
        """Safe to repeat."""
        ...

    def list(self, owner: str) -> AsyncIterator[str]:
        """The names an owner has."""
        ...

    async def erase(self, owner: str) -> int: ...

    async def ping(self) -> None: ...

    async def close(self) -> None: ...
