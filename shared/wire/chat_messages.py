"""Messages of Chat Completions: as validated, as the items the engine knows, and back again.

An assistant's message with tool calls becomes its words, then an item for each call; a tool's message, that call's
output. Nothing is reordered, so system messages stay where they are.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from shared.errors import InvalidRequest
from shared.wire.items import (
    ContentPart,
    CustomToolCall,
    CustomToolCallOutput,
    FunctionCall,
    FunctionCallOutput,
    InputFile,
    InputImage,
    InputItem,
    InputText,
    NamedMessage,
    OutputPart,
    OutputText,
    Refusal,
    Schema,
)

type Json = dict[str, Any]
type CallId = Annotated[str, Field(min_length=1, max_length=256)]
type Name = Annotated[str, Field(min_length=1, max_length=256)]


class TextPart(Schema):
    type: Literal["text"]
    text: str
    prompt_cache_breakpoint: Any = None


class RefusalPart(Schema):
    type: Literal["refusal"]
    refusal: str


class ImageUrl(Schema):
    url: str = Field(min_length=1)
    detail: Literal["auto", "low", "high", "original"] | None = None


class ImagePart(Schema):
    type: Literal["image_url"]
    image_url: ImageUrl
    prompt_cache_breakpoint: Any = None


class AudioPart(Schema):
    """Documented, and not offered: refused by name."""

    type: Literal["input_audio"]
    input_audio: Any = None


class FileData(Schema):
    file_data: str | None = None
    file_id: str | None = None
    filename: str | None = None


class FilePart(Schema):
    type: Literal["file"]
    file: FileData
    prompt_cache_breakpoint: Any = None


type Texts = Annotated[list[TextPart], Field(min_length=1)]
type UserPart = Annotated[TextPart | ImagePart | AudioPart | FilePart, Field(discriminator="type")]
type AssistantPart = Annotated[TextPart | RefusalPart, Field(discriminator="type")]


class SystemMessage(Schema):
    role: Literal["system", "developer"]
    content: str | Texts
    name: Name | None = None


class UserMessage(Schema):
    role: Literal["user"]
    content: str | Annotated[list[UserPart], Field(min_length=1)]
    name: Name | None = None


class CalledFunction(Schema):
    name: Name
    arguments: str


class CalledCustom(Schema):
    name: Name
    input: str


class ToolCallFunction(Schema):
    type: Literal["function"]
    id: CallId
    function: CalledFunction


class ToolCallCustom(Schema):
    type: Literal["custom"]
    id: CallId
    custom: CalledCustom


class AssistantMessage(Schema):
    role: Literal["assistant"]
    content: str | Annotated[list[AssistantPart], Field(min_length=1)] | None = None
    refusal: str | None = None
    tool_calls: list[Annotated[ToolCallFunction | ToolCallCustom, Field(discriminator="type")]] | None = None
    function_call: CalledFunction | None = None
    name: Name | None = None
    audio: Any = None


class ToolMessage(Schema):
    role: Literal["tool"]
    tool_call_id: CallId
    content: str | Texts


class FunctionMessage(Schema):
    role: Literal["function"]
    name: Name
    content: str | None


type ChatMessage = Annotated[
    SystemMessage | UserMessage | AssistantMessage | ToolMessage | FunctionMessage, Field(discriminator="role")
]


# messages to items


def message_items(messages: list[ChatMessage]) -> list[InputItem]:
    """What the messages say, as items, in the same order.

    Raises:
        InvalidRequest: naming a part that is not offered, a call nobody answered, or an answer to no call.
    """
    return _Translation().translate(messages)


class _Translation:
    """Messages being read, and the calls of the last assistant's message that still wait for their output."""

    def __init__(self) -> None:
        self._items: list[InputItem] = []
        self._calls: dict[str, ToolCallFunction | ToolCallCustom] = {}
        self._waiting: set[str] = set()
        self._where = ""
        """The message that made the calls."""

    def translate(self, messages: list[ChatMessage]) -> list[InputItem]:
        for index, message in enumerate(messages):
            where = f"messages[{index}]"
            match message:
                case ToolMessage():
                    self._tool(message, where)
                case FunctionMessage():
                    self._function(message, where)
                case AssistantMessage():
                    self._require_answers()
                    self._assistant(message, where)
                case SystemMessage() | UserMessage():
                    self._require_answers()
                    content = _content(message.content, where)
                    self._items.append(NamedMessage(role=message.role, content=content, name=message.name))
        self._require_answers()
        return self._items

    def _assistant(self, message: AssistantMessage, where: str) -> None:
        if message.audio is not None:
            raise _not_offered(f"{where}.audio")
        calls = [*(message.tool_calls or [])]
        if message.function_call is not None:
            calls.append(
                ToolCallFunction(type="function", id=f"call_{len(self._items)}", function=message.function_call)
            )
        content = _said(message, where)
        if not content and not calls:
            raise InvalidRequest(
                f"Invalid value for '{where}.content': it may be null only beside 'tool_calls'.",
                param=f"{where}.content",
                code="invalid_type",
            )
        if content:
            self._items.append(NamedMessage(role="assistant", content=content, name=message.name))
        self._items += [_call_item(call) for call in calls]
        self._calls = {call.id: call for call in calls}
        self._waiting = set(self._calls)
        self._where = where

    def _tool(self, message: ToolMessage, where: str) -> None:
        call = self._calls.get(message.tool_call_id)
        if call is None:
            raise InvalidRequest(
                "Invalid parameter: messages with role 'tool' must be a response to a preceding message with "
                f"'tool_calls', and none of those is {message.tool_call_id!r}.",
                param=f"{where}.tool_call_id",
                code="invalid_value",
            )
        self._answer(call, _texts(message.content, where))

    def _function(self, message: FunctionMessage, where: str) -> None:
        """The older form has no ids: the name tells which call is meant."""
        for id_ in self._waiting:
            call = self._calls[id_]
            if isinstance(call, ToolCallFunction) and call.function.name == message.name:
                self._answer(call, message.content or "")
                return
        raise InvalidRequest(
            "Invalid parameter: messages with role 'function' must be a response to a preceding message with "
            f"'function_call', and none calls {message.name!r}.",
            param=f"{where}.name",
            code="invalid_value",
        )

    def _answer(self, call: ToolCallFunction | ToolCallCustom, output: str | list[OutputPart]) -> None:
        self._waiting.discard(call.id)
        if isinstance(call, ToolCallFunction):
            self._items.append(FunctionCallOutput(type="function_call_output", call_id=call.id, output=output))
        else:
            self._items.append(CustomToolCallOutput(type="custom_tool_call_output", call_id=call.id, output=output))

    def _require_answers(self) -> None:
        if self._waiting:
            names = ", ".join(id_ for id_ in self._calls if id_ in self._waiting)
            raise InvalidRequest(
                "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
                f"'tool_call_id'. The following tool_call_ids did not have response messages: {names}",
                param=f"{self._where}.tool_calls",
                code="invalid_value",
            )


