"""Items in stored form, as conversations, input lists and responses show them: `id` and `type` are always there."""

from typing import Annotated, Any, Literal, NotRequired, TypedDict

from pydantic import Field

type Json = dict[str, Any]
type ItemStatus = Literal["in_progress", "completed", "incomplete"]


class InputTextPart(TypedDict):
    type: Literal["input_text"]
    text: str


class InputImagePart(TypedDict):
    type: Literal["input_image"]
    image_url: NotRequired[str | None]
    file_id: NotRequired[str | None]
    detail: str


class InputFilePart(TypedDict):
    type: Literal["input_file"]
    file_data: NotRequired[str | None]
    file_id: NotRequired[str | None]
    file_url: NotRequired[str | None]
    filename: NotRequired[str | None]


class OutputTextPart(TypedDict):
    """What the assistant said. `logprobs` are there when `message.output_text.logprobs` was included."""

    type: Literal["output_text"]
    text: str
    annotations: list[Json]
    logprobs: list[Json]


class RefusalPart(TypedDict):
    type: Literal["refusal"]
    refusal: str


type InputPart = Annotated[InputTextPart | InputImagePart | InputFilePart, Field(discriminator="type")]
type OutputPart = Annotated[OutputTextPart | RefusalPart, Field(discriminator="type")]
type MessagePart = Annotated[
    InputTextPart | InputImagePart | InputFilePart | OutputTextPart | RefusalPart, Field(discriminator="type")
]


class MessageItem(TypedDict):
    id: str
    type: Literal["message"]
    status: ItemStatus
    role: Literal["user", "assistant", "system", "developer"]
    content: list[MessagePart]
    phase: NotRequired[Literal["commentary", "final_answer"] | None]


class FunctionCallItem(TypedDict):
    """A tool that the client runs is called; `arguments` is JSON, as text."""

    id: str
    type: Literal["function_call"]
    status: ItemStatus
    call_id: str
    name: str
    namespace: NotRequired[str | None]
    arguments: str


class FunctionCallOutputItem(TypedDict):
    id: str
    type: Literal["function_call_output"]
    status: ItemStatus
    call_id: str
    output: str | list[InputPart]


class CustomToolCallItem(TypedDict):
    id: str
    type: Literal["custom_tool_call"]
    status: ItemStatus
    call_id: str
    name: str
    namespace: NotRequired[str | None]
    input: str


class CustomToolCallOutputItem(TypedDict):
    id: str
    type: Literal["custom_tool_call_output"]
    status: ItemStatus
    call_id: str
    output: str | list[InputPart]


class SummaryTextPart(TypedDict):
    type: Literal["summary_text"]
    text: str


class ReasoningTextPart(TypedDict):
    type: Literal["reasoning_text"]
    text: str


class ReasoningItem(TypedDict):
    """What the model thought; `encrypted_content` is there when `reasoning.encrypted_content` was included."""

    id: str
    type: Literal["reasoning"]
    status: NotRequired[ItemStatus]
    summary: list[SummaryTextPart]
    content: NotRequired[list[ReasoningTextPart]]
    encrypted_content: NotRequired[str | None]


class CompactionItem(TypedDict):
    """Stands for everything before it."""

    id: str
    type: Literal["compaction"]
    encrypted_content: str


class McpCallItem(TypedDict):
    """A tool that Companion runs itself was called."""

    id: str
    type: Literal["mcp_call"]
    status: Literal["in_progress", "completed", "incomplete", "calling", "failed"]
    server_label: str
    name: str
    arguments: str
    output: NotRequired[str | None]
    error: NotRequired[Any]


type Item = Annotated[
    MessageItem
    | FunctionCallItem
    | FunctionCallOutputItem
    | CustomToolCallItem
    | CustomToolCallOutputItem
    | ReasoningItem
    | CompactionItem
    | McpCallItem,
    Field(discriminator="type"),
]
