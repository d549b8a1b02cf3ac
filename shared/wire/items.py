"""Items on the wire: what clients may send, and the stored form every item gets.

Accepted forms are those of PROTOCOL.md 2.3: a bare string, messages without `type`, string content, calls with or
without id, outputs as string or parts, references with or without `type`. Stored forms always have id, type and status.
"""

from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from shared.errors import InvalidRequest
from shared.ids import item_id

type Json = dict[str, Any]


class Schema(BaseModel):
    """A wire schema: unknown fields are accepted and ignored, as OpenAI does; values of another type are refused."""

    model_config = ConfigDict(extra="ignore", frozen=True, defer_build=True, strict=True)


class InputText(Schema):
    type: Literal["input_text", "text"]
    text: str


class OutputText(Schema):
    type: Literal["output_text"]
    text: str
    annotations: list[Json] | None = None
    logprobs: list[Json] | None = None


class Refusal(Schema):
    type: Literal["refusal"]
    refusal: str


class InputImage(Schema):
    type: Literal["input_image"]
    image_url: str | None = None
    file_id: str | None = None
    detail: Literal["low", "high", "auto", "original"] | None = None


class InputFile(Schema):
    type: Literal["input_file"]
    file_data: str | None = None
    file_id: str | None = None
    file_url: str | None = None
    filename: str | None = None


type ContentPart = Annotated[InputText | OutputText | Refusal | InputImage | InputFile, Field(discriminator="type")]
type OutputPart = Annotated[InputText | InputImage | InputFile, Field(discriminator="type")]


class Message(Schema):
    type: Literal["message"] = "message"
    id: str | None = None
    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[ContentPart]
    status: Literal["in_progress", "completed", "incomplete"] | None = None
    phase: Literal["commentary", "final_answer"] | None = None


class NamedMessage(Message):
    """A message of Chat Completions, whose author may have a name; the Responses API has no word for that."""

    name: str | None = None


class FunctionCall(Schema):
    type: Literal["function_call"]
    id: str | None = None
    call_id: str = Field(min_length=1, max_length=256)
    name: str = Field(min_length=1, max_length=256)
    namespace: str | None = None
    arguments: str
    status: Literal["in_progress", "completed", "incomplete"] | None = None


class FunctionCallOutput(Schema):
    type: Literal["function_call_output"]
    id: str | None = None
    call_id: str = Field(min_length=1, max_length=256)
    output: str | list[OutputPart]
    status: Literal["in_progress", "completed", "incomplete"] | None = None


class CustomToolCall(Schema):
    type: Literal["custom_tool_call"]
    id: str | None = None
    call_id: str = Field(min_length=1, max_length=256)
    name: str = Field(min_length=1, max_length=256)
    namespace: str | None = None
    input: str
    status: Literal["in_progress", "completed", "incomplete"] | None = None


class CustomToolCallOutput(Schema):
    type: Literal["custom_tool_call_output"]
    id: str | None = None
    call_id: str = Field(min_length=1, max_length=256)
    output: str | list[OutputPart]
    status: Literal["in_progress", "completed", "incomplete"] | None = None


class SummaryText(Schema):
    type: Literal["summary_text"]
    text: str


class ReasoningText(Schema):
    type: Literal["reasoning_text"]
    text: str


class Reasoning(Schema):
    type: Literal["reasoning"]
    id: str | None = None
    summary: list[SummaryText] = []
    content: list[ReasoningText] | None = None
    encrypted_content: str | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None


class Compaction(Schema):
    type: Literal["compaction"]
    id: str | None = None
    encrypted_content: str


class McpCall(Schema):
    type: Literal["mcp_call"]
    id: str | None = None
    server_label: str
    name: str
    arguments: str
    output: str | None = None
    error: Any = None
    status: Literal["in_progress", "completed", "incomplete", "calling", "failed"] | None = None


class ItemReference(Schema):
    type: Literal["item_reference"] | None = None
    id: str


def _tag(value: Any) -> str:
    """Which schema an item is held against: its `type`, or by its shape where the type may be left out."""
    fields: Json = cast(Json, value) if isinstance(value, dict) else vars(value) if isinstance(value, Schema) else {}
    type_ = fields.get("type")
    if isinstance(type_, str):
        return type_
    return "item_reference" if "role" not in fields and "id" in fields else "message"


