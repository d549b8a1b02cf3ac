"""Everything whose time has come, page by page: what stays due, because it lives or fails, hides nothing behind it."""

from shared.storage.base import Due, Store

PAGE = 100
MOST = 2_000
"""Documents that one pass looks at."""


async def overdue(store: Store, container: str, kind: str, *, before: float) -> list[Due]:
    """Documents of any partition with `due` earlier than `before`, earliest first, at most a page more than `MOST`."""
    found: dict[tuple[str, str], Due] = {}
    after: float | None = None
    while len(found) < MOST:
        seen = sum(due.stored.body["due"] == after for due in found.values())  # they come again
        page = await store.due(container, kind, after=after, before=before, limit=seen + PAGE)
        known = len(found)
        found.update({(due.partition, due.stored.body["id"]): due for due in page})
        if len(found) == known:
            break
        after = page[-1].stored.body["due"]
    return list(found.values())
