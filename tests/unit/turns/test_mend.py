"""Answers that break off in the middle, or with their host: mended, never spliced."""

import asyncio
from collections.abc import Sequence
from typing import Any

from shared.app import App
from shared.conversations.records import TurnRecord
from shared.errors import InvalidRequest, ModelTimeout, UpstreamError
from shared.models.base import ArgumentsDelta, Finished, ItemDone, ItemStarted, ReasoningDelta, TextDelta
from shared.models.deployment import Capabilities, Deployment, Route
from shared.models.router import Router
from shared.models.scripted import USAGE, ScriptedModel, Step, says
from shared.turns.begin import begin_turn
from shared.turns.events import fold
from shared.turns.follow import finished
from shared.turns.prepare import TurnRequest
from shared.turns.takeover import take_over
from shared.wire.responses import CreateResponse, render_response
from tests.unit.turns.asking import CALLER, ask, conversation, events, text_of
from tests.unit.turns.conftest import MakeApp

CUT = UpstreamError("cut", code="upstream_cut")
HALF: Step = [ItemStarted(0, "message"), TextDelta(0, "The answer "), TextDelta(0, "is "), CUT]


def routed(make_app: MakeApp, steps: Sequence[Step], *, prefix: bool = False) -> tuple[App, ScriptedModel]:
    """An app whose router tries again, and the model behind it."""
    model = ScriptedModel(steps)
    only = Deployment(name="only", upstream="m", model=model, capabilities=Capabilities(prefix=prefix))
    app = make_app(ScriptedModel(), COMPANION_LEASE="0.3")
    object.__setattr__(app, "models", Router([Route(id="companion", deployments=(only,))]))
    return app, model


def messages(turn: TurnRecord) -> list[tuple[str, str]]:
    return [(item["status"], item["content"][0]["text"]) for item in turn.output if item["type"] == "message"]


async def check_replay(app: App, turn: TurnRecord) -> list[dict[str, Any]]:
    """What a stream showed is what is stored."""
    shown = await events(app, turn.id)
    assert fold(shown).items == turn.output
    assert [event["sequence_number"] for event in shown] == list(range(len(shown)))
    return shown


async def test_what_broke_off_is_closed_and_the_answer_begins_again_in_a_new_item(make_app: MakeApp) -> None:
    app, model = routed(make_app, [HALF, says("The answer is 42")])

    turn = await ask(app, "go")

    assert turn.status == "completed"
    assert messages(turn) == [("incomplete", "The answer is "), ("completed", "The answer is 42")]
    assert model.requests[1].prefix is None
    assert model.requests[1].items == model.requests[0].items
    assert "broke off" in render_response(turn)["notes"][0]
    await check_replay(app, turn)


async def test_torn_text_is_not_part_of_what_later_turns_see(make_app: MakeApp) -> None:
    app, model = routed(make_app, [HALF, says("whole"), says("next")])
    conv = await conversation(app)
    await ask(app, "go", conversation=conv)
    await ask(app, "on", conversation=conv)

    assert [item["content"][0]["text"] for item in model.requests[2].items] == ["go", "whole", "on"]


async def test_where_the_deployment_can_the_open_text_goes_on(make_app: MakeApp) -> None:
    app, model = routed(make_app, [HALF, says("42", "!")], prefix=True)

    turn = await ask(app, "go")

    assert messages(turn) == [("completed", "The answer is 42!")]
    assert model.requests[1].prefix == "The answer is "
    assert [item["role"] for item in model.requests[1].items] == ["user"]
    assert turn.torn == []
    shown = await check_replay(app, turn)
    joined = "".join(event["delta"] for event in shown if event["type"] == "response.output_text.delta")
    assert joined == text_of(turn) == "The answer is 42!"


async def test_it_may_think_before_it_goes_on(make_app: MakeApp) -> None:
    further: Step = [
        ItemStarted(0, "reasoning"),
        ReasoningDelta(0, "hm"),
        ItemDone(0),
        ItemStarted(1, "message"),
        TextDelta(1, "42"),
        ItemDone(1),
        Finished(usage=USAGE),
    ]
    app, _ = routed(make_app, [HALF, further], prefix=True)

    turn = await ask(app, "go")

    assert messages(turn) == [("completed", "The answer is 42")]
    assert [item["type"] for item in turn.output] == ["message", "reasoning"]


async def test_a_format_that_is_enforced_begins_again(make_app: MakeApp) -> None:
    app, model = routed(make_app, [HALF, says("{}")], prefix=True)

    create = CreateResponse.model_validate({"input": "go", "text": {"format": {"type": "json_object"}}})
    live = await begin_turn(app, CALLER, TurnRequest(create=create))
    turn = await finished(app, CALLER.owner, live)

    assert model.requests[1].prefix is None
    assert messages(turn)[-1] == ("completed", "{}")


async def test_it_breaks_off_three_times_and_the_turn_fails(make_app: MakeApp) -> None:
    app, model = routed(make_app, [HALF, HALF, HALF])

    turn = await ask(app, "go")

    assert (turn.status, len(model.requests)) == ("failed", 3)
    assert {status for status, _ in messages(turn)} == {"incomplete"}


async def test_a_call_the_client_may_be_running_is_not_asked_for_twice(make_app: MakeApp) -> None:
    called: Step = [ItemStarted(0, "function_call", "f", "c1"), ArgumentsDelta(0, "{}"), ItemDone(0), CUT]
    app, model = routed(make_app, [called])

    turn = await ask(app, "go", tools=[{"type": "function", "name": "f", "parameters": {}}])

    assert (turn.status, len(model.requests)) == ("failed", 1)


async def test_a_refused_request_fails_at_once(make_app: MakeApp) -> None:
    app, model = routed(make_app, [[InvalidRequest("no", param="input")]])

    turn = await ask(app, "go")

    assert (turn.status, len(model.requests)) == ("failed", 1)


async def test_what_was_lost_is_counted(make_app: MakeApp) -> None:
    broken, whole = routed(make_app, [HALF, says("42")])[0], routed(make_app, [says("42")])[0]

    lost, kept = await ask(broken, "go"), await ask(whole, "go")

    assert lost.usage
    assert kept.usage
    assert lost.usage["input_tokens"] > kept.usage["input_tokens"]


async def test_silence_is_a_break_too(make_app: MakeApp) -> None:
    app, _ = routed(make_app, [[*HALF[:-1], ModelTimeout("silent")], says("42")])

    assert (await ask(app, "go")).status == "completed"


async def test_a_take_over_goes_on_with_the_text_that_was_shown_where_the_deployment_can(make_app: MakeApp) -> None:
    first, _ = routed(make_app, [[*HALF[:-1], 1000.0]], prefix=True)
    second, model = routed(make_app, [says("42")], prefix=True)
    live = await begin_turn(first, CALLER, TurnRequest(create=CreateResponse(input="go")))
    async for batch in live.follow():
        if any(event["type"] == "response.output_text.delta" for event in batch.events):
            break
    await first.live.drain(0.05)
    await asyncio.sleep(0.35)

    taken = await take_over(second, CALLER.owner, live.record.id)
    assert taken is not None
    turn = await taken.finished()

    assert model.requests[0].prefix == "The answer is "
    assert messages(turn) == [("completed", "The answer is 42")]
    assert "gone on with" in turn.notes[-1]
    await check_replay(second, turn)
