"""Routes in the store: what the operator puts there is in force on every host within a minute, without a deploy."""

from collections.abc import Awaitable, Callable
from typing import Literal

from shared.conversations.records import Record
from shared.models.routes import parse_routes
from shared.models.shadow import OPERATOR
from shared.storage.base import STATE, Delete, Missing, Store, Upsert

_ID = "routes"


class RoutesRecord(Record):
    """The routes in force, as they were written; in the operator's own partition."""

    kind: Literal["routes"] = "routes"
    group: str = "operator"
    sort: str = _ID
    text: str
    """JSON or YAML, as routes.py describes."""
    changed_at: float
    changed_by: str


def routes_reader(store: Store) -> Callable[[], Awaitable[str | None]]:
    """Reads their text; None: there are none, so COMPANION_ROUTES and the simple settings say."""

    async def read() -> str | None:
        record = await find_routes(store)
        return record.text if record is not None else None

    return read


async def find_routes(store: Store) -> RoutesRecord | None:
    stored = await store.read(STATE, OPERATOR, _ID)
    return RoutesRecord.model_validate(stored.body) if stored is not None else None


async def put_routes(store: Store, text: str, *, by: str, now: float) -> RoutesRecord:
    """Put routes in force.

    Raises:
        SettingsError: they cannot be used; nothing is changed.
    """
    parse_routes(text, source="The body")
    record = RoutesRecord(id=_ID, text=text, changed_at=now, changed_by=by)
    await store.batch(STATE, OPERATOR, [Upsert(record.document())])
    return record


async def delete_routes(store: Store) -> None:
    """Back to what the settings say. Safe to repeat."""
    try:
        await store.batch(STATE, OPERATOR, [Delete(_ID)])
    except Missing:
        return
