"""From model events to the numbered events of a stream, and to the items they add up to.

`Output.feed` takes what the model says as it says it; `Output.drain` gives the stream events since the last drain, with
neighbouring deltas of one part merged into one. The items under construction are always what the drained and pending
events add up to, so that joined deltas = done text = text in the item = text in the final snapshot.
"""

from collections.abc import Callable
from io import StringIO
from typing import Any

from shared.ids import item_id
from shared.models.base import (
    AnnotationAdded,
    ArgumentsDelta,
    ItemDone,
    ItemStarted,
    ModelEvent,
    ReasoningDelta,
    RefusalDelta,
    SummaryDelta,
    TextDelta,
)
from shared.turns.events import Folded
from shared.wire.items import PREFIXES
from shared.wire.responses import visible_items

type Json = dict[str, Any]

FIRST_SEQUENCE = 2
"""0 is `response.created`, 1 is `response.in_progress`; both derive from the turn's record."""


class _Delta:
    """Deltas of one part, not drained yet: one event in the making."""

    __slots__ = ("fields", "key", "logprobs", "pieces")

    def __init__(self, key: tuple[object, ...], fields: Json) -> None:
        self.key = key
        self.fields = fields
        self.pieces: list[str] = []
        self.logprobs: list[Json] | None = None


class _Item:
    """An output item that is being built, and which part of it is open."""

    __slots__ = ("body", "index", "part", "text")

    def __init__(self, index: int, body: Json) -> None:
        self.index = index
        self.body = body
        self.part: Json | None = None
        self.text = StringIO()
        """Of what is open: one string, where a list of pieces would weigh ten times as much."""


