"""Everything in an owner's partition, page by page."""

from collections.abc import AsyncGenerator

from shared.storage.base import Store, Stored

PAGE = 100


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
