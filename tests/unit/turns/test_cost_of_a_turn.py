"""Length costs nothing: a turn deep in a conversation takes the same operations and charge as an early one."""

from shared.app import App
from shared.conversations.records import ConversationRecord, TurnRecord, header_sort, sort_key
from shared.conversations.repository import find_conversation
from shared.models.offline import OfflineModel
from shared.storage.base import STATE, Create, Upsert
from shared.telemetry import Tally
from tests.unit.turns.asking import CALLER, ask, conversation
from tests.unit.turns.conftest import MakeApp

MOST_OPERATIONS = 5
"""usage, header, history; accept; commit."""
MOST_CHARGE = 90.0
"""Request units of a plain turn with a full window of short turns behind it."""


async def test_turn_two_thousand_costs_what_turn_forty_costs(make_app: MakeApp) -> None:
    app = make_app(OfflineModel(word_delay=0.0))
    conv = await conversation(app)
    early = await _measured_after(app, conv, 30)
    late = await _measured_after(app, conv, 2000)

    assert early.operations == late.operations <= MOST_OPERATIONS
    assert late.charge <= early.charge * 1.1
    assert late.charge <= MOST_CHARGE


async def test_a_second_turn_takes_five_operations(make_app: MakeApp) -> None:
    app = make_app(OfflineModel(word_delay=0.0))
    conv = await conversation(app)
    await ask(app, "first", conversation=conv)
    with Tally() as tally:
        await ask(app, "second", conversation=conv)

    assert dict(tally.counts) == {"read": 2, "query": 1, "batch": 2}


async def test_a_chain_takes_no_more(make_app: MakeApp) -> None:
    app = make_app(OfflineModel(word_delay=0.0))
    first = await ask(app, "first")
    with Tally() as tally:
        await ask(app, "second", previous_response_id=first.id)

    assert tally.operations <= MOST_OPERATIONS


async def _measured_after(app: App, conv: str, count: int) -> Tally:
    """What a turn costs when so many of equal size are behind it, and the last summary not far."""
    await _grow(app, conv, count)
    await ask(app, "Still there?", conversation=conv)
    with Tally() as tally:
        await ask(app, "And now?", conversation=conv)
    return tally


async def _grow(app: App, conv: str, count: int) -> None:
    """Fill the conversation with finished turns, summarised where the engine would have done it."""
    found = await find_conversation(app.store, CALLER.owner, conv)
    assert found is not None
    header = found.record
    head = await app.store.read(STATE, CALLER.owner, header.head) if header.head else None
    last = TurnRecord.model_validate(head.body) if head else None
    operations: list[Create | Upsert] = []
    for _ in range((last.depth + 1) if last else 0, count):
        last = _turn(app, header, last)
        operations.append(Create(last.document()))
    assert last is not None
    header = header.model_copy(update={"head": last.id, "sort": header_sort(app.clock.now(), "x")})
    for start in range(0, len(operations), 90):
        await app.store.batch(STATE, CALLER.owner, operations[start : start + 90])
    await app.store.batch(STATE, CALLER.owner, [Upsert(header.document())])


def _turn(app: App, header: ConversationRecord, parent: TurnRecord | None) -> TurnRecord:
    token = app.ids.token()
    depth = parent.depth + 1 if parent else 0
    message = {"id": f"msg_{token}_i0", "type": "message", "role": "user", "status": "completed"}
    summary = {"text": "Much was said.", "upto": parent.id} if parent and depth % 25 == 0 else None
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
            "input": [{**message, "content": [{"type": "input_text", "text": "A short question?"}]}],
            "summary": summary,
        }
    )
