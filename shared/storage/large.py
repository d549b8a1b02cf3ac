"""Records stay small: long strings of a large one (pictures, tool outputs, files) live in blobs beside it.

A store around a store. On the way in, the longest strings of a document over the limit move to blobs, named by the
document and their content; on the way out they are put back. Whoever reads and writes records does not notice, and
what a turn costs does not grow with what was attached to it.

Blobs are written before the batch that names them and deleted after the batch that deletes their document (or puts a
`SPENT` one in its place), so a record never names a blob that is not there; a process that dies in between leaves a
blob that nobody names, for erase to find.
A document that disappears by its `ttl` deletes nothing: with it a small record is written that outlives it, is due when
it is gone, and says which blobs go then (privacy/sweep.py).
"""

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, TypeGuard, cast

import orjson

from shared.clock import Clock
from shared.errors import StorageUnavailable
from shared.storage.base import (
    STATE,
    BlobStore,
    Changed,
    Create,
    Delete,
    Document,
    Due,
    Missing,
    Operation,
    Query,
    Replace,
    Store,
    Stored,
    Upsert,
)

log = logging.getLogger("companion.storage")

RECORD_BYTES = 64_000
"""A document over this is made smaller; the design's ceiling is 100 KB."""
LONG_CHARACTERS = 4_000
"""Only strings at least so long are moved."""
CACHE_BYTES = 32 * 1024 * 1024
SPENT = "spent"
"""The kind to upsert in the place of a document that is deleted but whose id stays taken: the blobs go as in a delete.
Other writes take no blobs along: to know of any, each would have to read what it replaces."""
_MARK = "$blob"
"""The only key of what stands in the place of a string. An object of a user's that looks the same is stored with its
value in a list, which ours never is: nobody can take the one for the other."""
_PART_MISSING = "blob_missing"
_NAMES = "blobs"
"""The field of a document that says which blobs are its own."""


