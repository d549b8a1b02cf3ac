"""Compaction: what no longer fits the window becomes a summary, before the call, at a turn boundary.

The summary is stored on the turn before its model call, so it is made once, whatever happens to the call; turns after
it read back to it and no further.
"""

import logging
from dataclasses import replace
from typing import Any

from shared.app import App
from shared.conversations.records import Summary, TurnRecord
from shared.conversations.repository import follow_path, turns
from shared.errors import AssistantError
from shared.ids import item_id
from shared.models.base import SUMMARY_INSTRUCTIONS, Finished, ModelRequest, TextDelta, Usage
from shared.principal import Principal
from shared.turns.context import (
    CHARS_PER_TOKEN,
    SUMMARY_TOKENS,
    Context,
    chunk_tokens,
    estimate_tokens,
    model_items,
    summary_item,
    summary_read,
)
from shared.turns.prepare import TurnRequest, model_of, prepare
from shared.turns.run import Run, usage_body
from shared.usage.service import reserved
from shared.wire.responses import priced_usage

type Json = dict[str, Any]

log = logging.getLogger("companion.turns")

FAR_BACK = 400
"""Turns read at most, those of other branches too, where a long history was never summarised (an import, say)."""


async def compact_first(run: Run, context: Context, request: ModelRequest) -> None:
    """Summarise what is too old, remember it on the turn, then answer."""
    before = request.items[: len(request.items) - len(context.items)]
    context = await compacted(run, context)
    await run.loop(replace(request, items=[*before, *context.items, *run.output.items]))


async def remember_summary(run: Run, context: Context) -> Context:
    """The context with everything older in its summary, which is then part of the turn's record."""
    app, turn = run.app, run.live.record
    older = await _further_back(app, run.owner, context)
    model = await app.models.resolve(model_of(turn))
    window = (await app.models.route(model)).window
    items = [item for old in older for item in model_items(old)]
    limit = min(SUMMARY_TOKENS, context.summary_tokens)
    text, usage, cost = await summarise(app, model, context.summary, items, window=window, limit=limit)
    context = context.summarised(text)
    run.result.usage = run.result.usage + usage
    run.result.cost += cost
    await run.remember(summary=Summary(text=context.summary or "", upto=older[-1].id))
    return context


async def summarise(
    app: App, model: str, before: str | None, items: list[Json], *, window: int, limit: int = SUMMARY_TOKENS
) -> tuple[str, Usage, float]:
    """Items (and the summary of what came before them) as a text of few words, in as many calls as the window needs,
    up to a bound; then the newest are read.

    Returns:
        The summary, the tokens and the money it took.

    Raises:
        AssistantError: the model failed.
    """
    summary, usage, cost = before, Usage(), 0.0
    past = transcript(items)[-summary_read(window) * CHARS_PER_TOKEN :]
    for chunk in chunks(past, most=chunk_tokens(window) * CHARS_PER_TOKEN):
        content = f"Summary so far:\n{summary}\n\nThen:\n{chunk}" if summary else chunk
        message: Json = {
            "id": "msg_summary",
            "type": "message",
            "status": "completed",
            "role": "user",
            "content": [{"type": "input_text", "text": content}],
        }
        request = ModelRequest(model=model, instructions=SUMMARY_INSTRUCTIONS, items=[message], max_output_tokens=limit)
        text = ""
        async for event in app.models.stream(request):
            if isinstance(event, TextDelta):
                text += event.text
            elif isinstance(event, Finished):
                usage += event.usage or Usage(input_tokens=estimate_tokens([message]), output_tokens=len(text) // 4)
                cost += event.cost
        summary = text.strip() or summary
    return summary or "", usage, cost


def transcript(items: list[Json]) -> str:
    """Items as a text to summarise: who said what, which tool gave what."""
    lines: list[str] = []
    for item in items:
        match item["type"]:
            case "message":
                text = " ".join(
                    part.get("text") or part.get("refusal") or f"[{part['type']}]" for part in item["content"]
                )
                lines.append(f"{item['role']}: {text}")
            case "function_call" | "mcp_call":
                lines.append(f"tool call {item['name']}({item['arguments']})")
                if item.get("output"):
                    lines.append(f"tool output: {item['output']}")
            case "custom_tool_call":
                lines.append(f"tool call {item['name']}({item['input']})")
            case "function_call_output" | "custom_tool_call_output":
                output = item["output"]
                lines.append(f"tool output: {output if isinstance(output, str) else '[parts]'}")
            case _:
                continue
    return "\n".join(lines)


def chunks(text: str, *, most: int) -> list[str]:
    """Pieces of at most `most` characters."""
    return [text[start : start + most] for start in range(0, len(text), most)] or [""]


async def _further_back(app: App, owner: str, context: Context) -> list[TurnRecord]:
    """What is to be summarised; where the history goes on before it without a summary, that too, up to a bound."""
    older = list(context.older)
    wanted, after, read = older[0].parent, older[0].sort, len(older)
    while context.summary is None and wanted is not None and read < FAR_BACK:
        page = await turns(app.store, owner, older[0].group, after=after)
        if not page:
            break
        path, wanted = follow_path(page, wanted)
        older[:0] = reversed(path)
        # Behind the page, not behind what was found on it: a page may be full of other branches.
        after, read = page[-1].sort, read + len(page)
    return older


async def compact(app: App, caller: Principal, request: TurnRequest) -> Json:
    """`POST /v1/responses/compact`: the user's messages as they are, then one compaction item for everything.

    Raises:
        InvalidRequest: there is nothing to compact.
        AssistantError: the model failed.
    """
    plan = await prepare(app, caller, request)
    items = [*plan.context.history, *plan.context.input]
    window = (await app.models.route(plan.request.model)).window
    model = request.create.model or plan.request.model
    tokens = estimate_tokens(items)
    async with reserved(app, caller, model=model, tokens=tokens, output_tokens=SUMMARY_TOKENS) as bill:
        text, usage, cost = await summarise(app, plan.request.model, None, items, window=window)
        bill.used(input_tokens=usage.input_tokens, output_tokens=usage.output_tokens, cost=cost)
    now = app.clock.now()
    compaction = {**summary_item(text), "id": item_id("cmp", plan.turn.token, "o", 0)}
    return {
        "id": f"cmpr_{plan.turn.token}",
        "object": "response.compaction",
        "created_at": int(now),
        "output": [*(item for item in items if item["type"] == "message" and item["role"] == "user"), compaction],
        "usage": priced_usage(usage_body(usage), cost),
    }


async def compacted(run: Run, context: Context) -> Context:
    """`remember_summary`, but a model that cannot summarise costs the oldest turns instead of the answer."""
    try:
        return await remember_summary(run, context)
    except AssistantError as error:
        log.warning("compaction.failed", extra={"response_id": run.live.record.id, "code": error.code})
        return replace(context, older=[])
