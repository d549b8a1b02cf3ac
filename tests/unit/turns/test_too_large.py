"""Answers that weigh more than a document may: written once where that is enough, else the turn ends, and says why."""

import asyncio
from typing import Any

import pytest

from shared.app import App
from shared.clock import ManualClock
from shared.models.base import Finished, ItemDone, ItemStarted, ModelEvent, TextDelta, Usage
from shared.models.scripted import ScriptedModel, calls, says
from shared.storage.base import EVENTS, STATE
from shared.storage.rules import MAX_BYTES
from shared.storage.sqlite import SqliteStore
from shared.tools.registry import ServerTool, ToolRegistry
from shared.turns.events import Batch
from shared.turns.follow import follow_live, get_turn
from shared.turns.journal import TOO_LARGE, Journal, read_entry
from shared.turns.ledger import Ledger, TurnTaken
from shared.usage import meter
from shared.usage.records import Spent, UsageRecord
from tests.unit.turns.asking import CALLER, ask, begin, events, text_of
from tests.unit.turns.conftest import MakeApp

ASKED = {"include": ["message.output_text.logprobs"], "top_logprobs": 20}
QUICK = {"COMPANION_LEASE": "0.2"}
"""A turn whose writer has left it is taken over soon."""


def logprob(rank: int) -> dict[str, Any]:
    word = f" word{rank:02d}"
    return {"token": word, "logprob": -1.2345678 * rank, "bytes": list(word.encode())}


def answer(tokens: int) -> list[ModelEvent | Any]:
    """Of so many words, each with its twenty likeliest: about 1.6 KB a word."""
    said = {**logprob(0), "top_logprobs": [logprob(rank) for rank in range(20)]}
    words = [TextDelta(0, " word00", [said]) for _ in range(tokens)]
    return [
        ItemStarted(0, "message"),
        *words,
        ItemDone(0),
        Finished(usage=Usage(input_tokens=10, output_tokens=tokens), model="m"),
    ]


async def used(app: App) -> Spent:
    stored = await app.store.read(STATE, CALLER.owner, meter.month_id(app.clock.now()))
    assert stored is not None
    record = UsageRecord.of(stored.body)
    assert record.reserved == {}
    (models,) = record.days.values()
    return models["companion"]


def event(kind: str, number: int, **fields: Any) -> dict[str, Any]:
    return {"type": f"response.{kind}", **fields, "sequence_number": number}


async def test_what_the_end_of_an_item_repeats_is_stored_once_and_read_byte_for_byte() -> None:
    clock = ManualClock()
    store = SqliteStore(":memory:", clock)
    long, other = [logprob(1)] * 2_000, [logprob(2)] * 1_000
    told: list[dict[str, Any]] = []
    for logprobs in (long, other, []):
        part = {"type": "output_text", "text": 'said: "logprobs":[1] \x01', "annotations": [], "logprobs": logprobs}
        number = len(told)
        told += [
            event("output_text.delta", number, delta=part["text"], logprobs=logprobs),
            event("output_text.done", number + 1, text=part["text"], logprobs=logprobs),
            event("content_part.done", number + 2, part=part),
            event("output_item.done", number + 3, item={"type": "message", "content": [part]}),
        ]
    batch = Batch.of(told)
    await Journal(store, "resp_1", clock, writer="w", lease=5).append(batch)
    entry = await read_entry(store, "resp_1", 1)
    (stored,) = await store.scan(EVENTS, "resp_1")
    await store.close()

    assert entry is not None
    assert entry.batch.data == Batch.of(told).data
    assert len(stored.body["sse"]) < 5_000