class LargeFieldStore:
    """See the module. Only the owners' container has large records; the others pass through."""

    def __init__(self, store: Store, blobs: BlobStore, clock: Clock) -> None:
        self._store = store
        self._blobs = blobs
        self._clock = clock
        self._cache: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._cached = 0

    @property
    def outlines(self) -> Store:
        """The store within."""
        return self._store

    # reading

    async def read(self, container: str, partition: str, id_: str) -> Stored | None:
        stored = await self._store.read(container, partition, id_)
        return await self._whole(partition, stored) if stored is not None else None

    async def query(self, container: str, partition: str, query: Query) -> list[Stored]:
        return await self._all_whole(partition, await self._store.query(container, partition, query))

    async def scan(self, container: str, partition: str) -> list[Stored]:
        return await self._all_whole(partition, await self._store.scan(container, partition))

    async def due(
        self, container: str, kind: str, *, before: float, after: float | None = None, limit: int = 100
    ) -> list[Due]:
        most = limit
        while True:  # as if those that lack a part were not there: they fill no page
            found = await self._store.due(container, kind, before=before, after=after, limit=most)
            whole = [due for due in [await self._due_whole(due) for due in found] if due is not None]
            if len(whole) >= limit or len(found) < most:
                return whole[:limit]
            most += limit

    async def changes(self, container: str, partition: str, *, since: str | None, limit: int = 100) -> Changed:
        changed = await self._store.changes(container, partition, since=since, limit=limit)
        return changed._replace(documents=await self._all_whole(partition, changed.documents))

    # writing

    async def batch(self, container: str, partition: str, operations: Sequence[Operation]) -> list[str]:
        if container != STATE:
            return await self._store.batch(container, partition, operations)
        orphans = await self._named_by_ended(partition, operations)
        small = [await self._small(partition, operation) for operation in operations]
        try:
            etags = await self._store.batch(container, partition, [*small, *self._sweeps(small)])
        except Missing:
            await self._take_back(partition, small)
            raise
        for name in orphans:
            await self._delete(partition, name)
        return etags[: len(operations)]

    async def erase(self, container: str, partition: str) -> int:
        for key in [key for key in self._cache if container == STATE and key[0] == partition]:
            self._cached -= len(self._cache.pop(key))
        return await self._store.erase(container, partition)

    async def setup(self) -> None:
        await self._store.setup()

    async def ping(self) -> None:
        await self._store.ping()

    async def close(self) -> None:
        await self._store.close()

    # how

    async def _small(self, owner: str, operation: Operation) -> Operation:
        if isinstance(operation, Delete):
            return operation
        body = operation.body
        excess = len(orjson.dumps(body)) - RECORD_BYTES
        if excess <= 0:
            return operation
        long: list[tuple[int, list[str | int]]] = []
        _find_long(body, [], long)
        moved: dict[tuple[str | int, ...], str] = {}
        for length, path in sorted(long, key=lambda found: -found[0]):
            if excess <= 0:
                break
            text = cast(str, _at(body, path))
            name = f"{body['id']}/{hashlib.sha256(text.encode()).hexdigest()[:32]}"
            if not (isinstance(operation, Replace) and (owner, name) in self._cache):
                await self._put(owner, name, text)  # a new document's may have been deleted with one of its name before
            moved[tuple(path)] = name
            excess -= length
        if not moved:
            return operation
        small = cast(Document, _replaced(body, (), moved))
        small[_NAMES] = sorted(set(moved.values()))
        if isinstance(operation, Replace):
            return Replace(small, operation.etag)
        return Create(small) if isinstance(operation, Create) else Upsert(small)

    async def _named_by_ended(self, owner: str, operations: Sequence[Operation]) -> list[str]:
        ended = [id_ for id_ in map(_ended, operations) if id_ is not None]
        if not ended:
            return []
        found = await asyncio.gather(*(self._store.read(STATE, owner, id_) for id_ in ended))
        return [name for stored in found if stored for name in stored.body.get(_NAMES, ())]

    async def _all_whole(self, owner: str, found: list[Stored]) -> list[Stored]:
        if not any(_NAMES in stored.body for stored in found):
            return found
        return list(await asyncio.gather(*(self._whole(owner, stored) for stored in found)))

    async def _whole(self, owner: str, stored: Stored) -> Stored:
        names: list[str] | None = stored.body.get(_NAMES)
        if not names:
            return stored
        texts = dict(zip(names, await asyncio.gather(*(self._get(owner, name) for name in names)), strict=True))
        body = cast(Document, _restored({key: value for key, value in stored.body.items() if key != _NAMES}, texts))
        return Stored(body, stored.etag)

    async def _due_whole(self, due: Due) -> Due | None:
        """None for one that lacks a part: timers go on to everybody else's."""
        try:
            return Due(due.partition, await self._whole(due.partition, due.stored))
        except StorageUnavailable as failure:
            if failure.code != _PART_MISSING:
                raise  # it is the blobs that cannot be reached: the same for the next one
            log.warning("record.part_missing", extra={"record": due.stored.body["id"]}, exc_info=True)
            return None

    def _sweeps(self, small: Sequence[Operation]) -> list[Operation]:
        return [
            Upsert(sweep(body["id"], body[_NAMES], self._clock.now() + body["ttl"]))
            for body in map(_body_of, small)
            if body is not None and _NAMES in body and "ttl" in body
        ]

    async def _take_back(self, owner: str, small: Sequence[Operation]) -> None:
        """Nothing was written, and what the batch relied on is gone, it may be for good: so are blobs nobody names."""
        for body in map(_body_of, small):
            if body is None or _NAMES not in body:
                continue
            stored = await self._store.read(STATE, owner, body["id"])
            kept = stored.body.get(_NAMES, ()) if stored is not None else ()
            for name in set(body[_NAMES]).difference(kept):
                await self._delete(owner, name)

    async def _delete(self, owner: str, name: str) -> None:
        text = self._cache.pop((owner, name), "")
        self._cached -= len(text)
        await self._blobs.delete(owner, name)

    async def _put(self, owner: str, name: str, text: str) -> None:
        await self._blobs.put(owner, name, text.encode(), content_type="text/plain; charset=utf-8")
        self._remember(owner, name, text)

    async def _get(self, owner: str, name: str) -> str:
        cached = self._cache.get((owner, name))
        if cached is not None:
            self._cache.move_to_end((owner, name))
            return cached
        found = await self._blobs.get(owner, name)
        if found is None:
            raise StorageUnavailable(f"Part of a record is missing ({name}).", code=_PART_MISSING)
        text = found[0].decode()
        self._remember(owner, name, text)
        return text

    def _remember(self, owner: str, name: str, text: str) -> None:
        if len(text) > CACHE_BYTES // 4:
            return
        self._cached += len(text) - len(self._cache.pop((owner, name), ""))
        self._cache[owner, name] = text
        while self._cached > CACHE_BYTES:
            _, old = self._cache.popitem(last=False)
            self._cached -= len(old)


