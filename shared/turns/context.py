"""What the model sees this turn: history along the branch, then the new input, within a budget of tokens."""

from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from shared.conversations.records import Summary, TurnRecord
from shared.errors import InvalidRequest
from shared.models.base import SUMMARY_MARKER

type Json = dict[str, Any]

CHARS_PER_TOKEN = 4
"""The customary estimate for English text; deliberately the same everywhere, so that budgets compare."""
IMAGE_TOKENS = 800
"""What an image counts for, whatever its bytes: a middle of the published tables of image token counts."""

SUMMARY_TOKENS = 2000
"""Most tokens of a summary."""
SUMMARY_CALLS, SUMMARY_READ = 4, 64_000
"""Model calls of one summary at most, or as many as it takes to read so many tokens in a small window: what is older
than that is left out of it."""
_ITEM_TOKENS = 40
"""What the JSON around a summary takes."""

_CALLS = {"function_call": "function_call_output", "custom_tool_call": "custom_tool_call_output"}
_OUTPUTS = frozenset(_CALLS.values())


def estimate_tokens(items: list[Json]) -> int:
    """Tokens of some items, by their length as JSON; images by a flat count."""
    return sum(_item_tokens(item) for item in items)


def _item_tokens(item: Json) -> int:
    parts = item.get("content") if item.get("type") == "message" else item.get("output")
    if isinstance(parts, list):
        images = sum(1 for part in parts if isinstance(part, dict) and part.get("type") == "input_image")  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
        texts = [part for part in parts if not (isinstance(part, dict) and part.get("type") == "input_image")]  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
        return images * IMAGE_TOKENS + len(orjson.dumps(texts)) // CHARS_PER_TOKEN + 4
    return len(orjson.dumps(item)) // CHARS_PER_TOKEN + 4


