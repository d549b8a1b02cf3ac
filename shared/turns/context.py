"""What the model sees this turn: history along the branch, then the new input, within a budget of tokens."""

from typing import Any

import orjson

from shared.conversations.records import TurnRecord
from shared.errors import InvalidRequest

type Json = dict[str, Any]

CHARS_PER_TOKEN = 4
"""The customary estimate for English text; deliberately the same everywhere, so that budgets compare."""
IMAGE_TOKENS = 800
"""What an image counts for, whatever its bytes: a middle of the published tables of image token counts."""

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


def build_history(path: list[TurnRecord], *, budget: int) -> list[Json]:
    """The items of turns given newest first, oldest first, whole turns only, at most `budget` tokens.

    A turn that failed left nothing to build on. What a cut orphans (an output whose call is gone) is dropped too.
    """
    chosen: list[list[Json]] = []
    left = budget
    was_cut = False
    for turn in path:
        items = model_items(turn)
        left -= estimate_tokens(items)
        if left < 0:
            was_cut = True
            break
        chosen.append(items)
    history = [item for items in reversed(chosen) for item in items]
    if was_cut or (path and path[-1].parent is not None):
        calls = {item.get("call_id") for item in history if item.get("type") in _CALLS}
        history = [item for item in history if item.get("type") not in _OUTPUTS or item.get("call_id") in calls]
    return history


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
