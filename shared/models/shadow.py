"""Shadow calls: a copy of a call to a candidate, off the answer's path; what it said is kept for evaluation."""

from collections.abc import Awaitable, Callable
from typing import Any, Literal

from shared.clock import Clock
from shared.conversations.records import Record
from shared.ids import Ids
from shared.storage.base import STATE, Create, Store
from shared.storage.mutate import mutate
from shared.usage import meter
from shared.usage.records import Spent

type Json = dict[str, Any]

KEPT_SECONDS = 30 * 24 * 3600
OPERATOR = "companion-operator"
"""The owner whose usage counts what shadows cost: no user pays for them."""


class ShadowRecord(Record):
    """What a candidate would have said in a turn; in the owner's partition, and erased with it."""

    kind: Literal["shadow"] = "shadow"
    group: str = "shadow"
    sort: str
    turn: str
    """The response whose call was copied."""
    model: str
    deployment: str
    created_at: float
    text: str = ""
    """The candidate's words; calls of tools as JSON lines."""
    error: str | None = None
    seconds: float
    first_token_ms: float | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0
    ttl: int = KEPT_SECONDS


type Keep = Callable[[str, Json], Awaitable[None]]
"""Stores what a shadow said: the owner, and the fields of its record that the router knows."""


def shadow_keeper(store: Store, clock: Clock, ids: Ids) -> Keep:
    """Keeps results in the store, and charges the operator."""

    async def keep(owner: str, result: Json) -> None:
        now, token = clock.now(), ids.token()
        record = ShadowRecord(id=f"shadow_{token}", sort=f"{int(now * 1000):015d}.{token}", created_at=now, **result)
        await store.batch(STATE, owner, [Create(record.document())])
        spent = Spent(turns=1, input_tokens=record.input_tokens, output_tokens=record.output_tokens, cost=record.cost)
        await mutate(store, STATE, OPERATOR, [], [meter.charge(now, record.deployment, spent)])

    return keep
