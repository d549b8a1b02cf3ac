"""Chat Completions: the request as validated, and as the Responses request that the one turn engine knows."""

from typing import Annotated, Any, Literal

from pydantic import Field

from shared.errors import AssistantError, InvalidRequest
from shared.wire.chat_messages import ChatMessage, message_items
from shared.wire.items import Schema
from shared.wire.responses import CreateResponse, Metadata

type Json = dict[str, Any]
type FunctionName = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[a-zA-Z0-9_.-]+$")]
type Penalty = Annotated[float, Field(ge=-2, le=2)]

LOGPROBS = "message.output_text.logprobs"


class FunctionDefinition(Schema):
    name: FunctionName
    description: str | None = None
    parameters: Json | None = None
    strict: bool | None = None


class FunctionTool(Schema):
    type: Literal["function"]
    function: FunctionDefinition


class Grammar(Schema):
    syntax: Literal["lark", "regex"]
    definition: str


class TextFormat(Schema):
    type: Literal["text"]


class GrammarFormat(Schema):
    type: Literal["grammar"]
    grammar: Grammar


class CustomDefinition(Schema):
    name: Annotated[str, Field(min_length=1, max_length=128)]
    description: str | None = None
    format: Annotated[TextFormat | GrammarFormat, Field(discriminator="type")] | None = None


class CustomTool(Schema):
    type: Literal["custom"]
    custom: CustomDefinition


type ChatTool = Annotated[FunctionTool | CustomTool, Field(discriminator="type")]


class Named(Schema):
    name: str


class FunctionChoice(Schema):
    type: Literal["function"]
    function: Named


class CustomChoice(Schema):
    type: Literal["custom"]
    custom: Named


type NamedChoice = Annotated[FunctionChoice | CustomChoice, Field(discriminator="type")]


class AllowedTools(Schema):
    mode: Literal["auto", "required"]
    tools: Annotated[list[NamedChoice], Field(min_length=1)]


class AllowedChoice(Schema):
    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


type ToolChoice = (
    Literal["none", "auto", "required"]
    | Annotated[FunctionChoice | CustomChoice | AllowedChoice, Field(discriminator="type")]
)


class JsonObjectFormat(Schema):
    type: Literal["json_object"]


class JsonSchema(Schema):
    name: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[a-zA-Z0-9_-]+$")]
    schema_: Annotated[Json, Field(alias="schema")]
    description: str | None = None
    strict: bool | None = None


class JsonSchemaFormat(Schema):
    type: Literal["json_schema"]
    json_schema: JsonSchema


type ResponseFormat = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]


class PredictionText(Schema):
    type: Literal["text"]
    text: str


class Prediction(Schema):
    type: Literal["content"]
    content: str | list[PredictionText]


