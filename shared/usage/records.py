"""What is stored of usage: one record per owner and month."""

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from shared.conversations.records import Record
from shared.storage.base import Document


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Counted use: of a day, or of a model in a day."""

    turns: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0

    def plus(self, other: "Spent") -> "Spent":
        return Spent(
            turns=self.turns + other.turns,
            input_tokens=self.input_tokens + other.input_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cost=self.cost + other.cost,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """An upper estimate held for a turn that runs, so that parallel turns cannot overspend."""

    tokens: int
    cost: float
    expires: float
    """When a reservation that nobody settled is given back: its turn's process died. See `UsageRecord.held`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """Use of the last minute, as levels that drain (usage/limits.py)."""

    requests: float = 0.0
    tokens: float = 0.0
    at: float = 0.0


LINE_SECONDS = 86_400
"""How much longer the reservation of a background turn counts than one that nobody settles."""

type Sent = tuple[str, float]
"""The turn that a request began, and when."""


class UsageRecord(Record):
    """`id` is `usage_YYYY-MM`. Read by every turn, written by its accept and its commit."""

    kind: Literal["usage"] = "usage"
    due: float = 0.0
    """Minus the month's beginning: an operator's view asks for it across owners, newest month first."""
    rate: Rate = Rate()
    adopted: list[str] = Field(default_factory=list[str])
    """What came from guests' records, so that it is added once."""
    days: dict[str, dict[str, Spent]] = Field(default_factory=dict[str, dict[str, Spent]])
    """Day (`YYYY-MM-DD`) to model to what was spent."""
    reserved: dict[str, Reservation] = Field(default_factory=dict[str, Reservation])
    """Turn id to its reservation."""
    sent: dict[str, Sent] = Field(default_factory=dict[str, Sent])
    """What was accepted within the last minute, by the beginning of the hash of its body: so that a retry is known for
    what it is. This record is written twice a turn, and these are most of it."""
    background: list[str] = Field(default_factory=list[str])
    """Background turns that may run now: they are in the queue, or at work."""
    waiting: list[str] = Field(default_factory=list[str])
    """Background turns behind them, first come first served; those of the priority tier ahead of the others."""
    waiting_first: int = 0
    """How many of those are of the priority tier."""

    def held(self, now: float) -> dict[str, Reservation]:
        """Reservations that count; a background turn's does until it has ended: it may stand in line for hours.

        For a day more than others, at most: one whose end is never told here must not hold the month's money.
        """
        apart = {*self.background, *self.waiting}
        return {
            turn: each
            for turn, each in self.reserved.items()
            if each.expires + (LINE_SECONDS if turn in apart else 0) > now
        }

    @classmethod
    def of(cls, body: Document) -> "UsageRecord":
        """The record in a stored document."""
        return body.record if isinstance(body, UsageDocument) else cls.model_validate(body)

    def document(self) -> "UsageDocument":
        return UsageDocument(super().document(), self)


class UsageDocument(dict[str, Any]):
    """A document that keeps the record it was made of, or read into: a turn looks at the same one several times."""

    __slots__ = ("record",)

    def __init__(self, body: Document, record: UsageRecord) -> None:
        super().__init__(body)
        self.record = record
