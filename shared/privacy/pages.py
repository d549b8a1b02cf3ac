"""Everything in an owner's partition, page by page, and as much of it as one batch may write."""

from collections.abc import AsyncGenerator, Callable, Iterator, Sequence

import orjson

from shared.storage.base import Document, Store, Stored

PAGE = 100
BATCH = 90
"""Documents of one batch, and room for a few more operations."""
BATCH_BYTES = 1_500_000
"""Of one batch; Cosmos DB takes 2 MB."""


async def everything(store: Store, container: str, owner: str) -> AsyncGenerator[list[Stored]]:
    """Every document there now, in pages, oldest change first."""
    token: str | None = None
    while True:
        changed = await store.changes(container, owner, since=token, limit=PAGE)
        if changed.documents:
            yield changed.documents
        if not changed.has_more:
            return
        token = changed.token


def in_batches[T](documents: Sequence[T], body: Callable[[T], Document]) -> Iterator[Sequence[T]]:
    """
    >>> [len(batch) for batch in in_batches([{"id": "a" * 1_000_000}] * 3, lambda body: body)]
    [1, 1, 1]
    """
    start, size = 0, 0
    for end, document in enumerate(documents):
        length = len(orjson.dumps(body(document)))
        if end > start and (size + length > BATCH_BYTES or end - start == BATCH):
            yield documents[start:end]
            start, size = end, 0
        size += length
    if start < len(documents):
        yield documents[start:]
