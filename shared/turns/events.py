"""Stream events as bytes: encoded once, then journalled, sent and replayed as they are."""

import zlib
from collections.abc import Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import orjson

type Json = dict[str, Any]


class Batch:
    """Some consecutive events: what is appended, and then sent, at a time. Empty ones are signs of life.

    Holds the events as objects, as bytes or both; each form is made from the other when first asked for.
    """

    __slots__ = ("_data", "_events", "first", "last")

    def __init__(self, first: int, last: int, *, data: bytes | None = None, events: list[Json] | None = None) -> None:
        self.first = first
        """Sequence number of the first event; with `last` below it, there is none."""
        self.last = last
        self._data = data
        self._events = events

    @classmethod
    def of(cls, events: list[Json]) -> "Batch":
        """From events numbered consecutively; at least one."""
        return cls(events[0]["sequence_number"], events[-1]["sequence_number"], events=events)

    @property
    def size(self) -> int:
        """Bytes it holds; 0 while it holds objects."""
        return len(self._data or b"")

    @property
    def is_empty(self) -> bool:
        return self.last < self.first

    @property
    def data(self) -> bytes:
        """Server-sent form: `event: <type>`, `data: <json>`, blank line."""
        if self._data is None:
            self._data = encode(self.events)
            self._events = None  # one form is enough to keep
        return self._data

    @property
    def events(self) -> list[Json]:
        if self._events is None:
            return list(decode(self._data or b""))
        return self._events

    def behind(self, after: int) -> "Batch | None":
        """The part with sequence numbers greater than `after`; None when that is nothing."""
        if self.last <= after or self.is_empty:
            return None
        if self.first > after:
            return self
        if self._events is not None:
            return Batch.of(self._events[after - self.first + 1 :])
        blocks = self.data.split(b"\n\n")[after - self.first + 1 :]
        return Batch(after + 1, self.last, data=b"\n\n".join(blocks))


class Packed:
    """Consecutive batches in a tenth of their space: what was shown long ago and is kept for who comes late."""

    __slots__ = ("_bytes", "first", "last")

    def __init__(self, batches: list[Batch]) -> None:
        self.first = batches[0].first
        self.last = batches[-1].last
        packer = zlib.compressobj(1, wbits=_WINDOW, memLevel=3)  # small tables: making larger ones costs more than this
        self._bytes = packer.compress(b"".join([batch.data for batch in batches])) + packer.flush()

    def batch(self) -> Batch:
        """All of them as one."""
        return Batch(self.first, self.last, data=zlib.decompress(self._bytes, wbits=_WINDOW))


_WINDOW = -12
"""4 KB, without a header."""


def encode(events: Iterable[Json]) -> bytes:
    """Events in server-sent form."""
    return b"".join([b"event: %b\ndata: %b\n\n" % (event["type"].encode(), orjson.dumps(event)) for event in events])


def decode(data: bytes) -> Iterator[Json]:
    """The events of a batch again."""
    for block in data.split(b"\n\n"):
        if block:
            yield orjson.loads(block[block.index(b"\ndata: ") + 7 :])


@dataclass(slots=True)
class Folded:
    """What some journalled events add up to; the inverse of `Output`."""

    items: list[Json] = field(default_factory=list[Json])
    """Open ones are `in_progress`, with the text shown so far."""
    called: set[int] = field(default_factory=set[int])
    """Places of server-side tool calls whose arguments are whole."""
    begun: set[int] = field(default_factory=set[int])
    """Places of server-side tool calls that may have run."""


def fold(events: Iterable[Json]) -> Folded:
    """Add up events in their order; they are left as they are."""
    folded = Folded()
    items: list[Any] = folded.items
    for event in events:
        kind: str = event["type"]
        if kind == "response.output_item.added":
            items.append(deepcopy(event["item"]))
        elif kind == "response.output_item.done":
            items[event["output_index"]] = deepcopy(event["item"])
        elif kind in _ADDED:
            parts: list[Json] = items[event["output_index"]].setdefault(_ADDED[kind], [])
            parts.append(deepcopy(event["part"]))
        elif kind == "response.output_text.annotation.added":
            annotated: Json = items[event["output_index"]]["content"][event["content_index"]]
            annotated["annotations"].append(event["annotation"])
        elif kind in _DELTAS:
            _grow(items[event["output_index"]], event, *_DELTAS[kind])
        elif kind == "response.mcp_call_arguments.done":
            folded.called.add(event["output_index"])
        elif kind == "response.mcp_call.in_progress":
            folded.begun.add(event["output_index"])
    return folded


_ADDED = {
    "response.content_part.added": "content",
    "response.reasoning_summary_part.added": "summary",
}
_DELTAS = {
    "response.output_text.delta": ("content_index", "content", "text"),
    "response.refusal.delta": ("content_index", "content", "refusal"),
    "response.reasoning_text.delta": ("content_index", "content", "text"),
    "response.reasoning_summary_text.delta": ("summary_index", "summary", "text"),
    "response.function_call_arguments.delta": ("", "", "arguments"),
    "response.mcp_call_arguments.delta": ("", "", "arguments"),
    "response.custom_tool_call_input.delta": ("", "", "input"),
}
"""Where a delta grows: which index names the part, in which list, in which field."""


def _grow(item: Json, event: Json, index: str, parts: str, field: str) -> None:
    target: Json = item[parts][event[index]] if parts else item
    target[field] += event["delta"]
    if event.get("logprobs"):
        target["logprobs"] += event["logprobs"]
