"""Model and tools, until a final message or the call limit."""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Any, cast

import orjson

from shared.errors import AssistantError, ModelTimeout, ModelUnavailable, UpstreamError
from shared.models.base import Finished, ItemStarted, ModelEvent, ModelRequest, Usage
from shared.models.deployment import steady_now
from shared.tools.registry import ServerTool, ToolFailed
from shared.turns.context import estimate_tokens
from shared.turns.mend import going_on
from shared.turns.output import Output
from shared.turns.trace import Trace
from shared.turns.writer import Writer

type Json = dict[str, Any]

type Mend = Callable[[ModelRequest, AssistantError, int], Awaitable[ModelRequest]]

MAX_MODEL_CALLS = 16
"""A model that still calls tools after so many rounds is stopped."""


@dataclass(slots=True)
class LoopResult:
    """How the loop ended, and what it used."""

    usage: Usage = field(default_factory=Usage)
    incomplete: str | None = None
    model: str = ""
    deployment: str = ""
    service_tier: str | None = None
    system_fingerprint: str | None = None
    cost: float = 0.0
    tries: int = 0
    context_tokens: int = 0
    """Estimated tokens sent, over all calls."""
    is_usage_complete: bool = True
    """False: an upstream did not count; what is missing is to be estimated."""


async def run_loop(
    stream: Callable[[ModelRequest], AsyncIterator[ModelEvent]],
    request: ModelRequest,
    output: Output,
    writer: Writer,
    *,
    tools: dict[str, ServerTool],
    max_tool_calls: int | None,
    torn: Callable[[], Collection[str]],
    mend: Mend,
    trace: Trace,
    result: LoopResult,
    on_first: Callable[[], None],
) -> None:
    """Call the model; run the tools that are ours; call it again with their output; until it needs none.

    `torn` are ids of items that were left unfinished: no model sees them. `mend` says what to ask when a call broke
    off. `result` is filled as the loop goes on, so that what was used is known even when it ends by an exception.
    """
    calls_left = max_tool_calls
    for _ in range(MAX_MODEL_CALLS):
        request = await _call_until_whole(
            stream, request, output, writer, tools=tools, mend=mend, result=result, on_first=on_first
        )
        pending = pending_calls(output)
        if not pending:
            return
        for index in pending:
            if calls_left is not None and calls_left <= 0:
                _finish_call(output, index, error="The limit of tool calls for this response is reached.")
                continue
            calls_left = None if calls_left is None else calls_left - 1
            began = steady_now()
            await run_tool(output, writer, index, tools)
            trace.tool(output.items[index]["name"], began, failed=bool(output.items[index]["error"]))
        writer.touch()
        torn_ids = torn()
        own = [item for item in output.items if item["id"] not in torn_ids]
        items = [*request.items[: _own_start(request, output)], *own]
        request = unforced(replace(request, prefix=None, items=items, tokens=estimate_tokens(items)))
    result.incomplete = result.incomplete or "max_output_tokens"


def unforced(request: ModelRequest) -> ModelRequest:
    """Free to answer: the tool that had to be called was; to demand it again would go on for ever."""
    choice = request.tool_choice
    if choice == "none" or not choice:
        return request
    if isinstance(choice, dict) and choice["type"] == "allowed_tools":
        return replace(request, tool_choice={**choice, "mode": "auto"})
    return replace(request, tool_choice=None)


def pending_calls(output: Output) -> list[int]:
    """Places of the calls that this server is to run."""
    return [
        index
        for index, item in enumerate(output.items)
        if item["type"] == "mcp_call" and item["status"] == "in_progress"
    ]


