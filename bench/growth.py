"""What a turn costs at turn 1, 10, 100, 1,000 and 10,000 of a conversation: time, store operations, request charge."""

import asyncio
import statistics
import tempfile
import time
from dataclasses import dataclass

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
from shared.telemetry import tallied
from shared.turns.begin import begin_turn
from shared.turns.context import estimate_tokens
from shared.turns.follow import finished, follow_live
from shared.turns.prepare import TurnRequest
from shared.wire.responses import CreateResponse

CALLER = Principal(owner="bench")
DEPTHS = (1, 10, 100, 1_000, 10_000)
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


async def growth(depths: tuple[int, ...] = DEPTHS, repeats: int = 15) -> list[Cost]:
    """Measure at each depth of one conversation, in this process, on SQLite in a file."""
    settings = Settings.read(
        {"COMPANION_DATA": tempfile.mkdtemp(), "COMPANION_TITLES": "off", "COMPANION_CONTEXT_TOKENS": "8000"}
    )
    app = build_app(settings, models=Router.over(OfflineModel(word_delay=0.0)))
    conversation = (await create_conversation(app, CALLER.owner, metadata={}, items=None)).id
    try:
        return [await _at(app, conversation, depth, repeats) for depth in depths]
    finally:
        await app.close()


async def ten_second_answer() -> Cost:
    """A plain stored turn outside a conversation whose answer takes ten seconds: what its journal adds."""
    words = 200
    settings = Settings.read({"COMPANION_DATA": tempfile.mkdtemp(), "COMPANION_TITLES": "off"})
    app = build_app(settings, models=Router.over(OfflineModel(word_delay=10 / words)))
    try:
        began = time.process_time()
        with tallied() as tally:
            create = CreateResponse.model_validate({"input": f"write {words} words", "model": "companion"})
            live = await begin_turn(app, CALLER, TurnRequest(create=create))
            async for _ in follow_live(app, CALLER.owner, live):
                pass
        taken = (time.process_time() - began) * 1000
        return Cost(depth=1, milliseconds=round(taken, 2), operations=tally.operations, charge=round(tally.charge, 1))
    finally:
        await app.close()


async def _at(app: App, conversation: str, depth: int, repeats: int) -> Cost:
    await _grow(app, conversation, depth - 1)
    times, operations, charges = list[float](), list[int](), list[float]()
    for _ in range(repeats):
        found = await find_conversation(app.store, CALLER.owner, conversation)
        assert found is not None
        began = time.process_time()
        with tallied() as tally:
            create = CreateResponse.model_validate({"input": "And now?", "conversation": conversation})
            made = await finished(app, CALLER.owner, await begin_turn(app, CALLER, TurnRequest(create=create)))
        times.append((time.process_time() - began) * 1000)
        operations.append(tally.operations)
        charges.append(tally.charge)
        await app.store.batch(STATE, CALLER.owner, [Upsert(found.record.document()), Delete(made.id)])  # as it was
    return Cost(
        depth=depth,
        milliseconds=round(statistics.median(times), 2),
        operations=statistics.mode(operations),
        charge=round(statistics.median(charges), 1),
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
