"""The port to language models: one method, a stream of small events.

Adapters speak a vendor's protocol on one side and these on the other; routing, metering and retries are models around
a model. Input is the list of Responses-protocol items the model is to see; output is described as items being built.

    ItemStarted ──► TextDelta* / RefusalDelta* / ArgumentsDelta* / SummaryDelta* / ReasoningDelta* ──► ItemDone
    … further items (several may be open at once, told apart by `key`) …
    Finished, exactly once, last
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, cast

type Json = dict[str, Any]

TITLE_INSTRUCTIONS = (
    "Name this conversation in at most six words, in its language. Give the name alone: no quotes, no markup."
)
"""Instructions of a call that wants a title; the offline model knows it by them."""

SUMMARY_INSTRUCTIONS = (
    "Summarise this conversation for yourself, so that you can go on without its text. Keep names, facts, numbers,"
    " decisions, promises, preferences of the user, results of tools and open questions. Write plain sentences."
)
"""Instructions of a call that wants a summary; the offline model knows it by them."""

SUMMARY_MARKER = "companion:summary:1:"
"""What `encrypted_content` of our own compaction items begins with; the summary follows."""


def summary_of(item: Json) -> str:
    """What the model is told in place of the items that a compaction item stands for."""
    return f"Summary of the conversation so far:\n{item['encrypted_content'].removeprefix(SUMMARY_MARKER)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """On whose behalf a call is made, and where what was done for it is noted. Nothing of it goes upstream."""

    owner: str = ""
    thread: str = ""
    """Calls of one thread go to the same deployment where they can: its prompt cache knows them."""
    turn: str = ""
    calls: list[Json] = field(default_factory=list[Json], compare=False)
    """What the router did, a JSON object for each try, in order; for the turn's trace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRequest:
    """One model call. Fields are those of the Responses API; None means: not sent."""

    model: str
    """The name the upstream knows."""
    items: list[Json]
    """What the model sees, oldest first: stored-form items (ids present; adapters drop what the upstream refuses)."""
    instructions: str | None = None
    tools: list[Json] = field(default_factory=list[Json])
    """Function and custom tools in Responses form."""
    tool_choice: str | Json | None = None
    parallel_tool_calls: bool | None = None
    text: Json | None = None
    """`{"format": …, "verbosity": …}`."""
    reasoning: Json | None = None
    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    max_output_tokens: int | None = None
    top_logprobs: int | None = None
    logprobs: bool = False
    stop: list[str] | None = None
    seed: int | None = None
    logit_bias: Json | None = None
    service_tier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    safety_identifier: str | None = None
    user: str | None = None
    prediction: Json | None = None
    prefix: str | None = None
    """How the answer begins: it was shown already, and the model goes on from it. Only where `Router.can_continue`."""
    deadline: float | None = None
    """Seconds this call may take in all; None: the deployment's own limit."""
    silence: float | None = None
    """Seconds without a word, once the first were told, after which the answer counts as cut; None: the transport's."""
    is_last_try: bool = False
    """The answer broke off so often that no other call would be made in place of this one."""
    tokens: int = 0
    """Of the items, by estimate: calls of about one size are alike."""
    pace: float = 0.0
    """Seconds that words may wait once the first were told, for the sake of fewer and larger steps; 0: none."""
    origin: Origin | None = None


@dataclass(frozen=True, slots=True)
class ItemStarted:
    """An output item begins. `key` is any number unique in this call; its order is the order of output."""

    key: int
    type: Literal["message", "reasoning", "function_call", "custom_tool_call", "mcp_call"]
    """`mcp_call` is never a model's own word: the turn engine renames calls of tools that it runs itself."""
    name: str = ""
    call_id: str = ""


@dataclass(frozen=True, slots=True)
class TextDelta:
    key: int
    text: str
    logprobs: list[Json] | None = None


@dataclass(frozen=True, slots=True)
class RefusalDelta:
    key: int
    text: str


