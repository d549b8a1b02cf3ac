"""What resources about the owner answer: profile, usage, keys, shares, projects, feedback, changes, data jobs."""

from typing import Any, Literal, NotRequired, TypedDict

type Json = dict[str, Any]


class Profile(TypedDict):
    """Who one is here, and how one wants it."""

    id: str
    object: Literal["profile"]
    is_guest: bool
    plan: str
    name: str | None
    retention_days: int | None
    """Conversations unchanged for so many days are deleted; null: kept."""


class Spent(TypedDict):
    turns: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    cost: float


class ModelUsage(Spent):
    model: str


class DayUsage(TypedDict):
    date: str
    models: list[ModelUsage]


class UsageLimits(TypedDict):
    requests_per_minute: float | None
    tokens_per_minute: float | None
    concurrent_turns: float | None
    usd_per_day: float | None
    usd_per_month: float | None


class OwnUsage(TypedDict):
    """A month, by day and model; money in US dollars."""

    object: Literal["usage"]
    month: str
    days: list[DayUsage]
    total: Spent
    reserved: float
    """Held by responses that are being made."""
    limits: UsageLimits
    remaining_today: float | None
    remaining_this_month: float | None


class OwnerUsage(Spent):
    owner: str


class AllUsage(TypedDict):
    """For operators: a month, by owner, dearest first."""

    object: Literal["list"]
    month: str
    data: list[OwnerUsage]
    has_more: bool


class ApiKey(TypedDict):
    id: str
    object: Literal["api_key"]
    name: str
    scopes: list[str]
    hint: str
    created_at: int
    expires_at: int | None
    key: NotRequired[str]
    """The key itself: only in the answer that makes it."""


class Guest(TypedDict):
    object: Literal["guest"]
    token: str
    expires_at: int


class Adoption(TypedDict):
    object: Literal["adoption"]
    adopted: Literal[True]
    moved: int


class Share(TypedDict):
    id: str
    object: Literal["share"]
    conversation: str
    title: str | None
    items: int
    created_at: int
    path: str


class SharedItem(TypedDict):
    role: Literal["user", "assistant"]
    text: str


class SharedConversation(TypedDict):
    id: str
    object: Literal["shared_conversation"]
    title: str | None
    created_at: int
    items: list[SharedItem]


class Project(TypedDict):
    id: str
    object: Literal["project"]
    name: str
    instructions: str | None
    metadata: dict[str, str]
    created_at: int
    updated_at: int


class Feedback(TypedDict):
    id: str
    object: Literal["feedback"]
    response: str
    rating: Literal["up", "down"]
    reasons: list[str]
    comment: str | None
    created_at: int


class Gone(TypedDict):
    """A record that is no longer there."""

    id: str
    object: Literal["deletion"]
    of: str
    deleted_at: int


class Changes(TypedDict):
    """What changed since a token, oldest first, each in its latest form; and the token to go on with."""

    object: Literal["changes"]
    data: list[Json]
    token: str
    has_more: bool


class DataJob(TypedDict):
    """An export, import or erasure; poll it until its status is final."""

    id: str
    object: Literal["data_job"]
    type: Literal["export", "import", "erase"]
    status: Literal["queued", "in_progress", "completed", "failed"]
    created_at: int
    completed_at: int | None
    counts: dict[str, int]
    """Per kind and store: `state/turn`, `events`, `blobs`, …"""
    error: str | None