def outlines(store: Store) -> Store:
    """The store without this one around it: records with references where their long strings were.

    For who only counts and deletes: that costs no blobs, and goes on where one is missing.
    """
    return store.outlines if isinstance(store, LargeFieldStore) else store


def sweep(document: str, names: Sequence[str], due: float) -> Document:
    """The record that says which blobs go once a document is gone by itself."""
    return {"id": f"blobs_{document}", "kind": "blobs", "due": due, "of": document, "names": list(names)}


def _ended(operation: Operation) -> str | None:
    """The id of a document that is no more after this."""
    if isinstance(operation, Delete):
        return operation.id
    is_spent = isinstance(operation, Upsert) and operation.body.get("kind") == SPENT
    return operation.body["id"] if is_spent else None


def _body_of(operation: Operation) -> Document | None:
    return None if isinstance(operation, Delete) else operation.body


def _find_long(value: Any, path: list[str | int], found: list[tuple[int, list[str | int]]]) -> None:
    """Where the long strings are; the store's own fields are never among them."""
    if isinstance(value, str):
        if len(value) >= LONG_CHARACTERS:
            found.append((len(value), path))
    elif isinstance(value, dict):
        for key, inner in cast(dict[str, Any], value).items():
            _find_long(inner, [*path, key], found)
    elif isinstance(value, list):
        for index, inner in enumerate(cast(list[Any], value)):
            _find_long(inner, [*path, index], found)


def _at(value: Any, path: list[str | int]) -> Any:
    for step in path:
        value = value[step]
    return value


def _replaced(value: Any, path: tuple[str | int, ...], moved: dict[tuple[str | int, ...], str]) -> Any:
    """A copy with references in the places of moved strings."""
    if path in moved:
        return {_MARK: moved[path]}
    if _is_marked(value):
        return {_MARK: [_replaced(value[_MARK], (*path, _MARK), moved)]}
    if isinstance(value, dict):
        return {key: _replaced(inner, (*path, key), moved) for key, inner in cast(dict[str, Any], value).items()}
    if isinstance(value, list):
        return [_replaced(inner, (*path, index), moved) for index, inner in enumerate(cast(list[Any], value))]
    return value


def _is_marked(value: Any) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict) and value.keys() == {_MARK}


def _restored(value: Any, texts: dict[str, str]) -> Any:
    """A copy with the strings back in their places."""
    if _is_marked(value):
        inner = value[_MARK]
        if isinstance(inner, str) and inner in texts:
            return texts[inner]
        if isinstance(inner, list) and len(cast(list[Any], inner)) == 1:
            return {_MARK: _restored(inner[0], texts)}
    if isinstance(value, dict):
        return {key: _restored(inner, texts) for key, inner in cast(dict[str, Any], value).items()}
    if isinstance(value, list):
        return [_restored(inner, texts) for inner in cast(list[Any], value)]
    return value
