"""The Responses API: the request as validated, the response object as rendered."""

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints
from pydantic.json_schema import SkipJsonSchema

from shared.conversations.records import TurnRecord
from shared.errors import InvalidRequest
from shared.wire.items import InputItem, Schema

type Json = dict[str, Any]
type Metadata = Annotated[
    dict[
        Annotated[str, StringConstraints(max_length=64)],
        Annotated[str, StringConstraints(max_length=512)],
    ],
    Field(max_length=16),
]

Includable = Literal[
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
    "reasoning.encrypted_content",
    "message.output_text.logprobs",
]


NotOffered = SkipJsonSchema[Any]
"""A parameter that is documented elsewhere, and refused by name here."""


class FunctionTool(Schema):
    type: Literal["function"]
    name: str = Field(min_length=1, max_length=128, pattern=r"^[a-zA-Z0-9_.-]+$")
    description: str | None = None
    parameters: Json | None = None
    strict: bool | None = None


class CustomTool(Schema):
    type: Literal["custom"]
    name: str = Field(min_length=1, max_length=128)
    description: str | None = None
    format: Json | None = None


class ToolFilter(Schema):
    tool_names: list[str] | None = None
    read_only: NotOffered = None


class McpTool(Schema):
    """Tools that Companion runs itself: the server labelled `companion`."""

    type: Literal["mcp"]
    server_label: str
    server_url: str | None = None
    connector_id: str | None = None
    allowed_tools: list[str] | ToolFilter | None = None
    require_approval: Json | Literal["always", "never"] | None = None


type Tool = Annotated[FunctionTool | CustomTool | McpTool, Field(discriminator="type")]


class FunctionChoice(Schema):
    type: Literal["function"]
    name: str = Field(min_length=1)


class CustomChoice(Schema):
    type: Literal["custom"]
    name: str = Field(min_length=1)


class McpChoice(Schema):
    """A tool that Companion runs itself; any of them without a name."""

    type: Literal["mcp"]
    server_label: str
    name: str | None = Field(default=None, min_length=1)


type OneChoice = Annotated[FunctionChoice | CustomChoice | McpChoice, Field(discriminator="type")]


class AllowedTools(Schema):
    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: Annotated[list[OneChoice], Field(min_length=1)]


type ToolChoice = (
    Literal["none", "auto", "required"]
    | Annotated[FunctionChoice | CustomChoice | McpChoice | AllowedTools, Field(discriminator="type")]
)


class ConversationParam(Schema):
    """A conversation to continue; `parent` (Companion's own) branches it at an earlier turn, or at the root by null."""

    id: str
    parent: str | None = None


class ReasoningParam(Schema):
    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None


class TextFormat(Schema):
    type: Literal["text"]


class JsonObjectFormat(Schema):
    type: Literal["json_object"]


class JsonSchemaFormat(Schema):
    type: Literal["json_schema"]
    name: str = Field(min_length=1, max_length=64, pattern=r"^[a-zA-Z0-9_-]+$")
    schema_: Json = Field(alias="schema")
    description: str | None = None
    strict: bool | None = None


class TextParam(Schema):
    format: Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")] | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class StreamOptions(Schema):
    include_obfuscation: bool | None = None


class ContextManagement(Schema):
    type: Literal["compaction"]
    compact_threshold: Annotated[int, Field(ge=1000)] | None = None


class PromptParam(Schema):
    id: str
    version: str | None = None
    variables: Json | None = None


class CreateResponse(Schema):
    """`POST /v1/responses`. Every documented parameter: honoured, or refused by name in `refuse_unsupported`."""

    model: str | None = Field(default=None, min_length=1, max_length=256)
    input: str | list[InputItem] | None = None
    instructions: str | None = None
    conversation: str | ConversationParam | None = None
    previous_response_id: str | None = None
    background: bool | None = None
    context_management: list[ContextManagement] | None = None
    include: list[Includable] | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    max_tool_calls: Annotated[int, Field(ge=1)] | None = None
    metadata: Metadata | None = None
    parallel_tool_calls: bool | None = None
    prompt: PromptParam | None = None
    prompt_cache_key: Annotated[str, Field(max_length=64)] | None = None
    prompt_cache_retention: Literal["in_memory", "24h"] | None = None
    reasoning: ReasoningParam | None = None
    safety_identifier: Annotated[str, Field(max_length=128)] | None = None
    service_tier: Literal["auto", "default", "flex", "scale", "priority", "fast"] | None = None
    store: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    text: TextParam | None = None
    tool_choice: ToolChoice | None = None
    tools: Annotated[list[Tool], Field(max_length=128)] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    user: Annotated[str, Field(max_length=512)] | None = None
    # Documented, and not offered: refused by name when sent.
    access_programs: NotOffered = None
    image: NotOffered = None
    moderation: NotOffered = None
    prompt_cache_options: NotOffered = None


