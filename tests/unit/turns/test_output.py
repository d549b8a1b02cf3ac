"""Whatever a model says, in whatever pieces: the events add up to the items."""

from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from shared.conversations.records import TurnRecord
from shared.models.base import (
    ArgumentsDelta,
    ItemDone,
    ItemStarted,
    ModelEvent,
    ReasoningDelta,
    RefusalDelta,
    SummaryDelta,
    TextDelta,
)
from shared.turns.events import Batch, decode, fold
from shared.turns.output import FIRST_SEQUENCE, Output
from shared.turns.replay import middle

TOKEN = "f" * 32
TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)


@st.composite
def speech(draw: st.DrawFn) -> list[ModelEvent]:
    """The events of a model that answers with a few items, one after the other."""
    said: list[ModelEvent] = []
    for key in range(draw(st.integers(0, 4))):
        kind = draw(
            st.sampled_from(["message", "refusal", "reasoning", "thought", "function_call", "custom_tool_call"])
        )
        type_: Any = {"refusal": "message", "thought": "reasoning"}.get(kind, kind)
        said.append(ItemStarted(key, type_, "tool" if "call" in kind else "", f"call_{key}" if "call" in kind else ""))
        for piece in draw(st.lists(TEXT, max_size=4)):
            said.append(_delta(kind, key, piece, draw(st.integers(0, 1))))
        said.append(ItemDone(key))
    return said


def _delta(kind: str, key: int, piece: str, part: int) -> ModelEvent:
    match kind:
        case "message":
            return TextDelta(key, piece)
        case "refusal":
            return RefusalDelta(key, piece)
        case "reasoning":
            return SummaryDelta(key, part, piece)
        case "thought":
            return ReasoningDelta(key, piece)
        case _:
            return ArgumentsDelta(key, piece)


def spoken(said: list[ModelEvent], drains: set[int]) -> tuple[Output, list[Batch]]:
    """The output of a speech, drained after the events at these places."""
    output, batches = Output(TOKEN), list[Batch]()
    for place, event in enumerate(said):
        output.feed(event)
        if place in drains and output.is_dirty:
            batches.append(Batch.of(output.drain()))
    if output.is_dirty:
        batches.append(Batch.of(output.drain()))
    return output, batches


@given(speech(), st.sets(st.integers(0, 30)))
def test_folded_events_are_the_items(said: list[ModelEvent], drains: set[int]) -> None:
    output, batches = spoken(said, drains)
    events = [event for batch in batches for event in decode(batch.data)]

    assert fold(events).items == output.items
    assert [event["sequence_number"] for event in events] == list(range(FIRST_SEQUENCE, output.sequence))


@given(speech(), st.sets(st.integers(0, 30)), st.integers(-1, 40))
def test_a_stream_cut_anywhere_goes_on_without_gap(said: list[ModelEvent], drains: set[int], after: int) -> None:
    _, batches = spoken(said, drains)
    rest = [part for batch in batches if (part := batch.behind(after))]
    numbers = [event["sequence_number"] for batch in rest for event in decode(batch.data)]

    assert all(after < number for number in numbers)
    assert all(second == first + 1 for first, second in pairwise(numbers))
    whole = [event for batch in batches for event in decode(batch.data)]
    assert numbers == [event["sequence_number"] for event in whole if event["sequence_number"] > after]


@given(speech(), st.integers(0, 30), st.sets(st.integers(0, 30)))
def test_another_writer_closes_what_was_torn(said: list[ModelEvent], died: int, drains: set[int]) -> None:
    """The first writer dies after some events; the second folds what was journalled and closes it."""
    drained = {place for place in drains if place < died}
    _, batches = spoken(said[:died], drained | ({died - 1} if died else set()))
    events = [event for batch in batches for event in decode(batch.data)]
    output = Output.resumed(TOKEN, fold(events), sequence=FIRST_SEQUENCE + len(events))
    output.close("incomplete")
    events += output.drain()

    assert fold(events).items == output.items
    assert all(item["status"] in ("completed", "incomplete") for item in output.items)
    assert [event["sequence_number"] for event in events] == list(range(FIRST_SEQUENCE, output.sequence))


@given(speech())
def test_a_record_tells_its_events_again(said: list[ModelEvent]) -> None:
    output, _ = spoken(said, set())
    turn = TurnRecord(
        id=f"resp_{TOKEN}", group="g", sort="s", depth=0, status="completed", created_at=0.0, output=output.items
    )
    told = middle(turn)

    assert fold(decode(told.data) if told else []).items == output.items