def chunk_tokens(window: int) -> int:
    """What one call of a summary reads anew, in a model's window of so many tokens."""
    return max(250, (window - SUMMARY_TOKENS) // 2)


def summary_read(window: int) -> int:
    """Tokens that one summary reads at most."""
    return max(SUMMARY_CALLS * chunk_tokens(window), SUMMARY_READ)


def turn_items(turn: TurnRecord) -> list[Json]:
    """What a turn adds to its conversation: input, then output, less what was removed."""
    items = turn.input + turn.output
    return [item for item in items if item["id"] not in turn.removed] if turn.removed else items


def model_items(turn: TurnRecord) -> list[Json]:
    """What of a turn a model sees later: nothing of one that failed, nothing torn, no call that was cut off."""
    if turn.status == "failed":
        return []
    return [
        item
        for item in turn_items(turn)
        if item["id"] not in turn.torn and not (item["type"] in _CALLS and item.get("status") == "incomplete")
    ]


@dataclass(frozen=True, slots=True)
class Context:
    """What a turn's model call sees of the past, and what of it no longer fits.

    Compaction is due before the call when the turns behind the last summary outgrow the budget: then the oldest of
    them (`older`) are summarised, together with the summary before (`summary`), and the newest (`kept`) stay.
    """

    summary: str | None = None
    """Everything before the turns below, in few words; None where nothing was summarised yet."""
    older: list[TurnRecord] = field(default_factory=list[TurnRecord])
    """To be summarised before the call, oldest first; empty when all fits."""
    kept: list[TurnRecord] = field(default_factory=list[TurnRecord])
    """To be sent as they are, oldest first."""
    input: list[Json] = field(default_factory=list[Json])
    """The new items."""
    input_tokens: int = 0
    budget: int = 0
    """Tokens that history and input may take."""
    summary_tokens: int = 0
    """What a summary of `older` may take, so that everything fits."""

    @property
    def needs_summary(self) -> bool:
        return bool(self.older)

    @property
    def history(self) -> list[Json]:
        """Everything known of the past, as items, oldest first, whether it fits or not."""
        return _without_orphans([*self._head(), *self._items(self.older), *self._items(self.kept)])

    @property
    def items(self) -> list[Json]:
        """What the model is sent."""
        return [*_without_orphans([*self._head(), *self._items(self.kept)]), *self.input]

    def summarising(self, window: int) -> int:
        """Tokens that the calls which make the summary of `older` take at most, read and written."""
        if not self.older:
            return 0
        chunk = chunk_tokens(window)
        most = summary_read(window)
        if self.summary is not None or self.older[0].parent is None:  # else more is read before them
            most = min(most, sum(estimate_tokens(model_items(turn)) for turn in self.older))
        return most + -(-most // chunk) * 2 * SUMMARY_TOKENS

    def summarised(self, summary: str) -> "Context":
        """The same with everything older in the summary."""
        return replace(self, summary=summary[: self.summary_tokens * CHARS_PER_TOKEN], older=[])

    def _head(self) -> list[Json]:
        return [summary_item(self.summary)] if self.summary is not None else []

    @staticmethod
    def _items(turns: list[TurnRecord]) -> list[Json]:
        return [item for turn in turns for item in model_items(turn)]


def build_context(path: list[TurnRecord], items: list[Json], *, budget: int, most_turns: int) -> Context:
    """Decide what of the past fits.

    Args:
        path: the turns before this one, newest first, back to the last summary or the root (or as far as was read).
        items: the new input.
        budget: tokens that the whole context may take; input included.
        most_turns: turns read as history at a time; compaction comes well before that many gather.
    """
    chosen, summary = _behind_summary(path)
    costs = [estimate_tokens(model_items(turn)) for turn in chosen]
    tokens = estimate_tokens(items)
    room = budget - tokens
    head = estimate_tokens([summary_item(summary)]) if summary is not None else 0
    if head + sum(costs) <= room and len(chosen) < max(2, most_turns * 4 // 5):
        return Context(summary, [], chosen[::-1], items, tokens, budget=budget)
    keep, left = 0, room // 2
    while keep < min(len(chosen), max(1, most_turns // 4)) and costs[keep] <= left:
        left -= costs[keep]
        keep += 1
    most = max(64, room // 4 - _ITEM_TOKENS)
    return Context(summary, chosen[keep:][::-1], chosen[:keep][::-1], items, tokens, budget=budget, summary_tokens=most)


def newest_that_fit(items: list[Json], most: int) -> list[Json]:
    """Items without the oldest of them, as many as it takes (`truncation: auto`); the last one always stays."""
    kept = list(items)
    tokens = estimate_tokens(kept)
    while len(kept) > 1 and tokens > most:
        tokens -= estimate_tokens([kept.pop(0)])
    return _without_orphans(kept) if len(kept) < len(items) else items


def _behind_summary(path: list[TurnRecord]) -> tuple[list[TurnRecord], str | None]:
    """The newest turns back to what the last summary covers, newest first; and that summary."""
    chosen: list[TurnRecord] = []
    summary: Summary | None = None
    for turn in path:
        if summary is not None and turn.id == summary.upto:
            break
        chosen.append(turn)
        if summary is None:
            summary = turn.summary
    return chosen, summary.text if summary else None


def reach_of(path: list[TurnRecord]) -> int:
    """How many of some turns newest first the context needs."""
    return len(_behind_summary(path)[0])


def is_enough(path: list[TurnRecord], missing: str | None) -> bool:
    """Whether turns newest first reach back to the root, or to what the newest summary among them covers."""
    if missing is None:
        return True
    summary = next((turn.summary for turn in path if turn.summary is not None), None)
    return summary is not None and (summary.upto == missing or any(turn.id == summary.upto for turn in path))


def summary_item(text: str) -> Json:
    """A summary as the item that stands for what it covers."""
    return {"id": "cmp_summary", "type": "compaction", "encrypted_content": f"{SUMMARY_MARKER}{text}"}


def _without_orphans(items: list[Json]) -> list[Json]:
    """Less the tool outputs whose calls are not among them: the summary has both."""
    calls = {item["call_id"] for item in items if item.get("type") in _CALLS}
    return [item for item in items if item.get("type") not in _OUTPUTS or item["call_id"] in calls]


def check_context(history: list[Json], items: list[Json]) -> None:
    """What OpenAI refuses before any model sees it.

    Raises:
        InvalidRequest: an id that is in the history already, an output for no call, a call without output.
    """
    seen = {item["id"] for item in history}
    for item in items:
        if item["id"] in seen:
            raise InvalidRequest(
                f"Duplicate item found with id {item['id']}. Remove duplicate items from your input and try again.",
                param="input",
            )
    pending: dict[str, str] = {}
    known: set[str] = set()
    for item in [*history, *items]:
        type_: str = item.get("type", "")
        if type_ in _CALLS:
            pending[item["call_id"]] = type_
            known.add(item["call_id"])
        elif type_ in _OUTPUTS:
            if item["call_id"] not in known:
                raise InvalidRequest(
                    f"No tool call found for function call output with call_id {item['call_id']}.", param="input"
                )
            pending.pop(item["call_id"], None)
    if pending:
        call_id = next(iter(pending))
        raise InvalidRequest(f"No tool output found for function call {call_id}.", param="input")
