"""What is stored of projects and feedback."""

from typing import Literal

from pydantic import Field

from shared.conversations.records import Record


class ProjectRecord(Record):
    """Conversations that belong together, and what the model is told in each of them."""

    kind: Literal["project"] = "project"
    sort: str
    name: str
    instructions: str | None = None
    metadata: dict[str, str] = Field(default_factory=dict[str, str])
    created_at: float
    updated_at: float


class FeedbackRecord(Record):
    """What the owner thought of a response; one of each."""

    kind: Literal["feedback"] = "feedback"
    group: str
    """The conversation, or the response where there is none."""
    sort: str
    response: str
    rating: Literal["up", "down"]
    reasons: list[str] = Field(default_factory=list[str])
    comment: str | None = None
    created_at: float
    ttl: int | None = None
    """As the response's: what is said of a temporary one goes with it."""
