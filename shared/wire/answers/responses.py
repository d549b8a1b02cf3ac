"""The response object, and what else `/v1/responses` answers."""

from typing import Any, Literal, NotRequired, TypedDict

from shared.wire.answers.items import Item

type Json = dict[str, Any]


class ConversationRef(TypedDict):
    id: str


class ResponseError(TypedDict):
    """Why a response failed; the codes are a closed list of the protocol's."""

    code: Literal["server_error", "rate_limit_exceeded", "invalid_prompt"]
    message: str


class IncompleteDetails(TypedDict):
    reason: Literal["max_output_tokens", "content_filter"]


class InputTokensDetails(TypedDict):
    cached_tokens: int
    cache_write_tokens: int


class OutputTokensDetails(TypedDict):
    reasoning_tokens: int


class Usage(TypedDict):
    """Tokens; the total is input plus output. `cost` is Companion's own: US dollars, 0 where no prices are set."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int
    cost: float


class EffectiveReasoning(TypedDict):
    effort: str | None
    summary: str | None


class EffectiveText(TypedDict):
    format: Json
    verbosity: NotRequired[Literal["low", "medium", "high"]]


class ResponseObject(TypedDict):
    """A response: what was asked, with the values in force, and what came of it. Every key but `notes` is always there.

    `notes` is Companion's own: what happened on the way (a take-over, an answer that broke off), in a sentence each.
    """

    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: Literal["queued", "in_progress", "completed", "failed", "incomplete", "cancelled"]
    error: ResponseError | None
    incomplete_details: IncompleteDetails | None
    model: str
    instructions: str | None
    tools: list[Json]
    tool_choice: str | Json
    parallel_tool_calls: bool
    temperature: float
    top_p: float
    presence_penalty: float
    frequency_penalty: float
    top_logprobs: int
    max_output_tokens: int | None
    max_tool_calls: int | None
    metadata: dict[str, str]
    previous_response_id: str | None
    prompt: Json | None
    prompt_cache_key: str | None
    prompt_cache_retention: str | None
    reasoning: EffectiveReasoning
    safety_identifier: str | None
    service_tier: str
    store: bool
    background: bool
    text: EffectiveText
    truncation: Literal["auto", "disabled"]
    user: str | None
    conversation: ConversationRef | None
    output: list[Item]
    usage: Usage | None
    notes: NotRequired[list[str]]


class InputTokens(TypedDict):
    object: Literal["response.input_tokens"]
    input_tokens: int


class CompactedResponse(TypedDict):
    """A context in fewer words, to be sent as `input` in its place; nothing of it is stored."""

    id: str
    object: Literal["response.compaction"]
    created_at: int
    output: list[Item]
    usage: Usage
