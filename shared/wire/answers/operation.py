"""What `/v1/responses/{id}/trace` and `/v1/admin/routes` answer."""

from typing import Any, Literal, NotRequired, TypedDict

type Json = dict[str, Any]


class TracedCall(TypedDict):
    """One try at a deployment."""

    at_ms: float
    deployment: str
    reason: str
    """`primary`, `fallback`, `canary`, `retry` or `spill`."""
    provider: NotRequired[str]
    """Who serves it: `openai`, `azure.ai.openai`, `compatible` or `offline`."""
    outcome: NotRequired[str]
    """`ok`, `failed`, or `left` when its caller did not wait for its end."""
    skipped: NotRequired[str]
    """It was not asked: `busy` or `breaker_open`."""
    status: NotRequired[int]
    error: NotRequired[str]
    first_ms: NotRequired[float]
    ms: NotRequired[float]
    model: NotRequired[str]
    cost: NotRequired[float]
    input_tokens: NotRequired[int]
    cached_tokens: NotRequired[int]
    output_tokens: NotRequired[int]


class TracedTool(TypedDict):
    name: str
    at_ms: float
    ms: float
    failed: bool


class TracedStorage(TypedDict):
    request_charge: float | None
    operations: dict[str, int]


class Compaction(TypedDict):
    covers_up_to: str


class Trace(TypedDict):
    """Why this answer. Token counts of `context` are estimates; times are milliseconds since the request was taken up.

    Features that had a part in the turn add to it under their own names.
    """

    object: Literal["response.trace"]
    response_id: str
    status: str
    model: str | None
    route: str | None
    """The model whose route was taken: another than was asked for where a flag said so."""
    deployment: str | None
    prompt_version: str | None
    """Name, version and hash of the prompt it was asked with."""
    flags: dict[str, str]
    """Flag to variant, for those that had a say."""
    guardrails: NotRequired[list[str]]
    """What guardrails found in the answer."""
    calls: list[TracedCall]
    tools: list[TracedTool]
    timings: dict[str, float | None]
    usage: Json | None
    cost: float
    storage: TracedStorage
    context: dict[str, int]
    """Tokens of each part, and the `budget` that history and input had in the `window`."""
    compaction: Compaction | None
    attempt: int
    notes: list[str]


class Routes(TypedDict):
    """The routes in force on the host that answered, and how their deployments have been doing there."""

    object: Literal["routes"]
    host: str
    source: Literal["stored", "settings"]
    text: str | None
    """As they were put; null where the settings say."""
    changed_at: float | None
    changed_by: str | None
    models: Json
    aliases: dict[str, str]
    deployments: Json
    gate: dict[str, int]
