"""Why this answer: what a turn did, noted as it goes, stored with its final record and shown by its owner's request.

Bounded, no content, no store operation of its own.
"""

from dataclasses import dataclass, field
from typing import Any

from shared.conversations.records import TurnRecord
from shared.models.base import ModelRequest, Origin, changed
from shared.models.deployment import steady_now
from shared.telemetry import Tally
from shared.wire.responses import priced_usage

type Json = dict[str, Any]

MOST_TOOLS = 32
MOST_EXTRA = 16


@dataclass(slots=True)
class Trace:
    """Notes of one attempt at a turn. Times are milliseconds since `began`."""

    began: float = field(default_factory=steady_now)
    """When the request was taken up, by the event loop's clock."""
    origin: Origin = field(default_factory=Origin)
    prepare_ms: float | None = None
    accept_ms: float | None = None
    first_ms: float | None = None
    context: Json = field(default_factory=dict[str, Any])
    """What went into the context, in tokens for each part."""
    tools: list[Json] = field(default_factory=list[Json])
    extra: Json = field(default_factory=dict[str, Any])
    """What other features want shown: prompt version, flags, guardrails. Small values."""

    def elapsed(self) -> float:
        return round((steady_now() - self.began) * 1000, 1)

    def on_behalf(self, request: ModelRequest, owner: str, turn: TurnRecord, *, deadline: float) -> ModelRequest:
        """The request as this turn makes it: the router knows for whom, notes what it did, and when to give up."""
        name = turn.id if turn.ttl is None else ""  # of a temporary turn no shadow is made, which would keep its words
        if self.origin.turn != name or self.origin.owner != owner:
            self.origin = Origin(owner=owner, thread=turn.group, turn=name, calls=self.origin.calls)
        return changed(request, origin=self.origin, deadline=deadline)

    def tool(self, name: str, began: float, *, failed: bool) -> None:
        """A tool that ran here, since `began`."""
        if len(self.tools) < MOST_TOOLS:
            at = round((began - self.began) * 1000, 1)
            took = round((steady_now() - began) * 1000, 1)
            self.tools.append({"name": name, "at_ms": at, "ms": took, "failed": failed})

    def body(self, tally: Tally) -> Json:
        """As it is stored."""
        calls = [
            {"at_ms": round((note["at"] - self.began) * 1000, 1), **{k: v for k, v in note.items() if k != "at"}}
            for note in self.origin.calls
        ]
        timings = {
            "prepare_ms": self.prepare_ms,
            "accept_ms": self.accept_ms,
            "first_token_ms": self.first_ms,
            "total_ms": self.elapsed(),
        }
        return {
            "calls": calls,
            "tools": self.tools,
            "timings": {name: value for name, value in timings.items() if value is not None},
            "context": self.context,
            "operations": dict(tally.counts),
            **dict(list(self.extra.items())[:MOST_EXTRA]),
        }


def render_trace(turn: TurnRecord) -> Json:
    """What `GET /v1/responses/{id}/trace` says."""
    trace = dict(turn.trace)
    timings: Json = {**trace.pop("timings", {}), "first_token_ms": turn.first_token_ms}
    if turn.completed_at is not None:
        timings.setdefault("total_ms", round((turn.completed_at - turn.created_at) * 1000, 1))
    return {
        "object": "response.trace",
        "response_id": turn.id,
        "status": turn.status,
        "model": turn.params.get("model"),
        "route": turn.call.get("model") or turn.params.get("model"),
        "deployment": turn.deployment or None,
        "prompt_version": turn.prompt_version,
        "flags": turn.flags or {},
        "calls": trace.pop("calls", []),
        "tools": trace.pop("tools", []),
        "timings": timings,
        "usage": priced_usage(turn.usage, turn.cost),
        "cost": turn.cost,
        "storage": {"request_charge": turn.charge, "operations": trace.pop("operations", {})},
        "context": trace.pop("context", {}),
        "compaction": {"covers_up_to": turn.summary.upto} if turn.summary else None,
        "attempt": turn.attempt,
        "notes": turn.notes,
        **trace,
    }