class Output:
    """The output of one turn: items, and the events that tell of them."""

    def __init__(
        self,
        turn_token: str,
        *,
        sequence: int = FIRST_SEQUENCE,
        items: list[Json] | None = None,
        include: list[str] | None = None,
    ) -> None:
        """`include` is what the caller asked to see; None: everything."""
        self._token = turn_token
        self._include = include
        self.sequence = sequence
        """The number the next drained event gets."""
        self.items: list[Json] = list(items or [])
        """Every item so far, in output order; open ones are `in_progress`."""
        self._open: dict[int, _Item] = {}
        self._pending: list[Json | _Delta] = []

    @classmethod
    def resumed(cls, turn_token: str, folded: Folded, *, sequence: int, include: list[str] | None = None) -> "Output":
        """What another writer left: its items, open ones open again where they were torn.

        A batch never ends between the end of a part and the end of its item, so the last part of an open item is open.
        """
        output = cls(turn_token, sequence=sequence, items=folded.items, include=include)
        for index, body in enumerate(output.items):
            if body.get("status") != "in_progress" or index in folded.called:
                continue
            item = _Item(index, body)
            parts: list[Json] = body.get("content") or body.get("summary") or []
            if parts:
                item.part = parts[-1]
                item.text.write(parts[-1]["refusal" if parts[-1]["type"] == "refusal" else "text"])
            else:
                item.text.write(body.get("arguments") or body.get("input") or "")
            output._open[-1 - index] = item
        return output

    @property
    def open_text(self) -> str | None:
        """The text of the one message that is open, when that is all that is open; what a prefix could continue."""
        if len(self._open) != 1:
            return None
        item = next(iter(self._open.values()))
        is_text = item.body["type"] == "message" and item.part is not None and item.part["type"] == "output_text"
        return item.text.getvalue() if is_text else None

    @property
    def open_key(self) -> int:
        """The key of the one open item."""
        return next(iter(self._open))

    @property
    def is_dirty(self) -> bool:
        return bool(self._pending)

    def open_items(self) -> list[Json]:
        return [item.body for item in self._open.values()]

    # in: what the model says

    def feed(self, event: ModelEvent) -> None:
        """One model event; `Finished` is the loop's business and ignored here."""
        kind = type(event)
        if kind is TextDelta:
            self._text(event)  # pyright: ignore[reportArgumentType]
            return
        handler = _HANDLERS.get(kind)
        if handler is not None:
            handler(self, event)

    def add_item(self, body: Json) -> Json:
        """A whole item at once, as server-side tools produce them; returns it with its id."""
        index = len(self.items)
        item = {"id": item_id(PREFIXES[body["type"]], self._token, "o", index), **body}
        self.items.append(item)
        self._pending.append({"type": "response.output_item.added", "output_index": index, "item": item})
        return item

    def finish_item(self, index: int, **changes: Any) -> None:
        """The end of an item begun with `add_item`, with what came of it."""
        self.items[index] = {**self.items[index], **changes}
        self._pending.append(
            {"type": "response.output_item.done", "output_index": index, "item": dict(self.items[index])}
        )

    def emit(self, event: Json) -> None:
        """An event that changes no item (progress of a tool call)."""
        self._pending.append(event)

    def close(self, status: str = "completed") -> None:
        """End every item that is still open: `completed`, or `incomplete` when it was torn."""
        for key in list(self._open):
            self._close_item(key, status)

    # out: what the client sees

    def drain(self) -> list[Json]:
        """Events since the last drain, numbered, ready to be journalled and then shown."""
        events: list[Json] = []
        for entry in self._pending:
            event = entry if isinstance(entry, dict) else _merged(entry)
            event["sequence_number"] = self.sequence
            self.sequence += 1
            events.append(event)
        self._pending.clear()
        return events

    # how

    def _start(self, event: ItemStarted) -> None:
        index = len(self.items)
        body: Json = {
            "id": item_id(PREFIXES[event.type], self._token, "o", index),
            "type": event.type,
            "status": "in_progress",
        }
        match event.type:
            case "message":
                body |= {"role": "assistant", "content": []}
            case "reasoning":
                body |= {"summary": []}
            case "function_call":
                body |= {"call_id": event.call_id, "name": event.name, "arguments": ""}
            case "custom_tool_call":
                body |= {"call_id": event.call_id, "name": event.name, "input": ""}
            case "mcp_call":
                body |= {
                    "server_label": "companion",
                    "name": event.name,
                    "arguments": "",
                    "output": None,
                    "error": None,
                }
        self.items.append(body)
        self._open[event.key] = _Item(index, body)
        self._pending.append({"type": "response.output_item.added", "output_index": index, "item": _snapshot(body)})

    def _text(self, event: TextDelta) -> None:
        item = self._open[event.key]
        part = item.part
        if part is None or part["type"] != "output_text":
            part = self._open_part(item, {"type": "output_text", "text": "", "annotations": [], "logprobs": []})
        item.text.write(event.text)
        delta = self._delta("response.output_text.delta", item)
        delta.pieces.append(event.text)
        if event.logprobs:
            part["logprobs"] += event.logprobs
            delta.logprobs = (delta.logprobs or []) + event.logprobs

    def _refusal(self, event: RefusalDelta) -> None:
        item = self._open[event.key]
        if item.part is None or item.part["type"] != "refusal":
            self._open_part(item, {"type": "refusal", "refusal": ""})
        item.text.write(event.text)
        self._delta("response.refusal.delta", item).pieces.append(event.text)

    def _arguments(self, event: ArgumentsDelta) -> None:
        item = self._open[event.key]
        item.text.write(event.text)
        self._delta(_ARGUMENT_DELTAS[item.body["type"]], item).pieces.append(event.text)

    def _summary(self, event: SummaryDelta) -> None:
        item = self._open[event.key]
        summary: list[Json] = item.body["summary"]
        if item.part is None or item.part["type"] != "summary_text" or event.index >= len(summary):
            self._close_part(item)
            item.part = {"type": "summary_text", "text": ""}
            summary.append(item.part)
            self._pending.append(
                {
                    "type": "response.reasoning_summary_part.added",
                    "item_id": item.body["id"],
                    "output_index": item.index,
                    "summary_index": len(summary) - 1,
                    "part": dict(item.part),
                }
            )
        item.text.write(event.text)
        self._delta("response.reasoning_summary_text.delta", item).pieces.append(event.text)

    def _reasoning(self, event: ReasoningDelta) -> None:
        item = self._open[event.key]
        item.body.setdefault("content", [])
        if item.part is None or item.part["type"] != "reasoning_text":
            self._open_part(item, {"type": "reasoning_text", "text": ""})
        item.text.write(event.text)
        self._delta("response.reasoning_text.delta", item).pieces.append(event.text)

    def _annotation(self, event: AnnotationAdded) -> None:
        item = self._open[event.key]
        part = item.part
        if part is None or part["type"] != "output_text":
            part = self._open_part(item, {"type": "output_text", "text": "", "annotations": [], "logprobs": []})
        part["annotations"].append(event.annotation)
        self._pending.append(
            {
                "type": "response.output_text.annotation.added",
                **self._where(item),
                "annotation_index": len(part["annotations"]) - 1,
                "annotation": event.annotation,
            }
        )

    def _done(self, event: ItemDone) -> None:
        item = self._open.get(event.key)
        if item is None:
            return
        if event.extra:
            item.body.update(event.extra)
        self._close_item(event.key, "completed")

    def _open_part(self, item: _Item, part: Json) -> Json:
        self._close_part(item)
        item.part = part
        item.body["content"].append(part)
        self._pending.append({"type": "response.content_part.added", **self._where(item), "part": _snapshot(part)})
        return part

    def _where(self, item: _Item) -> Json:
        """Which part an event is about."""
        where: Json = {"item_id": item.body["id"], "output_index": item.index}
        if item.body["type"] == "message" or (item.part or {}).get("type") == "reasoning_text":
            where["content_index"] = len(item.body["content"]) - 1
        elif item.body["type"] == "reasoning":
            where["summary_index"] = len(item.body["summary"]) - 1
        return where

    def _delta(self, type_: str, item: _Item) -> _Delta:
        """The pending delta event of this part, if it is the last thing pending; else a new one."""
        key = (type_, item.index, id(item.part))
        if self._pending:
            last = self._pending[-1]
            if isinstance(last, _Delta) and last.key == key:
                return last
        delta = _Delta(key, {"type": type_, **self._where(item)})
        self._pending.append(delta)
        return delta

    def _close_part(self, item: _Item) -> None:
        part = item.part
        if part is None:
            return
        text = item.text.getvalue()
        item.text = StringIO()
        where = self._where(item)
        match part["type"]:
            case "output_text":
                part["text"] = text
                done = {"type": "response.output_text.done", **where, "text": text, "logprobs": part["logprobs"]}
            case "refusal":
                part["refusal"] = text
                done = {"type": "response.refusal.done", **where, "refusal": text}
            case "summary_text":
                part["text"] = text
                done = {"type": "response.reasoning_summary_text.done", **where, "text": text}
            case _:
                part["text"] = text
                done = {"type": "response.reasoning_text.done", **where, "text": text}
        self._pending.append(done)
        ended = (
            "response.reasoning_summary_part.done" if part["type"] == "summary_text" else "response.content_part.done"
        )
        self._pending.append({"type": ended, **where, "part": _snapshot(part)})
        item.part = None

    def _close_item(self, key: int, status: str) -> None:
        item = self._open.pop(key)
        body = item.body
        self._close_part(item)
        match body["type"]:
            case "function_call":
                body["arguments"] = item.text.getvalue()
                self._pending.append(
                    {
                        "type": "response.function_call_arguments.done",
                        "item_id": body["id"],
                        "output_index": item.index,
                        "name": body["name"],
                        "arguments": body["arguments"],
                    }
                )
            case "custom_tool_call":
                body["input"] = item.text.getvalue()
                self._pending.append(
                    {
                        "type": "response.custom_tool_call_input.done",
                        "item_id": body["id"],
                        "output_index": item.index,
                        "input": body["input"],
                    }
                )
            case "mcp_call":
                body["arguments"] = item.text.getvalue()
                self._pending.append(
                    {
                        "type": "response.mcp_call_arguments.done",
                        "item_id": body["id"],
                        "output_index": item.index,
                        "arguments": body["arguments"],
                    }
                )
                if status == "completed":
                    return  # the call is known; whoever runs it finishes the item
            case _:
                pass
        body["status"] = status
        shown = _snapshot(body) if self._include is None else visible_items([_snapshot(body)], self._include)[0]
        self._pending.append({"type": "response.output_item.done", "output_index": item.index, "item": shown})

    def snapshot(self) -> list[Json]:
        """The items as they stand, open text included: what a torn or cancelled turn keeps."""
        items = [_snapshot(item) for item in self.items]
        for open_item in self._open.values():
            _fill(items[open_item.index], open_item.text.getvalue())
        return items