class CountInput(CreateResponse):
    """`POST /v1/responses/input_tokens`: the request whose tokens are to be counted."""

    personality: NotOffered = None


UNSUPPORTED = ("access_programs", "image", "moderation", "personality", "prompt_cache_options")


def refuse_unsupported(request: CreateResponse) -> None:
    """What this server cannot honour is said, never ignored.

    Raises:
        InvalidRequest: naming the parameter.
    """
    sent = request.model_fields_set
    for name in UNSUPPORTED:
        if name in sent and getattr(request, name) is not None:
            raise InvalidRequest(
                f"Unsupported parameter: {name!r} is not offered by this server; leave it out.",
                param=name,
                code="unsupported_parameter",
            )
    if request.conversation is not None and request.previous_response_id is not None:
        raise InvalidRequest(
            "Mutually exclusive parameters: 'conversation' and 'previous_response_id'. Send one of them.",
            param="previous_response_id",
            code="mutually_exclusive_parameters",
        )
    if request.stream_options is not None and request.stream_options.include_obfuscation:
        raise InvalidRequest(
            "Unsupported value: 'stream_options.include_obfuscation': true is not offered by this server.",
            param="stream_options.include_obfuscation",
            code="unsupported_value",
        )
    if request.background and request.store is False:
        raise InvalidRequest("Background mode requires 'store' to be true.", param="background")
    if request.top_logprobs and "message.output_text.logprobs" not in (request.include or []):
        raise InvalidRequest("'top_logprobs' needs 'message.output_text.logprobs' in 'include'.", param="top_logprobs")
    for index, tool in enumerate(request.tools or []):
        if isinstance(tool, McpTool) and tool.server_label != "companion":
            raise InvalidRequest(
                "Only the tool server labelled 'companion' is offered.", param=f"tools[{index}].server_label"
            )
        if isinstance(tool, McpTool) and (tool.server_url or tool.connector_id):
            raise InvalidRequest("The tool server 'companion' has no URL.", param=f"tools[{index}].server_url")
        if isinstance(tool, McpTool) and isinstance(tool.allowed_tools, ToolFilter) and tool.allowed_tools.read_only:
            raise InvalidRequest("Tools are chosen by name here.", param=f"tools[{index}].allowed_tools.read_only")
    _refuse_unknown_choice(request)


def _refuse_unknown_choice(request: CreateResponse) -> None:
    """A choice must be among what is offered."""
    choice = request.tool_choice
    if choice in (None, "auto", "none"):
        return
    tools = request.tools or []
    if not tools:
        raise InvalidRequest("'tool_choice' asks for a tool, but 'tools' offers none.", param="tool_choice")
    named = choice.tools if isinstance(choice, AllowedTools) else [] if isinstance(choice, str) else [choice]
    offered = {(tool.type, tool.server_label if isinstance(tool, McpTool) else tool.name) for tool in tools}
    for each in named:
        key = (each.type, each.server_label if isinstance(each, McpChoice) else each.name)
        if key not in offered:
            raise InvalidRequest(f"Tool choice {key[1]!r} not found in 'tools'.", param="tool_choice")