async def run_tool(output: Output, writer: Writer, index: int, tools: dict[str, ServerTool]) -> None:
    """Run one call and finish its item. That it began is durable before it runs: a take-over must know."""
    item = output.items[index]
    output.emit({"type": "response.mcp_call.in_progress", "item_id": item["id"], "output_index": index})
    await writer.flush()
    tool = tools.get(item["name"])
    if tool is None:
        _finish_call(output, index, error=f"There is no tool {item['name']!r}.")
        return
    try:
        arguments: object = orjson.loads(item["arguments"] or "{}")
        if not isinstance(arguments, dict):
            raise ToolFailed("The arguments must be a JSON object.")
        text = await tool.call(cast(Json, arguments))
    except orjson.JSONDecodeError as error:
        _finish_call(output, index, error=f"The arguments are not valid JSON: {error}")
    except ToolFailed as error:
        _finish_call(output, index, error=str(error))
    else:
        _finish_call(output, index, result=text)


def unknown_outcome(output: Output, index: int) -> None:
    """For a call that may or may not have run when its process died, and is not safe to run twice."""
    _finish_call(output, index, error="The outcome of this call is unknown: the server stopped while it ran.")


def _finish_call(output: Output, index: int, *, result: str | None = None, error: str | None = None) -> None:
    item = output.items[index]
    kind = "response.mcp_call.completed" if error is None else "response.mcp_call.failed"
    output.emit({"type": kind, "item_id": item["id"], "output_index": index})
    body = None if error is None else {"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": error}]}
    output.finish_item(index, output=result, error=body, status="completed" if error is None else "failed")


def _own_start(request: ModelRequest, output: Output) -> int:
    """Where this turn's own output begins in the request: it was appended by an earlier round, if at all."""
    own = {item["id"] for item in output.items}
    for place, item in enumerate(request.items):
        if item.get("id") in own:
            return place
    return len(request.items)


async def _call_until_whole(
    stream: Callable[[ModelRequest], AsyncIterator[ModelEvent]],
    request: ModelRequest,
    output: Output,
    writer: Writer,
    *,
    tools: dict[str, ServerTool],
    mend: Mend,
    result: LoopResult,
    on_first: Callable[[], None],
) -> ModelRequest:
    """One answer, in as many calls as it takes; returns the request of the last."""
    while True:
        start = len(output.items)
        try:
            await _call_model(stream, request, output, writer, tools=tools, result=result, on_first=on_first)
            return request
        except (UpstreamError, ModelUnavailable, ModelTimeout) as error:
            request = await mend(request, error, start)


async def _call_model(
    stream: Callable[[ModelRequest], AsyncIterator[ModelEvent]],
    request: ModelRequest,
    output: Output,
    writer: Writer,
    *,
    tools: dict[str, ServerTool],
    result: LoopResult,
    on_first: Callable[[], None],
) -> None:
    """One model call, fed into the output.

    Raises:
        UpstreamError: the stream ended without saying how.
    """
    finished: Finished | None = None
    result.context_tokens += estimate_tokens(request.items)
    events = stream(request)
    if request.prefix is not None:
        events = going_on(events, output.open_key)
    async for event in events:
        if type(event) is Finished:
            finished = event
            continue
        on_first()
        output.feed(_ours(event, tools) if tools and type(event) is ItemStarted else event)
        writer.touch()
    if finished is None:
        raise UpstreamError("The model's answer was cut off.", code="upstream_cut")
    output.close("incomplete" if finished.incomplete else "completed")
    _add(result, finished)


def _ours(event: ItemStarted, tools: dict[str, ServerTool]) -> ModelEvent:
    if event.type == "function_call" and event.name in tools:
        return ItemStarted(event.key, "mcp_call", event.name, event.call_id)
    return event


def _add(result: LoopResult, finished: Finished) -> None:
    if finished.usage is None:
        result.is_usage_complete = False
    else:
        result.usage = result.usage + finished.usage
    result.incomplete = finished.incomplete
    result.model = finished.model or result.model
    result.deployment = finished.deployment or result.deployment
    result.service_tier = finished.service_tier or result.service_tier
    result.system_fingerprint = finished.system_fingerprint or result.system_fingerprint
    result.cost += finished.cost
    result.tries += finished.tries