def _call_item(call: ToolCallFunction | ToolCallCustom) -> InputItem:
    if isinstance(call, ToolCallFunction):
        function = call.function
        return FunctionCall(type="function_call", call_id=call.id, name=function.name, arguments=function.arguments)
    return CustomToolCall(type="custom_tool_call", call_id=call.id, name=call.custom.name, input=call.custom.input)


def _said(message: AssistantMessage, where: str) -> list[ContentPart]:
    """The words of an assistant's message; an empty text counts only where there is nothing else."""
    parts: list[ContentPart] = []
    if isinstance(message.content, str):
        if message.content or not (message.tool_calls or message.function_call or message.refusal):
            parts.append(OutputText(type="output_text", text=message.content))
    else:
        for place, part in enumerate(message.content or []):
            if isinstance(part, RefusalPart):
                parts.append(Refusal(type="refusal", refusal=part.refusal))
            else:
                parts.append(OutputText(type="output_text", text=_text(part, f"{where}.content[{place}]")))
    if message.refusal:
        parts.append(Refusal(type="refusal", refusal=message.refusal))
    return parts


def _texts(content: str | list[TextPart], where: str) -> str | list[OutputPart]:
    if isinstance(content, str):
        return content
    texts = [_text(part, f"{where}.content[{place}]") for place, part in enumerate(content)]
    return [InputText(type="input_text", text=text) for text in texts]


def _content(content: str | list[TextPart] | list[UserPart], where: str) -> str | list[ContentPart]:
    if isinstance(content, str):
        return content
    return [_part(part, f"{where}.content[{place}]") for place, part in enumerate(content)]


