"""Atomic change of several records at once, retried while others change them too."""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

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
