"""A queue beside the state: documents that are due. For SQLite, and wherever no queue service is configured.

A delivery hides a message by moving its `due` ahead, conditionally: two receivers never get the same delivery.
"""

import random
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import orjson

from shared.clock import Clock
from shared.ids import Ids
from shared.jobs.base import Json, QueueName
from shared.storage.base import DIRECTORY, Create, Delete, Document, Missing, Replace, Stale, Store, Stored

VISIBILITY_SECONDS = 30.0
"""How long a delivery is hidden from other receivers; a worker at it for longer holds its turn by lease."""
_LOOK = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A message that this process alone sees for a while."""

    id: str
    body: str
    dequeue_count: int
    pop_receipt: str
    """The etag of the delivery: a later one invalidates it."""
    inserted: datetime
    expires: datetime = datetime(9999, 12, 31, tzinfo=UTC)


class StoreQueue:
    """A `Queue`, and the receiving side that the local host feeds its triggers from."""

    def __init__(self, store: Store, clock: Clock, ids: Ids) -> None:
        self._store = store
        self._clock = clock
        self._ids = ids

    async def send(self, queue: QueueName, body: Json, *, delay: float = 0.0) -> None:
        id_, now = f"message_{self._ids.token()}", self._clock.now()
        document = {
            "id": id_,
            "kind": f"message:{queue}",
            "due": now + delay,
            "body": orjson.dumps(body).decode(),
            "tries": 0,
            "inserted": now,
        }
        await self._store.batch(DIRECTORY, id_, [Create(document)])

    async def ping(self) -> None:
        await self._store.ping()

    async def close(self) -> None:
        """The store is closed by whoever opened it."""

    # receiving

    async def receive(self, queue: str) -> Delivery | None:
        """The next visible message, hidden from others for a while; None when there is none now."""
        due = await self._store.due(DIRECTORY, f"message:{queue}", before=self._clock.now() + 0.001, limit=_LOOK)
        # Receivers that look at once would all try the first; a few places apart they rarely meet.
        for found in due[:1] + random.sample(due[1:], max(0, len(due) - 1)):
            delivery = await self._take(found.stored)
            if delivery is not None:
                return delivery
        return None

    async def complete(self, queue: str, message: Delivery) -> None:
        """Done: delete it, unless it was delivered again meanwhile."""
        del queue
        with suppress(Stale, Missing):
            await self._store.batch(DIRECTORY, message.id, [Delete(message.id, message.pop_receipt)])

    async def abandon(self, queue: str, message: Delivery, *, delay: float) -> None:
        """Failed: visible again in so many seconds."""
        await self._change(queue, message, due=self._clock.now() + delay)

    async def bury(self, queue: str, message: Delivery, *, reason: str = "delivered too often without success") -> None:
        """Failed too often: parked with a reason, for a person to look at."""
        await self._change(f"{queue}-poison", message, due=self._clock.now(), reason=reason)

    async def _take(self, stored: Stored) -> Delivery | None:
        body: Document = {
            **stored.body,
            "due": self._clock.now() + VISIBILITY_SECONDS,
            "tries": stored.body["tries"] + 1,
        }
        try:
            etags = await self._store.batch(DIRECTORY, body["id"], [Replace(body, stored.etag)])
        except (Stale, Missing):
            return None
        return Delivery(
            id=body["id"],
            body=body["body"],
            dequeue_count=body["tries"],
            pop_receipt=etags[0],
            inserted=datetime.fromtimestamp(body["inserted"], UTC),
        )

    async def _change(self, queue: str, message: Delivery, **changes: object) -> None:
        stored = await self._store.read(DIRECTORY, message.id, message.id)
        if stored is None or stored.etag != message.pop_receipt:
            return
        body = {**stored.body, "kind": f"message:{queue}", **changes}
        with suppress(Stale, Missing):
            await self._store.batch(DIRECTORY, message.id, [Replace(body, stored.etag)])
