"""What `/v1/chat/completions` answers."""

from typing import Any, Literal, NotRequired, TypedDict

type Json = dict[str, Any]
type FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "function_call"]


class CalledFunction(TypedDict):
    name: str
    arguments: str


class CalledCustom(TypedDict):
    name: str
    input: str


class ChatToolCall(TypedDict):
    """`function` or `custom`, as `type` says."""

    id: str
    type: Literal["function", "custom"]
    function: NotRequired[CalledFunction]
    custom: NotRequired[CalledCustom]


class ChatAnswer(TypedDict):
    """What the assistant said. `reasoning_content` is what it thought, where the model shows that."""

    role: Literal["assistant"]
    content: str | None
    refusal: str | None
    annotations: list[Json]
    reasoning_content: NotRequired[str]
    tool_calls: NotRequired[list[ChatToolCall]]
    function_call: NotRequired[CalledFunction]


class ChatLogprobs(TypedDict):
    content: list[Json] | None
    refusal: list[Json] | None


class ChatChoice(TypedDict):
    index: int
    message: ChatAnswer
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason


class PromptTokensDetails(TypedDict):
    cached_tokens: int
    cache_write_tokens: int
    audio_tokens: int


class CompletionTokensDetails(TypedDict):
    reasoning_tokens: int
    audio_tokens: int
    accepted_prediction_tokens: int
    rejected_prediction_tokens: int


class ChatUsage(TypedDict):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails
    cost: float


class ChatCompletion(TypedDict):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: ChatUsage | None
    service_tier: str
    system_fingerprint: str | None
    metadata: dict[str, str]


class StoredChatCompletion(ChatCompletion):
    """A completion that was kept (`store: true`), with the settings it was made with."""

    temperature: float
    top_p: float
    presence_penalty: float
    frequency_penalty: float
    seed: int | None
    input_user: str | None
    tools: list[Json] | None
    tool_choice: str | Json | None
    response_format: Json | None


class StoredChatMessage(TypedDict):
    """A message that a stored completion answered."""

    id: str
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | None
    content_parts: list[Json] | None
    name: str | None
    refusal: NotRequired[str | None]
    tool_calls: NotRequired[list[ChatToolCall]]
    tool_call_id: NotRequired[str]


class ChunkToolCall(TypedDict):
    """The first piece of a call has its id and name; later ones add to its arguments."""

    index: int
    id: NotRequired[str]
    type: NotRequired[Literal["function", "custom"]]
    function: NotRequired[Json]
    custom: NotRequired[Json]


class ChunkDelta(TypedDict):
    role: NotRequired[Literal["assistant"]]
    content: NotRequired[str | None]
    refusal: NotRequired[str | None]
    reasoning_content: NotRequired[str]
    annotations: NotRequired[list[Json]]
    tool_calls: NotRequired[list[ChunkToolCall]]
    function_call: NotRequired[Json]


class ChunkChoice(TypedDict):
    index: int
    delta: ChunkDelta
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason | None


class ChatCompletionChunk(TypedDict):
    """A piece of a streamed completion. With `include_usage` the last one has no choices, and the usage."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    service_tier: str
    system_fingerprint: str | None
    choices: list[ChunkChoice]
    usage: NotRequired[ChatUsage | None]
    obfuscation: NotRequired[str]
