"""A conversation may outgrow the model's window; the turn before the call makes room."""

from typing import Any

import orjson
import pytest
from pydantic import TypeAdapter

from shared.app import App
from shared.conversations.repository import PAGE
from shared.conversations.service import add_items, update_conversation
from shared.errors import InvalidRequest, RateLimited
from shared.models.base import SUMMARY_INSTRUCTIONS, SUMMARY_MARKER, ModelRequest
from shared.models.deployment import Deployment, Route
from shared.models.offline import OfflineModel
from shared.models.router import Router
from shared.models.scripted import ScriptedModel, says
from shared.storage.base import STATE, Delete, Stored
from shared.turns.context import SUMMARY_CALLS, estimate_tokens
from shared.turns.follow import get_turn
from shared.wire.items import InputItem
from tests.unit.turns.asking import CALLER, ask, begin, conversation, text_of
from tests.unit.turns.conftest import MakeApp

SMALL = {"COMPANION_CONTEXT_TOKENS": "600", "COMPANION_CONTEXT_TURNS": "10"}


class Recorded(OfflineModel):
    """The offline model, and what it was asked."""

    def __init__(self) -> None:
        super().__init__(word_delay=0.0)
        self.requests: list[ModelRequest] = []

    def stream(self, request: ModelRequest):  # type: ignore[no-untyped-def]
        self.requests.append(request)
        return super().stream(request)


async def test_what_was_said_long_ago_lives_on_in_the_summary(make_app: MakeApp) -> None:
    model = Recorded()
    app = make_app(model, **SMALL)
    conv = await conversation(app)
    await ask(app, "My name is Ada.", conversation=conv)
    for number in range(30):
        await ask(app, f"Say something about number {number}.", conversation=conv)

    answer = await ask(app, "What is my name?", conversation=conv)

    assert "Ada" in text_of(answer)


async def test_the_window_is_never_exceeded(make_app: MakeApp) -> None:
    model = Recorded()
    app = make_app(model, **SMALL)
    conv = await conversation(app)
    for number in range(30):
        await ask(app, f"Message {number}: " + "words " * 20, conversation=conv)

    answers = [request for request in model.requests if request.instructions != SUMMARY_INSTRUCTIONS]
    assert len(answers) == 30
    assert max(estimate_tokens(request.items) for request in answers) <= 600


async def test_instructions_and_tools_count_towards_the_window(make_app: MakeApp) -> None:
    model, window = Recorded(), 3000
    app = make_app(model)
    only = Deployment(name="only", upstream="m", model=model)
    object.__setattr__(app, "models", Router([Route(id="companion", deployments=(only,), window=window)]))
    conv = await conversation(app)
    tool = {"type": "function", "name": "f", "description": "What it does. " * 100, "parameters": {"type": "object"}}
    fixed = {"instructions": "Be kind. " * 400, "tools": [tool], "max_output_tokens": 200}
    for number in range(12):
        await ask(app, f"Message {number}: " + "words " * 100, conversation=conv, **fixed)

    answers = [request for request in model.requests if request.instructions != SUMMARY_INSTRUCTIONS]
    taken = [estimate_tokens([*each.items, {"instructions": each.instructions}, *each.tools]) for each in answers]
    assert len(answers) == 12
    assert max(taken) <= window - 200


async def test_instructions_that_leave_no_room_are_refused(make_app: MakeApp) -> None:
    app = make_app(ScriptedModel())
    only = Deployment(name="only", upstream="m", model=ScriptedModel())
    object.__setattr__(app, "models", Router([Route(id="companion", deployments=(only,), window=1000)]))

    with pytest.raises(InvalidRequest) as caught:
        await ask(app, "Hello", instructions="Be kind. " * 500)
    assert caught.value.code == "context_length_exceeded"


async def test_the_summary_is_stored_on_the_turn_and_made_once(make_app: MakeApp) -> None:
    said = [says("x" * 400) for _ in range(4)]
    model = ScriptedModel([*said, says("in short"), says("on"), says("and on")])
    app = make_app(model, **SMALL)
    conv = await conversation(app)
    for number in range(4):
        await ask(app, f"{number}" * 100, conversation=conv)
    fifth = await ask(app, "five", conversation=conv)
    await ask(app, "six", conversation=conv)

    stored = (await get_turn(app, CALLER.owner, fifth.id)).record
    assert stored.summary is not None
    assert stored.summary.text == "in short"
    assert model.requests[4].instructions == SUMMARY_INSTRUCTIONS
    heads = [request.items[0].get("encrypted_content") for request in model.requests[5:]]
    assert heads == [f"{SUMMARY_MARKER}in short"] * 2