@dataclass(frozen=True, slots=True)
class ArgumentsDelta:
    """A piece of a tool call's arguments (function) or input (custom)."""

    key: int
    text: str


@dataclass(frozen=True, slots=True)
class SummaryDelta:
    """A piece of a reasoning summary part."""

    key: int
    index: int
    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """A piece of the reasoning text itself, where the upstream shows it."""

    key: int
    text: str


@dataclass(frozen=True, slots=True)
class AnnotationAdded:
    key: int
    annotation: Json


@dataclass(frozen=True, slots=True)
class ItemDone:
    """The item is whole; one that the model could not finish gets none before `Finished`.

    `extra` holds fields that no delta carried (`encrypted_content` of reasoning, `phase` of a message).
    """

    key: int
    extra: Json | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    input_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            cache_write_tokens=self.cache_write_tokens + other.cache_write_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
        )


_MOST_TOKENS = 1_000_000_000
"""No call takes as many: whatever says more has not counted."""


def counted(usage: Any, *, given: str, made: str) -> Usage | None:
    """Tokens as a server counts them, by its words for what it was given and what it made.

    None where it does not: then they are estimated, neither free nor a credit. Details may be missing; more cannot have
    come from the cache than was given, or it would lower the price below 0.
    """
    counts = object_of(usage)
    input_tokens, output_tokens = _count(counts.get(f"{given}_tokens")), _count(counts.get(f"{made}_tokens"))
    if input_tokens is None or output_tokens is None:
        return None
    of_given = object_of(counts.get(f"{given}_tokens_details"))
    of_made = object_of(counts.get(f"{made}_tokens_details"))
    return Usage(
        input_tokens=input_tokens,
        cached_tokens=min(_count(of_given.get("cached_tokens")) or 0, input_tokens),
        cache_write_tokens=_count(of_given.get("cache_write_tokens")) or 0,
        output_tokens=output_tokens,
        reasoning_tokens=_count(of_made.get("reasoning_tokens")) or 0,
    )


def object_of(said: Any) -> Json:
    """What a server should have said in an object; it may have said nothing, or something else."""
    return cast(Json, said) if isinstance(said, dict) else {}


def _count(said: Any) -> int | None:
    return int(said) if type(said) in (int, float) and 0 <= said <= _MOST_TOKENS else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The model stopped. `incomplete` is None, `max_output_tokens` or `content_filter`."""

    usage: Usage | None
    incomplete: Literal["max_output_tokens", "content_filter"] | None = None
    model: str = ""
    """The name the upstream answered with (a dated version, say)."""
    service_tier: str | None = None
    system_fingerprint: str | None = None
    deployment: str = ""
    """Filled by the router: which deployment answered."""
    cost: float = 0.0
    """US dollars, filled by the router from the deployment's prices."""
    tries: int = 1
    longest_silence: float = 0.0
    """Seconds between two of its words."""


type ModelEvent = (
    ItemStarted
    | TextDelta
    | RefusalDelta
    | ArgumentsDelta
    | SummaryDelta
    | ReasoningDelta
    | AnnotationAdded
    | ItemDone
    | Finished
)


def changed(request: ModelRequest, **changes: Any) -> ModelRequest:
    """As `dataclasses.replace`, for a third of its time: of so many fields that is felt before the first word."""
    copy = object.__new__(ModelRequest)
    put = object.__setattr__  # it is frozen
    for name in ModelRequest.__slots__:
        put(copy, name, changes[name] if name in changes else getattr(request, name))
    return copy


class Model(Protocol):
    """Something that answers.

    Raises the errors of `shared.errors`: `InvalidRequest` when the upstream refuses the request, `RateLimited`,
    `ModelUnavailable`, `ModelTimeout`, `UpstreamError` when it fails; before the first event or in the middle.
    Closing the iterator ends the upstream call.
    """

    def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]: ...

    async def close(self) -> None: ...


class Embedder(Protocol):
    """Passes `POST /v1/embeddings` through; `base64` and `float` as asked."""

    async def embed(self, body: Json) -> Json: ...

    async def close(self) -> None: ...
