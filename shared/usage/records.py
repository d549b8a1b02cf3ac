"""What is stored of usage: one record per owner and month."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from shared.conversations.records import Record


class Spent(BaseModel):
    """Counted use: of a day, or of a model in a day."""

    model_config = ConfigDict(frozen=True)

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


class Reservation(BaseModel):
    """An upper estimate held for a turn that runs, so that parallel turns cannot overspend."""

    model_config = ConfigDict(frozen=True)

    tokens: int
    cost: float
    expires: float
    """When a reservation that nobody settled is given back: its turn's process died."""


class UsageRecord(Record):
    """`id` is `usage_YYYY-MM`."""

    kind: Literal["usage"] = "usage"
    days: dict[str, dict[str, Spent]] = Field(default_factory=dict[str, dict[str, Spent]])
    """Day (`YYYY-MM-DD`) to model to what was spent."""
    reserved: dict[str, Reservation] = Field(default_factory=dict[str, Reservation])
    """Turn id to its reservation."""