type InputItem = Annotated[
    Annotated[Message, Tag("message")]
    | Annotated[FunctionCall, Tag("function_call")]
    | Annotated[FunctionCallOutput, Tag("function_call_output")]
    | Annotated[CustomToolCall, Tag("custom_tool_call")]
    | Annotated[CustomToolCallOutput, Tag("custom_tool_call_output")]
    | Annotated[Reasoning, Tag("reasoning")]
    | Annotated[Compaction, Tag("compaction")]
    | Annotated[McpCall, Tag("mcp_call")]
    | Annotated[ItemReference, Tag("item_reference")],
    Discriminator(_tag),
]

PREFIXES = {
    "message": "msg",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
    "reasoning": "rs",
    "compaction": "cmp",
    "mcp_call": "mcp",
}
"""The id prefix of each type of item."""


def stored_items(items: str | list[InputItem] | None, turn_token: str, *, param: str = "input") -> list[Json]:
    """Input in stored form. References stay references: whoever knows the owner's records resolves them.

    `param` is what the caller calls it, for errors.

    Raises:
        InvalidRequest: two items share an id, or a part lacks what it needs.
    """
    if items is None:
        return []
    if isinstance(items, str):
        items = [Message(role="user", content=items)]
    stored = [_stored(item, turn_token, index, f"{param}[{index}]") for index, item in enumerate(items)]
    seen: set[str] = set()
    for item in stored:
        if item["id"] in seen:
            raise InvalidRequest(
                f"Duplicate item found with id {item['id']}. Remove duplicate items from your input and try again.",
                param=param,
            )
        seen.add(item["id"])
    return stored


def _stored(item: InputItem, turn_token: str, index: int, where: str) -> Json:
    if isinstance(item, ItemReference):
        return {"type": "item_reference", "id": item.id}
    body: Json = {"id": item.id or item_id(PREFIXES[item.type], turn_token, "i", index), "type": item.type}
    if isinstance(item, Compaction):
        return {**body, "encrypted_content": item.encrypted_content}
    if isinstance(item, Message):
        body |= {"status": item.status or "completed", "role": item.role, "content": _content(item, where)}
        if isinstance(item, NamedMessage) and item.name:
            body["name"] = item.name
        return body | ({"phase": item.phase} if item.phase else {})
    body |= item.model_dump(exclude_none=True, exclude={"id", "type", "status"})
    if isinstance(item, Reasoning):
        return body
    if isinstance(item, FunctionCallOutput | CustomToolCallOutput) and not isinstance(item.output, str):
        places = enumerate(item.output)
        body["output"] = [_part("user", part, f"{where}.output[{place}]") for place, part in places]
    return body | {"status": item.status or "completed"}


def _content(message: Message, where: str) -> list[Json]:
    if isinstance(message.content, str):
        return [_text(message.role, message.content)]
    return [_part(message.role, part, f"{where}.content[{place}]") for place, part in enumerate(message.content)]


def _text(role: str, text: str) -> Json:
    if role == "assistant":
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"type": "input_text", "text": text}


def _part(role: str, part: ContentPart, where: str) -> Json:
    if isinstance(part, InputText):
        return _text(role, part.text)
    if isinstance(part, OutputText):
        body = _text("assistant", part.text)
        return body | {"annotations": part.annotations or [], "logprobs": part.logprobs or []}
    if isinstance(part, InputImage):
        if part.file_id:
            raise InvalidRequest("Images by file_id are not supported; send image_url.", param=f"{where}.file_id")
        if not part.image_url:
            raise InvalidRequest("An input_image needs an image_url.", param=f"{where}.image_url")
        return {"type": "input_image", "image_url": part.image_url, "detail": part.detail or "auto"}
    if isinstance(part, InputFile):
        for field in ("file_id", "file_url"):
            if getattr(part, field):
                raise InvalidRequest(f"Files by {field} are not supported; send file_data.", param=f"{where}.{field}")
        if not part.file_data:
            raise InvalidRequest("An input_file needs file_data.", param=f"{where}.file_data")
    return part.model_dump(exclude_none=True)
