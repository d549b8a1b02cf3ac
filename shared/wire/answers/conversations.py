"""What `/v1/conversations` answers."""

from typing import Any, Literal, NotRequired, TypedDict

from shared.wire.answers.items import Item
from shared.wire.answers.responses import IncompleteDetails, ResponseError, Usage

type Json = dict[str, Any]


Match = TypedDict("Match", {"in": Literal["title", "text"], "response": str | None, "snippet": str})
"""Where a search found its words."""


class Conversation(TypedDict):
    """A thread; `updated_at` and what follows are Companion's own."""

    id: str
    object: Literal["conversation"]
    created_at: int
    metadata: dict[str, str]
    updated_at: int
    title: str | None
    """Made once, after the first answer."""
    head: str | None
    """The response (or the items) that the next turn continues."""
    running: str | None
    """The response that is being made in it."""
    archived: bool
    pinned: bool
    project: str | None
    temporary: bool
    """In no list, search or change feed; gone a day after its last change."""
    match: NotRequired[Match]


class Turn(TypedDict):
    """Who answered whom, with what, at which cost: a node of the conversation's tree."""

    id: str
    object: Literal["conversation.turn"]
    conversation: str | None
    """Null: a response, or a chat completion, outside of any."""
    parent: str | None
    status: Literal["queued", "in_progress", "completed", "failed", "incomplete", "cancelled"]
    created_at: int
    created_at_ms: int
    """Versions of one moment may be made in the same second."""
    completed_at: int | None
    model: str | None
    input: list[Item]
    output: list[Item]
    usage: Usage | None
    error: ResponseError | None
    incomplete_details: IncompleteDetails | None
    cost: float
    first_token_ms: float | None
    duration_ms: float | None
    notes: list[str]