async def test_a_summary_that_fails_costs_the_oldest_turns_and_not_the_answer(make_app: MakeApp) -> None:
    said = [says("x" * 400) for _ in range(4)]
    model = ScriptedModel([*said, [InvalidRequest("no")], says("still here")])
    app = make_app(model, **SMALL)
    conv = await conversation(app)
    for number in range(4):
        await ask(app, f"{number}" * 100, conversation=conv)

    turn = await ask(app, "five", conversation=conv)

    assert (turn.status, text_of(turn), turn.summary) == ("completed", "still here", None)


async def test_tokens_of_the_summary_are_counted(make_app: MakeApp) -> None:
    said = [says("x" * 400) for _ in range(4)]
    app = make_app(ScriptedModel([*said, says("in short"), says("on")]), **SMALL)
    conv = await conversation(app)
    for number in range(4):
        await ask(app, f"{number}" * 100, conversation=conv)

    turn = await ask(app, "five", conversation=conv)

    assert turn.usage is not None
    assert turn.usage["input_tokens"] == 20


async def test_the_money_of_the_summary_is_held_before_it_is_made(make_app: MakeApp) -> None:
    """Else many at once would each find the day's money untouched."""
    plans = {"default": {"usd_per_day": 0.05, "usd_per_month": 1, "tokens_per_minute": None}}
    environ = {"COMPANION_PLANS": orjson.dumps(plans).decode(), "COMPANION_PRICES": '{"*": {"input": 2, "output": 0}}'}
    app = make_app(ScriptedModel([[*says("in")[:2], 1.0, *says("short")[1:]], says("done")]), **SMALL, **environ)
    first, second = [await _long(app, words=2000) for _ in range(2)]
    running = await begin(app, "go on", conversation=first, max_output_tokens=50)
    with pytest.raises(RateLimited, match="under way hold the rest"):
        await begin(app, "go on", conversation=second, max_output_tokens=50)
    await running.finished()


async def test_a_summary_takes_no_more_calls_than_its_bound(make_app: MakeApp) -> None:
    model = Recorded()
    app = make_app(model, **SMALL)
    await ask(app, "go on", conversation=await _long(app, words=25_000))

    asked = [request for request in model.requests if request.instructions == SUMMARY_INSTRUCTIONS]
    assert len(asked) == SUMMARY_CALLS
    assert "Message 0" not in str(asked[0].items)


async def _long(app: App, *, words: int) -> str:
    conv = await conversation(app)
    for number in range(10):
        await add_items(app, CALLER.owner, conv, _said(f"Message {number}: " + "words " * words))
    return conv


async def test_what_lies_behind_many_versions_of_a_turn_is_summarised_too(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of them than one page holds, and the one that was gone on from is the last of them."""
    model = Recorded()
    app = make_app(model, **SMALL)
    conv = await conversation(app)
    root = await ask(app, "My name is Ada.", conversation=conv)
    versions = [(await ask(app, "again", conversation={"id": conv, "parent": root.id})).id for _ in range(PAGE + 5)]
    await update_conversation(app, CALLER.owner, conv, head=min(versions))
    for number in range(10):
        await add_items(app, CALLER.owner, conv, _said(f"Message {number}: " + "words " * 20))
    _at_most(20, app, monkeypatch)
    turn = await ask(app, "What is my name?", conversation=conv)

    asked = [request for request in model.requests if request.instructions == SUMMARY_INSTRUCTIONS]
    assert turn.status == "completed"
    assert any("My name is Ada." in str(request.items) for request in asked)


async def test_a_history_with_turns_missing_is_summarised_as_far_as_it_goes(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app(Recorded(), **SMALL)
    conv = await conversation(app)
    first, _, third = [await ask(app, text, conversation=conv) for text in ("one", "two", "three")]
    for number in range(10):
        await add_items(app, CALLER.owner, conv, _said(f"Message {number}: " + "words " * 20))
    await app.store.batch(STATE, CALLER.owner, [Delete(first.id), Delete(third.id)])
    _at_most(20, app, monkeypatch)
    turn = await ask(app, "go on", conversation=conv)

    assert turn.status == "completed"
    assert turn.summary is not None


def _said(text: str) -> list[InputItem]:
    return TypeAdapter(list[InputItem]).validate_python([{"type": "message", "role": "user", "content": text}])


def _at_most(queries: int, app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """Patched, because a loop without an end does not yield to a timeout: in memory, no query waits."""
    left, real = iter(range(queries)), app.store.query

    async def query(*what: Any) -> list[Stored]:
        assert next(left, None) is not None, "it reads and reads"
        return await real(*what)

    monkeypatch.setattr(app.store, "query", query)