class ChatStreamOptions(Schema):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class CreateChatCompletion(Schema):
    """`POST /v1/chat/completions`. Every documented parameter: honoured, or refused by name in `refuse_unsupported`."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    model: Annotated[str, Field(min_length=1, max_length=256)]
    frequency_penalty: Penalty | None = None
    function_call: Literal["none", "auto"] | Named | None = None
    functions: Annotated[list[FunctionDefinition], Field(min_length=1, max_length=128)] | None = None
    logit_bias: dict[str, Annotated[int, Field(ge=-100, le=100)]] | None = None
    logprobs: bool | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    metadata: Metadata | None = None
    modalities: list[Literal["text", "audio"]] | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    parallel_tool_calls: bool | None = None
    prediction: Prediction | None = None
    presence_penalty: Penalty | None = None
    prompt_cache_key: Annotated[str, Field(max_length=64)] | None = None
    prompt_cache_retention: Literal["in_memory", "24h"] | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    response_format: ResponseFormat | None = None
    safety_identifier: Annotated[str, Field(max_length=128)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    service_tier: Literal["auto", "default", "flex", "scale", "priority", "fast"] | None = None
    stop: str | Annotated[list[str], Field(max_length=4)] | None = None
    store: bool | None = None
    stream: bool | None = None
    stream_options: ChatStreamOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    tool_choice: ToolChoice | None = None
    tools: Annotated[list[ChatTool], Field(max_length=128)] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    user: Annotated[str, Field(max_length=512)] | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    # Documented, and not offered: refused by name when sent.
    audio: Any = None
    moderation: Any = None
    prompt_cache_options: Any = None
    web_search_options: Any = None

    @property
    def stops(self) -> list[str] | None:
        return [self.stop] if isinstance(self.stop, str) else self.stop or None

    @property
    def is_legacy(self) -> bool:
        """Whether the caller speaks of `functions`, which came before `tools`, and expects to be answered so."""
        return self.functions is not None


class UpdateChatCompletion(Schema):
    """`POST /v1/chat/completions/{completion_id}`: null takes the metadata away."""

    metadata: Metadata | None


UNSUPPORTED = ("audio", "moderation", "prompt_cache_options", "web_search_options")


def refuse_unsupported(request: CreateChatCompletion) -> None:
    """What this server cannot honour is said, never ignored.

    Raises:
        InvalidRequest: naming the parameter.
    """
    for name in UNSUPPORTED:
        if getattr(request, name) is not None:
            raise InvalidRequest(
                f"Unsupported parameter: {name!r} is not offered by this server; leave it out.",
                param=name,
                code="unsupported_parameter",
            )
    if request.n not in (None, 1):
        raise _unsupported_value("n", f"{request.n} choices are not offered by this server, only 1.")
    if request.modalities not in (None, ["text"]):
        raise _unsupported_value("modalities", 'only ["text"] is offered by this server.')
    _refuse_combinations(request)
    _refuse_unknown_choice(request)


def _unsupported_value(param: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"Unsupported value: '{param}': {why}", param=param, code="unsupported_value")


def _refuse_combinations(request: CreateChatCompletion) -> None:
    if request.max_tokens is not None and request.max_completion_tokens is not None:
        raise InvalidRequest(
            "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.",
            param="max_tokens",
            code="invalid_parameter_combination",
        )
    if request.stream_options is not None and not request.stream:
        raise InvalidRequest(
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.", param="stream_options"
        )
    if request.top_logprobs and not request.logprobs:
        raise InvalidRequest(
            "The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled.", param="top_logprobs"
        )
    for older, newer in (("functions", "tools"), ("function_call", "tool_choice"), ("functions", "tool_choice")):
        if getattr(request, older) is not None and getattr(request, newer) is not None:
            raise InvalidRequest(
                f"'{older}' and '{newer}' cannot be used together; '{newer}' is the newer form.",
                param=older,
                code="invalid_parameter_combination",
            )


def _refuse_unknown_choice(request: CreateChatCompletion) -> None:
    """A choice must be among what is offered."""
    offered = {_name(tool) for tool in request.tools or []} | {function.name for function in request.functions or []}
    choices: list[tuple[str, ToolChoice | Named | None]] = [
        ("tool_choice", request.tool_choice),
        ("function_call", request.function_call),
    ]
    for param, choice in choices:
        names = _chosen(choice)
        if names is None:
            continue
        among = "tools" if param == "tool_choice" else "functions"
        if not offered:
            raise InvalidRequest(
                f"Invalid value for '{param}': it is only allowed when '{among}' are specified.", param=param
            )
        unknown = [name for name in names if name not in offered]
        if unknown:
            raise InvalidRequest(f"'{param}': {unknown[0]!r} not found in '{among}'.", param=param)


def _chosen(choice: ToolChoice | Named | None) -> list[str] | None:
    """The tools a choice names; None where it asks for none in particular, nor for any at all."""
    match choice:
        case None | "none" | "auto":
            return None
        case "required":
            return []
        case AllowedChoice():
            return [_name(tool) for tool in choice.allowed_tools.tools]
        case Named():
            return [choice.name]
        case FunctionChoice() | CustomChoice():
            return [_name(choice)]


def _name(tool: ChatTool | NamedChoice) -> str:
    return tool.function.name if isinstance(tool, FunctionTool | FunctionChoice) else tool.custom.name


# to the engine


def create_response(request: CreateChatCompletion) -> CreateResponse:
    """The same request in the words of the Responses API. What it has no words for, the surface passes beside it.

    Raises:
        InvalidRequest: a message holds what is not offered, or tool calls and their outputs do not match.
    """
    given: Json = {name: getattr(request, name) for name in _SAME_NAME}
    given |= {
        "input": message_items(request.messages),
        "store": bool(request.store),
        "include": [LOGPROBS] if request.logprobs else None,
        "max_output_tokens": request.max_completion_tokens or request.max_tokens,
        "reasoning": {"effort": request.reasoning_effort} if request.reasoning_effort else None,
        "text": _text(request),
        "tools": _tools(request),
        "tool_choice": _tool_choice(request),
    }
    if request.is_legacy:
        given["parallel_tool_calls"] = False  # one `function_call` is all the older form can say
    return CreateResponse(**{name: value for name, value in given.items() if value is not None})


_SAME_NAME = (
    "model",
    "frequency_penalty",
    "metadata",
    "parallel_tool_calls",
    "presence_penalty",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
    "stream",
    "temperature",
    "top_logprobs",
    "top_p",
    "user",
)


def prediction(request: CreateChatCompletion) -> Json | None:
    return request.prediction.model_dump() if request.prediction else None


def _text(request: CreateChatCompletion) -> Json | None:
    text: Json = {}
    if isinstance(request.response_format, JsonSchemaFormat):
        schema = request.response_format.json_schema
        text["format"] = {"type": "json_schema", **schema.model_dump(by_alias=True, exclude_none=True)}
    elif request.response_format is not None:
        text["format"] = {"type": request.response_format.type}
    if request.verbosity is not None:
        text["verbosity"] = request.verbosity
    return text or None


def _tools(request: CreateChatCompletion) -> list[Json] | None:
    tools = [_tool(tool) for tool in request.tools or []]
    return tools + [_function(function) for function in request.functions or []] or None


def _tool(tool: ChatTool) -> Json:
    if isinstance(tool, FunctionTool):
        return _function(tool.function)
    body: Json = {"type": "custom", **tool.custom.model_dump(exclude_none=True, exclude={"format"})}
    match tool.custom.format:
        case GrammarFormat() as format_:
            body["format"] = {"type": "grammar", **format_.grammar.model_dump()}
        case TextFormat():
            body["format"] = {"type": "text"}
        case None:
            pass
    return body


def _function(function: FunctionDefinition) -> Json:
    """Here a function is not strict unless it says so; in the Responses API it is."""
    return {"type": "function", **function.model_dump(exclude_none=True), "strict": bool(function.strict)}


def _tool_choice(request: CreateChatCompletion) -> str | Json | None:
    choice = request.tool_choice if request.tool_choice is not None else request.function_call
    match choice:
        case AllowedChoice():
            tools = [{"type": tool.type, "name": _name(tool)} for tool in choice.allowed_tools.tools]
            return {"type": "allowed_tools", "mode": choice.allowed_tools.mode, "tools": tools}
        case Named():
            return {"type": "function", "name": choice.name}
        case FunctionChoice() | CustomChoice():
            return {"type": choice.type, "name": _name(choice)}
        case _:
            return choice


# errors


def in_chat_words(error: AssistantError) -> AssistantError:
    """The same error, its parameter named as on this surface."""
    name = error.param or ""
    error.param = next(
        (theirs + name.removeprefix(ours) for ours, theirs in _PARAMS if _is_at(name, ours)), error.param
    )
    return error


def _is_at(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith((f"{prefix}.", f"{prefix}["))


_PARAMS = (
    ("input", "messages"),
    ("max_output_tokens", "max_completion_tokens"),
    ("text.format", "response_format"),
    ("text.verbosity", "verbosity"),
    ("reasoning.effort", "reasoning_effort"),
    ("reasoning", "reasoning_effort"),
)
