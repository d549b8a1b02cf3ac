"""The events of a streamed response: numbered from 0 without gaps, ended by exactly one terminal event."""

from typing import Annotated, Any, Literal, NotRequired, TypedDict

from pydantic import Field

from shared.wire.answers.common import ErrorBody
from shared.wire.answers.items import Item, OutputPart, ReasoningTextPart, SummaryTextPart
from shared.wire.answers.responses import ResponseObject

type Json = dict[str, Any]


class _Event(TypedDict):
    sequence_number: int


class _OfItem(_Event):
    output_index: int
    item_id: str


class _OfPart(_OfItem):
    content_index: int


class _OfSummary(_OfItem):
    summary_index: int


class LifecycleEvent(_Event):
    """Carries the whole response as it is at that time; `completed`, `incomplete` or `failed` is the last event."""

    type: Literal[
        "response.created",
        "response.queued",
        "response.in_progress",
        "response.completed",
        "response.incomplete",
        "response.failed",
    ]
    response: ResponseObject


class OutputItemEvent(_Event):
    type: Literal["response.output_item.added", "response.output_item.done"]
    output_index: int
    item: Item


class ContentPartEvent(_OfPart):
    type: Literal["response.content_part.added", "response.content_part.done"]
    part: OutputPart | ReasoningTextPart


class OutputTextDeltaEvent(_OfPart):
    type: Literal["response.output_text.delta"]
    delta: str
    logprobs: list[Json]


class OutputTextDoneEvent(_OfPart):
    type: Literal["response.output_text.done"]
    text: str
    logprobs: list[Json]


class AnnotationAddedEvent(_OfPart):
    type: Literal["response.output_text.annotation.added"]
    annotation_index: int
    annotation: Json


class RefusalDeltaEvent(_OfPart):
    type: Literal["response.refusal.delta"]
    delta: str


class RefusalDoneEvent(_OfPart):
    type: Literal["response.refusal.done"]
    refusal: str


class ReasoningTextDeltaEvent(_OfPart):
    type: Literal["response.reasoning_text.delta"]
    delta: str


class ReasoningTextDoneEvent(_OfPart):
    type: Literal["response.reasoning_text.done"]
    text: str


class ReasoningSummaryPartEvent(_OfSummary):
    type: Literal["response.reasoning_summary_part.added", "response.reasoning_summary_part.done"]
    part: SummaryTextPart


class ReasoningSummaryTextDeltaEvent(_OfSummary):
    type: Literal["response.reasoning_summary_text.delta"]
    delta: str


class ReasoningSummaryTextDoneEvent(_OfSummary):
    type: Literal["response.reasoning_summary_text.done"]
    text: str


class FunctionCallArgumentsDeltaEvent(_OfItem):
    type: Literal["response.function_call_arguments.delta"]
    delta: str


class FunctionCallArgumentsDoneEvent(_OfItem):
    type: Literal["response.function_call_arguments.done"]
    name: str
    arguments: str


class CustomToolCallInputDeltaEvent(_OfItem):
    type: Literal["response.custom_tool_call_input.delta"]
    delta: str


class CustomToolCallInputDoneEvent(_OfItem):
    type: Literal["response.custom_tool_call_input.done"]
    input: str


class McpCallArgumentsDeltaEvent(_OfItem):
    type: Literal["response.mcp_call_arguments.delta"]
    delta: str


class McpCallArgumentsDoneEvent(_OfItem):
    type: Literal["response.mcp_call_arguments.done"]
    arguments: str


class McpCallEvent(_OfItem):
    type: Literal["response.mcp_call.in_progress", "response.mcp_call.completed", "response.mcp_call.failed"]


class StreamErrorEvent(_Event):
    """The stream ends here though the response does not: resume it."""

    type: Literal["error"]
    message: str
    code: str | None
    param: str | None
    error: NotRequired[ErrorBody]


type ResponseStreamEvent = Annotated[
    LifecycleEvent
    | OutputItemEvent
    | ContentPartEvent
    | OutputTextDeltaEvent
    | OutputTextDoneEvent
    | AnnotationAddedEvent
    | RefusalDeltaEvent
    | RefusalDoneEvent
    | ReasoningTextDeltaEvent
    | ReasoningTextDoneEvent
    | ReasoningSummaryPartEvent
    | ReasoningSummaryTextDeltaEvent
    | ReasoningSummaryTextDoneEvent
    | FunctionCallArgumentsDeltaEvent
    | FunctionCallArgumentsDoneEvent
    | CustomToolCallInputDeltaEvent
    | CustomToolCallInputDoneEvent
    | McpCallArgumentsDeltaEvent
    | McpCallArgumentsDoneEvent
    | McpCallEvent
    | StreamErrorEvent,
    Field(discriminator="type"),
]