def _part(part: UserPart, where: str) -> ContentPart:
    match part:
        case TextPart():
            return InputText(type="input_text", text=_text(part, where))
        case ImagePart():
            _refuse_breakpoint(part, where)
            return InputImage(type="input_image", image_url=part.image_url.url, detail=part.image_url.detail)
        case FilePart():
            _refuse_breakpoint(part, where)
            return _file(part.file, f"{where}.file")
        case AudioPart():
            raise _not_offered(f"{where}.input_audio")


def _file(file: FileData, where: str) -> InputFile:
    if file.file_id:
        raise InvalidRequest(
            "Files by file_id are not supported; send file_data.",
            param=f"{where}.file_id",
            code="unsupported_parameter",
        )
    if not file.file_data:
        raise InvalidRequest(
            f"Missing required parameter: '{where}.file_data'.",
            param=f"{where}.file_data",
            code="missing_required_parameter",
        )
    return InputFile(type="input_file", file_data=file.file_data, filename=file.filename)


def _text(part: TextPart, where: str) -> str:
    _refuse_breakpoint(part, where)
    return part.text


def _refuse_breakpoint(part: TextPart | ImagePart | FilePart, where: str) -> None:
    if part.prompt_cache_breakpoint is not None:
        raise _not_offered(f"{where}.prompt_cache_breakpoint")


def _not_offered(param: str) -> InvalidRequest:
    return InvalidRequest(
        f"Unsupported parameter: '{param}' is not offered by this server; leave it out.",
        param=param,
        code="unsupported_parameter",
    )


# items back to messages


def stored_messages(items: list[Json], completion_id: str) -> list[Json]:
    """The messages that a stored completion answered, each with an id: the completion's, and its place."""
    return [
        {"id": f"{completion_id}-{place}", **message, "name": message.get("name")}
        for place, message in enumerate(_messages(items))
    ]


def _messages(items: list[Json]) -> Iterator[Json]:
    """Calls join the assistant's words before them, or each other."""
    current: Json | None = None
    for item in items:
        match item["type"]:
            case "function_call" | "custom_tool_call":
                if current is None or current["role"] != "assistant":
                    if current is not None:
                        yield current
                    current = {"role": "assistant", "content": None, "content_parts": None, "refusal": None}
                current.setdefault("tool_calls", []).append(tool_call(item))
            case "function_call_output" | "custom_tool_call_output":
                if current is not None:
                    yield current
                current = {"role": "tool", "tool_call_id": item["call_id"], **_shown(item["output"])}
            case _:
                if current is not None:
                    yield current
                current = _message(item)
    if current is not None:
        yield current


def _message(item: Json) -> Json:
    message: Json = {"role": item["role"], **_shown(item["content"])}
    if item["role"] == "assistant":
        refusal = "".join(part.get("refusal", "") for part in item["content"])
        message["refusal"] = refusal or None
    if item.get("name"):
        message["name"] = item["name"]
    return message


def _shown(content: str | list[Json]) -> Json:
    """One text is the content itself; several parts, or others than text, are shown as parts too."""
    if isinstance(content, str):
        return {"content": content, "content_parts": None}
    parts = [_shown_part(part) for part in content if part["type"] != "refusal"]
    texts = [part["text"] for part in parts if part["type"] == "text"]
    is_plain = len(parts) == len(texts) <= 1
    return {"content": "".join(texts) if texts else None, "content_parts": None if is_plain else parts}


def _shown_part(part: Json) -> Json:
    match part["type"]:
        case "input_image":
            return {"type": "image_url", "image_url": {"url": part["image_url"], "detail": part["detail"]}}
        case "input_file":
            return {"type": "file", "file": {name: part[name] for name in ("file_data", "filename") if name in part}}
        case _:
            return {"type": "text", "text": part["text"]}


def tool_call(item: Json) -> Json:
    """A call item, as the `tool_calls` of a message show it."""
    if item["type"] == "custom_tool_call":
        custom = {"name": item["name"], "input": item["input"]}
        return {"id": item["call_id"], "type": "custom", "custom": custom}
    function = {"name": item["name"], "arguments": item["arguments"]}
    return {"id": item["call_id"], "type": "function", "function": function}
