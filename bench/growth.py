"""What a turn costs at turn 1, 10, 100, 1,000 and 10,000 of a conversation: time, store operations, request charge."""

import asyncio
import statistics
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import NamedTuple

from shared.app import App
from shared.bootstrap import build_app
from shared.conversations.records import ConversationRecord, TurnRecord, sort_key
from shared.conversations.repository import find_conversation
from shared.conversations.service import create_conversation
from shared.models.offline import OfflineModel
from shared.models.router import Router
from shared.principal import Principal
from shared.settings import Settings
from shared.storage.base import STATE, Create, Delete, Upsert
from shared.telemetry import Tally
from shared.turns.begin import begin_turn
from shared.turns.context import estimate_tokens
from shared.turns.follow import finished, follow_live
from shared.turns.prepare import TurnRequest
from shared.wire.responses import CreateResponse

CALLER = Principal(owner="bench")
DEPTHS = (1, 10, 100, 1_000, 10_000)
WARM = 5
"""Turns of each depth before the measured ones."""
TURN_TOKENS = 1200
"""Of each turn behind: long enough that a few of them fill the window, as they do in real conversations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Of one turn at a depth; the median of some."""

    depth: int
    milliseconds: float
    """Of processor time, the model's own included (it says a few words at once)."""
    operations: int
    charge: float


class Turn(NamedTuple):
    """What one turn cost."""

    milliseconds: float
    operations: int
    charge: float


async def growth(depths: tuple[int, ...] = DEPTHS, repeats: int = 40) -> list[Cost]:
    """Measure in this process, on SQLite: a file for each depth, with one conversation that is so deep.

    The depths take turns, one measured turn each, so that whatever else the machine does befalls all alike. The files
    are grown beforehand by other apps: a conversation does not come by its turns in the second before, and the log of
    so many writes would be copied beside the turns that are measured.
    """
    async with AsyncExitStack() as stack:
        places = [await _grown(stack, depth) for depth in depths]
        turns = [[await _turn_at(app, conversation) for app, conversation in places] for _ in range(WARM + repeats)][
            WARM:
        ]
    return [_cost(depth, list(column)) for depth, column in zip(depths, zip(*turns, strict=True), strict=True)]


async def _grown(stack: AsyncExitStack, depth: int) -> tuple[App, str]:
    """An app on a file of its own, and its conversation, in which the next turn is the `depth`th."""
    data = tempfile.mkdtemp()
    async with _app(data) as app:
        conversation = (await create_conversation(app, CALLER.owner, metadata={}, items=None)).id
        await _grow(app, conversation, depth - 1)
    return await stack.enter_async_context(_app(data)), conversation


@asynccontextmanager
async def _app(data: str) -> AsyncGenerator[App]:
    settings = Settings.read({"COMPANION_DATA": data, "COMPANION_TITLES": "off", "COMPANION_CONTEXT_TOKENS": "8000"})
    app = build_app(settings, models=Router.over(OfflineModel(word_delay=0.0)))
    try:
        yield app
    finally:
        await app.close()


async def ten_second_answer() -> Cost:
    """A plain stored turn outside a conversation whose answer takes ten seconds: what its journal adds."""
    words = 200
    settings = Settings.read({"COMPANION_DATA": tempfile.mkdtemp(), "COMPANION_TITLES": "off"})
    app = build_app(settings, models=Router.over(OfflineModel(word_delay=10 / words)))
    try:
        began = time.process_time()
        with Tally() as tally:
            create = CreateResponse.model_validate({"input": f"write {words} words", "model": "companion"})
            live = await begin_turn(app, CALLER, TurnRequest(create=create))
            async for _ in follow_live(app, CALLER.owner, live):
                pass
        taken = (time.process_time() - began) * 1000
        return Cost(depth=1, milliseconds=round(taken, 2), operations=tally.operations, charge=round(tally.charge, 1))
    finally:
        await app.close()


async def _turn_at(app: App, conversation: str) -> Turn:
    """One turn, and the conversation as it was before."""
    found = await find_conversation(app.store, CALLER.owner, conversation)
    assert found is not None
    began = time.process_time()
    with Tally() as tally:
        create = CreateResponse.model_validate({"input": "And now?", "conversation": conversation})
        made = await finished(app, CALLER.owner, await begin_turn(app, CALLER, TurnRequest(create=create)))
    milliseconds = (time.process_time() - began) * 1000
    await app.store.batch(STATE, CALLER.owner, [Upsert(found.record.document()), Delete(made.id)])
    return Turn(milliseconds, tally.operations, tally.charge)


def _cost(depth: int, turns: list[Turn]) -> Cost:
    return Cost(
        depth=depth,
        milliseconds=round(statistics.median(turn.milliseconds for turn in turns), 2),
        operations=statistics.mode(turn.operations for turn in turns),
        charge=round(statistics.median(turn.charge for turn in turns), 1),
    )


async def _grow(app: App, conversation: str, count: int) -> None:
    """Finished turns of one size, up to a depth, with summaries where the engine would have made them."""
    found = await find_conversation(app.store, CALLER.owner, conversation)
    assert found is not None
    header = found.record
    head = await app.store.read(STATE, CALLER.owner, header.head) if header.head else None
    last = TurnRecord.model_validate(head.body) if head else None
    operations: list[Create] = []
    for _ in range(last.depth + 1 if last else 0, count):
        last = _turn(app, header, last)
        operations.append(Create(last.document()))
    for start in range(0, len(operations), 100):
        await app.store.batch(STATE, CALLER.owner, operations[start : start + 100])
    if last is not None:
        await app.store.batch(STATE, CALLER.owner, [Upsert(header.model_copy(update={"head": last.id}).document())])


_TEXT = "Some words that were said. " * 60
_EVERY = 5


def _turn(app: App, header: ConversationRecord, parent: TurnRecord | None) -> TurnRecord:
    token = app.ids.token()
    depth = parent.depth + 1 if parent else 0
    parts = [("i", "user", "input_text"), ("o", "assistant", "output_text")]
    items = [
        {
            "id": f"msg_{token}_{side}0",
            "type": "message",
            "role": role,
            "status": "completed",
            "content": [{"type": type_, "text": _TEXT}],
        }
        for side, role, type_ in parts
    ]
    assert estimate_tokens(items) < TURN_TOKENS
    summary = {"text": "Much was said.", "upto": parent.id} if parent and depth % _EVERY == 0 else None
    return TurnRecord.model_validate(
        {
            "id": f"resp_{token}",
            "group": header.id,
            "sort": sort_key(depth, token),
            "depth": depth,
            "parent": parent.id if parent else None,
            "conversation": header.id,
            "branch": "main",
            "status": "completed",
            "created_at": app.clock.now(),
            "params": {"model": "companion"},
            "input": items[:1],
            "output": items[1:],
            "summary": summary,
        }
    )


if __name__ == "__main__":
    for cost in asyncio.run(growth()):
        print(cost)