def essay(characters: int) -> list[ModelEvent | Any]:
    """An answer that is written for a while."""
    words = [step for _ in range(20) for step in (TextDelta(0, "é\n" + "x" * (characters // 20)), 0.01)]
    return [ItemStarted(0, "message"), *words, ItemDone(0), Finished(usage=Usage(output_tokens=9), model="m")]


@pytest.mark.parametrize("characters", [700_000, 1_800_000])
async def test_a_long_answer_is_stored_as_it_was_shown(make_app: MakeApp, characters: int) -> None:
    app = make_app(ScriptedModel([essay(characters)]), **QUICK)
    live = await begin(app, "hi")
    async with asyncio.timeout(10):
        shown = [event async for batch in follow_live(app, CALLER.owner, live) for event in batch.events]

    assert live.record.status == "completed"
    assert await events(app, live.record.id) == shown


async def test_the_second_half_of_an_answer_is_stored_once_with_its_end() -> None:
    """While nobody reads, words are written seldom, and so many with the end."""
    store = SqliteStore(":memory:", ManualClock())
    half = 'é "\n' + "x" * 900_000
    part: dict[str, Any] = {"type": "output_text", "text": f"y{half}{half}", "annotations": [], "logprobs": []}
    batch = Batch.of(
        [
            event("output_text.delta", 0, delta=half, logprobs=[]),
            event("output_text.done", 1, text=part["text"], logprobs=[]),
            event("content_part.done", 2, part=part),
        ]
    )
    await Journal(store, "resp_1", ManualClock(), writer="w", lease=5).append(batch)
    entry = await read_entry(store, "resp_1", 1)
    await store.close()

    assert entry is not None
    assert entry.batch.data == batch.data


async def test_a_long_call_of_a_tool_is_stored_as_it_was_shown(make_app: MakeApp) -> None:
    app = make_app(ScriptedModel([calls(("write", "{" + " " * 1_000_000 + "}"))]))
    live = await begin(app, "hi", tools=[{"type": "function", "name": "write", "parameters": {}}])
    shown = [event async for batch in follow_live(app, CALLER.owner, live) for event in batch.events]

    assert live.record.status == "completed"
    assert await events(app, live.record.id) == shown


@pytest.mark.parametrize("characters", [2_500_000])
async def test_an_answer_whose_end_cannot_be_stored_ends_all_the_same(make_app: MakeApp, characters: int) -> None:
    app = make_app(ScriptedModel([essay(characters)]), **QUICK)
    live = await begin(app, "hi")
    async with asyncio.timeout(10):
        shown = [event async for batch in follow_live(app, CALLER.owner, live) for event in batch.events]

    assert (live.record.status, (live.record.error or {})["message"]) == ("failed", TOO_LARGE)
    assert [each["sequence_number"] for each in shown] == list(range(len(shown)))
    assert shown[-1]["type"] == "response.failed"
    assert await events(app, live.record.id) == shown


async def test_an_answer_with_many_log_probabilities_is_stored_as_it_was_shown(make_app: MakeApp) -> None:
    app = make_app(ScriptedModel([answer(600)]))
    live = await begin(app, "hi", **ASKED)
    shown = [event async for batch in follow_live(app, CALLER.owner, live) for event in batch.events]

    assert live.record.status == "completed"
    assert await events(app, live.record.id) == shown


async def test_a_turn_whose_record_is_too_large_fails_once_and_is_charged(make_app: MakeApp) -> None:
    model = ScriptedModel([answer(1500)])
    app = make_app(model)
    turn = await ask(app, "hi", **ASKED)

    assert (turn.status, (turn.error or {})["message"]) == ("failed", TOO_LARGE)
    assert text_of(turn) == " word00" * 1500
    assert len(model.requests) == 1
    assert await used(app) == Spent(turns=1, input_tokens=10, output_tokens=1500)
    seen = await events(app, turn.id)
    assert [each["sequence_number"] for each in seen] == list(range(len(seen)))
    assert seen[-1]["type"] == "response.failed"


async def test_a_turn_whose_journal_is_too_large_fails_once_and_is_charged(make_app: MakeApp) -> None:
    model = ScriptedModel([answer(1500)])
    app = make_app(model, **QUICK)
    live = await begin(app, "hi", **ASKED)
    shown = [event async for batch in follow_live(app, CALLER.owner, live) for event in batch.events]

    assert (live.record.status, (live.record.error or {})["message"]) == ("failed", TOO_LARGE)
    assert len(model.requests) == 1
    assert await used(app) == Spent(turns=1, input_tokens=10, output_tokens=1500)
    assert [each["sequence_number"] for each in shown] == list(range(len(shown)))
    assert shown[-1]["type"] == "response.failed"
    assert await events(app, live.record.id) == shown


async def test_a_turn_that_cannot_be_journalled_in_the_middle_fails_once_and_is_charged(make_app: MakeApp) -> None:
    async def call(_: dict[str, Any]) -> str:
        return "x" * MAX_BYTES

    tool = ServerTool(name="read", description="Reads.", parameters={"type": "object"}, call=call)
    model = ScriptedModel([calls(("read", "{}")), [ItemStarted(0, "message"), TextDelta(0, "It"), 30.0, ItemDone(0)]])
    app = make_app(model, tools=ToolRegistry({"read": tool}), **QUICK)
    live = await begin(app, "go", tools=[{"type": "mcp", "server_label": "companion"}])
    shown = [event async for batch in follow_live(app, CALLER.owner, live) for event in batch.events]

    assert (live.record.status, (live.record.error or {})["message"]) == ("failed", TOO_LARGE)
    assert len(model.requests) == 2
    assert [item["status"] for item in live.record.output] == ["incomplete"]
    assert (await used(app)).input_tokens > 0
    assert [each["sequence_number"] for each in shown] == list(range(len(shown)))
    assert shown[-1]["type"] == "response.failed"


async def test_a_turn_whose_input_alone_fills_its_batch_ends_all_the_same(make_app: MakeApp) -> None:
    """Its end is a little larger than its beginning."""
    app = make_app(ScriptedModel([says("yes")]))
    live = await begin(app, "go")
    await live.finished()
    stored = await app.store.read(STATE, CALLER.owner, live.record.id)
    assert stored is not None
    item = live.record.input[0]
    filled = {**item, "content": [{**item["content"][0], "text": "x" * 3_900} for _ in range(MAX_BYTES // 4_000)]}
    turn = live.record.model_copy(update={"input": [filled] * 2})
    ledger = Ledger(app.store, CALLER.owner, turn_etag=stored.etag)
    with pytest.raises(TurnTaken):
        await ledger.commit(turn, spent=Spent(turns=1), model="m", now=app.clock.now(), leave=lambda usage: usage)
    ended = (await get_turn(app, CALLER.owner, turn.id)).record

    assert (ended.status, ended.input, ended.output) == ("failed", [], [])
