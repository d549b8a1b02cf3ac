"""Atomic change of several records at once, retried while others change them too.

Within a process the changes of one partition wait for each other, and each begins with what the one before it wrote: a
user's many turns at once would otherwise meet at the same usage record, and all but one of them fail, again and again.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

from shared.errors import StorageUnavailable
from shared.storage.base import BatchFailed, Create, Document, Operation, Replace, Store, Stored

MAX_TRIES = 40
"""Enough for 64 parallel writers of one record, each of whom wins once."""


@dataclass(slots=True)
class Change:
    """How one record changes. `apply` gets the stored body (None: not there) and gives the new one.

    It may be called several times, always on the newest body; what it raises ends the whole change.
    """

    id: str
    apply: Callable[[Document | None], Document]
    known: Stored | None = None
    """As last read; spares a read when it is still the newest."""
    is_known: bool = False
    """True: `known` is what a read gave, even where that was nothing."""


@dataclass(eq=False)
class _Line:
    """Who changes one partition here; gone when nobody does."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    newest: dict[str, Stored] = field(default_factory=dict[str, Stored])
    """Records as the last one in the line left them."""


_lines: WeakValueDictionary[tuple[int, str, str], _Line] = WeakValueDictionary()


async def mutate(
    store: Store, container: str, partition: str, fixed: Sequence[Operation], changes: Sequence[Change]
) -> tuple[list[str], list[Stored]]:
    """Write the fixed operations and the changes in one batch.

    Returns:
        The new etags of the fixed operations, and the changed records as now stored.

    Raises:
        BatchFailed: a fixed operation did not hold; nothing was written.
        StorageUnavailable: whether it was written is unknown, or too many others change the same records.
    """
    key = (id(store), container, partition)
    line = _lines.get(key)
    if line is None:
        line = _lines[key] = _Line()
    async with line.lock:
        for change in changes:
            newest = line.newest.get(change.id)
            if newest is not None:
                change.known, change.is_known = newest, True
        line.newest.clear()
        etags, stored = await _mutate(store, container, partition, fixed, changes)
        line.newest.update(zip((change.id for change in changes), stored, strict=True))
        return etags, stored


async def _mutate(
    store: Store, container: str, partition: str, fixed: Sequence[Operation], changes: Sequence[Change]
) -> tuple[list[str], list[Stored]]:
    for attempt in range(MAX_TRIES):
        for change in changes:
            if not change.is_known:
                change.known = await store.read(container, partition, change.id)
                change.is_known = True
        bodies = [change.apply(change.known.body if change.known else None) for change in changes]
        operations = [
            Replace(body, change.known.etag) if change.known else Create(body)
            for change, body in zip(changes, bodies, strict=True)
        ]
        try:
            etags = await store.batch(container, partition, [*fixed, *operations])
        except BatchFailed as failure:
            if failure.index < len(fixed):
                raise
            for change in changes:
                change.is_known = False
            await asyncio.sleep(random.uniform(0, 0.002 * min(attempt, 20)))  # noqa: S311 - jitter, not a secret
            continue
        stored = [Stored(body, etag) for body, etag in zip(bodies, etags[len(fixed) :], strict=True)]
        return etags[: len(fixed)], stored
    raise StorageUnavailable("Too many requests of yours change the same records; try again.", retry_after=1)