def effective_params(request: CreateResponse, *, model: str) -> Json:
    """The settings as the response object echoes them: effective values, nulls included."""
    text = request.text.model_dump(exclude_none=True, by_alias=True) if request.text else {}
    text.setdefault("format", {"type": "text"})
    return {
        "model": model,
        "instructions": request.instructions,
        "tools": [_echo_tool(tool) for tool in request.tools or []],
        "tool_choice": _echo_choice(request.tool_choice),
        "parallel_tool_calls": True if request.parallel_tool_calls is None else request.parallel_tool_calls,
        "temperature": 1.0 if request.temperature is None else request.temperature,
        "top_p": 1.0 if request.top_p is None else request.top_p,
        "presence_penalty": request.presence_penalty or 0.0,
        "frequency_penalty": request.frequency_penalty or 0.0,
        "top_logprobs": request.top_logprobs or 0,
        "max_output_tokens": request.max_output_tokens,
        "max_tool_calls": request.max_tool_calls,
        "metadata": request.metadata or {},
        "previous_response_id": request.previous_response_id,
        "prompt": request.prompt.model_dump(exclude_none=True) if request.prompt else None,
        "prompt_cache_key": request.prompt_cache_key,
        "prompt_cache_retention": request.prompt_cache_retention,
        "reasoning": {
            "effort": request.reasoning.effort if request.reasoning else None,
            "summary": (request.reasoning.summary or request.reasoning.generate_summary) if request.reasoning else None,
        },
        "safety_identifier": request.safety_identifier,
        "service_tier": request.service_tier or "auto",
        "store": request.store is not False,
        "background": bool(request.background),
        "text": text,
        "truncation": request.truncation or "disabled",
        "user": request.user,
    }


def _echo_tool(tool: FunctionTool | CustomTool | McpTool) -> Json:
    body = tool.model_dump(exclude_none=True)
    if isinstance(tool, FunctionTool):
        return {"strict": True, "description": None, "parameters": None, **body}
    return body


def _echo_choice(choice: ToolChoice | None) -> str | Json:
    if choice is None or isinstance(choice, str):
        return choice or "auto"
    return choice.model_dump(exclude_none=True)


def sent_params(request: CreateResponse) -> frozenset[str]:
    """Which settings the caller really sent: only those go on to the model."""
    return frozenset(request.model_fields_set)


_FLOATS = ("temperature", "top_p", "presence_penalty", "frequency_penalty")
"""A store may give 1.0 back as 1; shown, it is the same to the byte, before it was stored and after."""


def render_response(turn: TurnRecord, *, status: str | None = None, output: list[Json] | None = None) -> Json:
    """The response object: the union of OpenAI's and Open Responses' required fields, nulls included.

    `notes` are Companion's own, and only there when something happened that its owner may want to know.
    """
    shown = status or turn.status
    final = status is None and turn.is_final
    return {
        "id": turn.id,
        "object": "response",
        "created_at": int(turn.created_at),
        "completed_at": int(turn.completed_at or 0) if final and shown == "completed" else None,
        "status": shown,
        "error": turn.error if final and shown == "failed" else None,
        "incomplete_details": {"reason": turn.incomplete_reason} if final and turn.incomplete_reason else None,
        **turn.params,
        **{name: float(turn.params[name]) for name in _FLOATS if turn.params.get(name) is not None},
        "conversation": {"id": turn.conversation} if turn.conversation else None,
        "output": visible_items(turn.output if output is None else output, turn.include),
        "usage": priced_usage(turn.usage, turn.cost) if final else None,
        **({"notes": turn.notes} if final and turn.notes else {}),
    }


def visible_items(items: list[Json], include: list[str]) -> list[Json]:
    """Items as their owner sees them: encrypted reasoning only where it was asked for."""
    if "reasoning.encrypted_content" in include:
        return items
    return [
        {key: value for key, value in item.items() if key != "encrypted_content"}
        if item.get("type") == "reasoning"
        else item
        for item in items
    ]


def priced_usage(usage: Json | None, cost: float) -> Json | None:
    """What was used, and what that cost in US dollars: 0 where the operator has set no prices."""
    return {**usage, "cost": cost} if usage is not None else None


def render_usage(
    *, input_tokens: int, cached_tokens: int, cache_write_tokens: int, output_tokens: int, reasoning_tokens: int
) -> Json:
    return {
        "input_tokens": input_tokens,
        "input_tokens_details": {"cached_tokens": cached_tokens, "cache_write_tokens": cache_write_tokens},
        "output_tokens": output_tokens,
        "output_tokens_details": {"reasoning_tokens": reasoning_tokens},
        "total_tokens": input_tokens + output_tokens,
    }