def _fill(item: Json, text: str) -> None:
    """Put the text of an open part into the copy of its item."""
    match item["type"]:
        case "function_call" | "mcp_call":
            item["arguments"] = text
        case "custom_tool_call":
            item["input"] = text
        case _:
            parts: list[Json] = item.get("content") or item.get("summary") or []
            if parts:
                parts[-1]["refusal" if parts[-1]["type"] == "refusal" else "text"] = text


def _snapshot(body: Json) -> Json:
    """A copy that later deltas do not change: items nest two levels deep."""
    copy = dict(body)
    for name in ("content", "summary", "annotations", "logprobs"):
        inner = copy.get(name)
        if isinstance(inner, list):
            copy[name] = [_snapshot(part) if isinstance(part, dict) else part for part in inner]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return copy


def _merged(delta: _Delta) -> Json:
    event = {**delta.fields, "delta": "".join(delta.pieces)}
    if event["type"] == "response.output_text.delta":
        event["logprobs"] = delta.logprobs or []
    return event


_ARGUMENT_DELTAS = {
    "function_call": "response.function_call_arguments.delta",
    "custom_tool_call": "response.custom_tool_call_input.delta",
    "mcp_call": "response.mcp_call_arguments.delta",
}

_HANDLERS: dict[type, Callable[[Output, Any], None]] = {
    ItemStarted: Output._start,  # pyright: ignore[reportPrivateUsage]
    RefusalDelta: Output._refusal,  # pyright: ignore[reportPrivateUsage]
    ArgumentsDelta: Output._arguments,  # pyright: ignore[reportPrivateUsage]
    SummaryDelta: Output._summary,  # pyright: ignore[reportPrivateUsage]
    ReasoningDelta: Output._reasoning,  # pyright: ignore[reportPrivateUsage]
    AnnotationAdded: Output._annotation,  # pyright: ignore[reportPrivateUsage]
    ItemDone: Output._done,  # pyright: ignore[reportPrivateUsage]
}
