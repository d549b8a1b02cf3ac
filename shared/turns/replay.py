"""Events that derive from a turn's record: the first two, the last, and all of them once the journal is gone."""

from typing import Any

import orjson

from shared.conversations.records import TurnRecord
from shared.models.base import (
    AnnotationAdded,
    ArgumentsDelta,
    ItemDone,
    ItemStarted,
    ReasoningDelta,
    RefusalDelta,
    SummaryDelta,
    TextDelta,
)
from shared.turns.events import Batch, encode
from shared.turns.output import FIRST_SEQUENCE, Output
from shared.wire.responses import render_response

type Json = dict[str, Any]

_TERMINAL = {
    "completed": "response.completed",
    "incomplete": "response.incomplete",
    "failed": "response.failed",
    "cancelled": "response.failed",  # the protocol has no event of its own for it
}


def opening(turn: TurnRecord) -> Batch:
    """`response.created`, then `response.in_progress` (a background turn: `response.queued`), numbers 0 and 1."""
    status = "queued" if turn.params.get("background") else "in_progress"
    second = "response.queued" if status == "queued" else "response.in_progress"
    snapshot = orjson.Fragment(orjson.dumps(render_response(turn, status=status, output=[])))
    events = [
        {"type": "response.created", "sequence_number": 0, "response": snapshot},
        {"type": second, "sequence_number": 1, "response": snapshot},
    ]
    return Batch(0, 1, data=encode(events))  # as bytes: what both say is encoded once


def ending(turn: TurnRecord, *, number: int | None = None) -> Batch:
    """The terminal event of a final turn, with its number."""
    if number is None:
        number = turn.next_sequence if turn.next_sequence is not None else FIRST_SEQUENCE
    response = render_response(turn)
    return Batch.of([{"type": _TERMINAL[turn.status], "sequence_number": number, "response": response}])


def middle(turn: TurnRecord) -> Batch | None:
    """What a journal would have held, made from the items of a final turn: one delta a part; None without items."""
    output = Output(turn.token, include=turn.include)
    for key, item in enumerate(turn.output):
        _retell(output, key, item)
    events = output.drain()
    return Batch.of(events) if events else None


def _retell(output: Output, key: int, item: Json) -> None:
    kind: str = item["type"]
    if kind == "mcp_call":
        output.feed(ItemStarted(key, "mcp_call", item["name"]))
        output.feed(ArgumentsDelta(key, item["arguments"]))
        output.feed(ItemDone(key))
        output.finish_item(key, output=item.get("output"), error=item.get("error"), status=item["status"])
        return
    if kind not in ("message", "reasoning", "function_call", "custom_tool_call"):
        body = {name: value for name, value in item.items() if name != "id"}
        output.add_item(body)
        output.finish_item(key)
        return
    output.feed(ItemStarted(key, kind, item.get("name", ""), item.get("call_id", "")))  # pyright: ignore[reportArgumentType]
    summary: list[Json] = item.get("summary") or []
    for index, part in enumerate(summary):
        output.feed(SummaryDelta(key, index, part["text"]))
    parts: list[Json] = item.get("content") or []
    for part in parts:
        _retell_part(output, key, part)
    if kind == "function_call":
        output.feed(ArgumentsDelta(key, item["arguments"]))
    if kind == "custom_tool_call":
        output.feed(ArgumentsDelta(key, item["input"]))
    if item.get("encrypted_content"):
        output.feed(ItemDone(key, {"encrypted_content": item["encrypted_content"]}))
    output.close(item.get("status") or "completed")


def _retell_part(output: Output, key: int, part: Json) -> None:
    if part["type"] == "refusal":
        output.feed(RefusalDelta(key, part["refusal"]))
    elif part["type"] == "reasoning_text":
        output.feed(ReasoningDelta(key, part["text"]))
    else:
        output.feed(TextDelta(key, part["text"], part.get("logprobs") or None))
        annotations: list[Json] = part.get("annotations") or []
        for annotation in annotations:
            output.feed(AnnotationAdded(key, annotation))
