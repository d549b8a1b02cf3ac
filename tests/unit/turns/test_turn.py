"""One turn, from acceptance to commit."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import pytest

from shared.app import App
from shared.conversations.records import TurnRecord
from shared.conversations.service import list_items
from shared.errors import Conflict, InvalidRequest, NotFound, Unprocessable
from shared.models.base import Finished, ItemStarted, ModelEvent, ModelRequest, TextDelta, Usage
from shared.models.scripted import ScriptedModel, calls, says
from shared.storage.base import EVENTS, STATE, Delete, Stored, Upsert
from shared.tools.registry import ServerTool, ToolRegistry
from shared.turns import cancel
from shared.turns.cancel import cancel_turn, delete_turn
from shared.turns.events import Batch, fold
from shared.turns.follow import finished, follow_live, get_turn
from shared.usage.meter import month_id
from shared.usage.records import UsageRecord
from tests.unit.turns.asking import CALLER, ask, begin, conversation, events, text_of
from tests.unit.turns.conftest import MakeApp


async def test_a_turn_ends_completed_in_storage(make_app: MakeApp) -> None:
    app = make_app(ScriptedModel([says("Hel", "lo")]))

    turn = await ask(app, "Hi")

    stored = (await get_turn(app, CALLER.owner, turn.id)).record
    assert (stored.status, text_of(stored), stored) == ("completed", "Hello", turn)


async def test_a_replay_shows_what_the_first_reader_saw(make_app: MakeApp) -> None:
    app = make_app(ScriptedModel([says("one ", "two ", "three")]))
    live = await begin(app, "count")
    seen = [event async for batch in live.follow() for event in batch.events]

    assert await events(app, live.record.id) == seen


async def test_numbers_grow_by_one_from_zero_to_the_terminal_event(make_app: MakeApp) -> None:
    app = make_app(ScriptedModel([[*says("a")[:2], 0.05, *says("b")[1:]]]))
    live = await begin(app, "go")
    seen = [event async for batch in live.follow() for event in batch.events]

    assert [event["sequence_number"] for event in seen] == list(range(len(seen)))
    assert seen[-1]["type"] == "response.completed"


@pytest.mark.parametrize("is_kept", [True, False])
async def test_a_turn_is_settled_though_another_one_read_the_usage_before_it(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, *, is_kept: bool
) -> None:
    app = make_app(ScriptedModel([[*says("a")[:2], 0.1, *says("b")[1:]]]))
    id_, read, has_read, may_go_on = month_id(app.clock.now()), app.store.read, asyncio.Event(), asyncio.Event()

    async def slow(container: str, partition: str, asked: str) -> Stored | None:
        found = await read(container, partition, asked)
        if asked == id_ and not has_read.is_set():
            has_read.set()
            await may_go_on.wait()
        return found

    monkeypatch.setattr(app.store, "read", slow)
    late = asyncio.create_task(begin(app))
    await has_read.wait()
    live = await begin(app, "Hi", store=is_kept)
    may_go_on.set()
    with pytest.raises(InvalidRequest):
        await late
    await live.finished()

    found = await read(STATE, CALLER.owner, id_)
    assert found is not None
    usage = UsageRecord.of(found.body)
    assert not usage.reserved
    assert sum(spent.turns for day in usage.days.values() for spent in day.values()) == 1


async def test_resuming_gives_only_later_events(make_app: MakeApp) -> None:
    app = make_app(ScriptedModel([says("one")]))
    live = await begin(app, "go")
    seen = [event async for batch in live.follow() for event in batch.events]

    assert await events(app, live.record.id, after=3) == seen[4:]
    assert await events(app, live.record.id, after=len(seen)) == []


async def test_a_plain_turn_that_nobody_reads_replays_from_its_record(make_app: MakeApp) -> None:
    app = make_app(ScriptedModel([says("quiet")]))
    turn = await ask(app, "go")

    replayed = await events(app, turn.id)

    assert [event["sequence_number"] for event in replayed] == list(range(len(replayed)))
    assert fold(replayed).items == turn.output
    assert replayed[-1]["response"]["output"] == turn.output


async def test_the_conversation_grows_by_input_and_output(make_app: MakeApp) -> None:
    app = make_app(ScriptedModel([says("one"), says("two")]))
    conv = await conversation(app)
    await ask(app, "first", conversation=conv)
    await ask(app, "second", conversation=conv)

    items, has_more = await list_items(app, CALLER.owner, conv, after=None, order="asc", limit=10)

    assert [item["content"][0]["text"] for item in items] == ["first", "one", "second", "two"]
    assert not has_more


async def test_the_model_sees_the_conversation_so_far(make_app: MakeApp) -> None:
    model = ScriptedModel([says("one"), says("two")])
    app = make_app(model)
    conv = await conversation(app)
    await ask(app, "first", conversation=conv)
    await ask(app, "second", conversation=conv)

    assert [item["content"][0]["text"] for item in model.requests[1].items] == ["first", "one", "second"]


async def test_a_branch_does_not_see_its_sibling(make_app: MakeApp) -> None:
    model = ScriptedModel([says("root"), says("left"), says("right"), says("on")])
    app = make_app(model)
    conv = await conversation(app)
    root = await ask(app, "r", conversation=conv)
    await ask(app, "l", conversation=conv)
    right = await ask(app, "x", conversation={"id": conv, "parent": root.id})
    await ask(app, "y", conversation=conv)

    shown = [item["content"][0]["text"] for item in model.requests[3].items]
    ascending, _ = await list_items(app, CALLER.owner, conv, after=None, order="asc", limit=50)
    descending, _ = await list_items(app, CALLER.owner, conv, after=None, order="desc", limit=50)
    assert shown == ["r", "root", "x", "right", "y"]
    assert [item["content"][0]["text"] for item in ascending] == ["r", "root", "x", "right", "y", "on"]
    assert descending == ascending[::-1]
    assert right.parent == root.id


async def test_a_chain_forks_without_a_conversation(make_app: MakeApp) -> None:
    model = ScriptedModel([says("root"), says("left"), says("right")])
    app = make_app(model)
    root = await ask(app, "r")
    await ask(app, "l", previous_response_id=root.id)
    await ask(app, "x", previous_response_id=root.id)

    assert [item["content"][0]["text"] for item in model.requests[2].items] == ["r", "root", "x"]


async def test_a_failed_turn_leaves_the_conversation_as_it_was(make_app: MakeApp) -> None:
    app = make_app(ScriptedModel([[InvalidRequest("no")], says("fine")]))
    conv = await conversation(app)
    failed = await ask(app, "first", conversation=conv)
    await ask(app, "again", conversation=conv)

    items, _ = await list_items(app, CALLER.owner, conv, after=None, order="asc", limit=10)

    assert failed.status == "failed"
    assert failed.error == {"code": "invalid_prompt", "message": "no"}
    assert [item["content"][0]["text"] for item in items] == ["again", "fine"]


async def test_a_bug_in_a_model_ends_the_turn_and_is_not_told(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app(Broken())
    turn = await ask(app, "go")

    assert turn.status == "failed"
    message = f"The server had an error. Quote {turn.id} when you report it."
    assert turn.error == {"code": "server_error", "message": message}
    assert "turn.broke" in caplog.text
    assert "ZeroDivisionError" in caplog.text


class Broken(ScriptedModel):
    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent]:
        del request
        yield ItemStarted(0, "message")
        raise ZeroDivisionError("secret detail")


async def test_usage_is_settled_and_no_reservation_stays(make_app: MakeApp) -> None:
    app = make_app(ScriptedModel([says("a"), says("b")]))
    await ask(app, "one")
    await ask(app, "two", store=False)

    stored = await app.store.read(STATE, CALLER.owner, month_id(app.clock.now()))
    assert stored is not None
    usage = UsageRecord.model_validate(stored.body)
    day = next(iter(usage.days.values()))
    assert usage.reserved == {}
    assert (day["companion"].turns, day["companion"].input_tokens, day["companion"].output_tokens) == (2, 20, 10)


async def test_a_send_outside_storage_leaves_no_record(make_app: MakeApp) -> None:
    app = make_app(ScriptedModel([says("a")]))
    turn = await ask(app, "one", store=False)

    with pytest.raises(NotFound):
        await get_turn(app, CALLER.owner, turn.id)


class TestSends:
    """The same send twice is one turn."""

    async def test_a_key_joins_the_running_turn(self, make_app: MakeApp) -> None:
        app = make_app(ScriptedModel([[*says("a")[:2], 0.1, *says("b")[1:]]]))
        first, second = await asyncio.gather(
            *(begin(app, "once", send_key="k", body_hash="h") for _ in range(2)),
        )
        assert first.record.id == second.record.id
        assert text_of(await finished(app, CALLER.owner, second)) == "ab"

    async def test_a_key_finds_the_finished_turn_on_another_host(self, make_app: MakeApp) -> None:
        here, there = make_app(ScriptedModel([says("a")])), make_app(ScriptedModel())
        turn = await ask(here, "once", send_key="k", body_hash="h")
        assert await ask(there, "once", send_key="k", body_hash="h") == turn

    async def test_another_body_under_the_key_is_refused(self, make_app: MakeApp) -> None:
        app = make_app(ScriptedModel([says("a")]))
        await ask(app, "once", send_key="k", body_hash="h")
        with pytest.raises(Unprocessable) as caught:
            await ask(app, "twice", send_key="k", body_hash="other")
        assert caught.value.code == "idempotency_key_reused"

    async def test_a_key_finds_its_turn_after_the_conversation_went_on(self, make_app: MakeApp) -> None:
        app = make_app(ScriptedModel([says("a"), says("b")]))
        conv = await conversation(app)
        first = await ask(app, "once", conversation=conv, send_key="k", body_hash="h")
        await ask(app, "next", conversation=conv)
        assert (await ask(app, "once", conversation=conv, send_key="k", body_hash="h")).id == first.id

    async def test_a_retry_without_a_key_is_known_by_its_body(self, make_app: MakeApp) -> None:
        app = make_app(ScriptedModel([says("a"), says("b")]))
        first = await ask(app, "once", body_hash="h")
        assert (await ask(app, "once", body_hash="h", is_retry=True)).id == first.id
        assert (await ask(app, "once", body_hash="h")).id != first.id

    async def test_an_equal_send_to_a_busy_conversation_joins(self, make_app: MakeApp) -> None:
        app = make_app(ScriptedModel([[*says("a")[:2], 0.1, *says("b")[1:]]]))
        conv = await conversation(app)
        first = await begin(app, "once", conversation=conv, body_hash="h")
        second = await begin(app, "once", conversation=conv, body_hash="h")
        assert first.record.id == second.record.id
        await first.finished()

    async def test_a_different_send_to_a_busy_conversation_is_409(self, make_app: MakeApp) -> None:
        app = make_app(ScriptedModel([[*says("a")[:2], 0.1, *says("b")[1:]]]))
        conv = await conversation(app)
        first = await begin(app, "once", conversation=conv)
        with pytest.raises(Conflict) as caught:
            await begin(app, "other", conversation=conv)
        assert (caught.value.code, caught.value.param) == ("conversation_locked", "conversation")
        assert caught.value.retry_after
        await first.finished()


class TestCancel:
    async def test_keeps_what_was_said(self, make_app: MakeApp) -> None:
        app = make_app(ScriptedModel([[*says("so far")[:2], 30.0]]))
        live = await begin(app, "go")
        await _until_text(live.follow())
        record = await cancel_turn(app, CALLER.owner, live.record.id)
        assert (record.status, text_of(record)) == ("cancelled", "so far")
        assert record.output[0]["status"] == "incomplete"

    async def test_at_once_ends_it_too(self, make_app: MakeApp) -> None:
        """Nothing of the turn's task has waited yet."""
        app = make_app(ScriptedModel([[*says("so far")[:2], 30.0]]))
        live = await begin(app, "go")
        record = await asyncio.wait_for(cancel_turn(app, CALLER.owner, live.record.id), 5)
        assert (record.status, app.models.gate.in_flight) == ("cancelled", 0)
        assert app.live.find(CALLER.owner, live.record.id) is None

    async def test_from_another_host_ends_the_stream_here(self, make_app: MakeApp) -> None:
        here, there = make_app(ScriptedModel([[*says("so far")[:2], 30.0]])), make_app(ScriptedModel())
        live = await begin(here, "go")
        await _until_text(live.follow())
        seen = asyncio.create_task(_collect(here, live.record.id))
        record = await cancel_turn(there, CALLER.owner, live.record.id)
        last = (await asyncio.wait_for(seen, 5))[-1]
        assert record.status == "cancelled"
        assert (last["type"], last["response"]["status"]) == ("response.failed", "cancelled")
        assert await events(there, live.record.id) == await seen

    async def test_twice_gives_the_same_response(self, make_app: MakeApp) -> None:
        app = make_app(ScriptedModel([says("done")]))
        turn = await ask(app, "go")
        assert await cancel_turn(app, CALLER.owner, turn.id) == turn

    async def test_frees_the_conversation(self, make_app: MakeApp) -> None:
        app = make_app(ScriptedModel([[*says("so far")[:2], 30.0], says("next")]))
        conv = await conversation(app)
        live = await begin(app, "go", conversation=conv)
        await _until_text(live.follow())
        await cancel_turn(app, CALLER.owner, live.record.id)
        assert (await ask(app, "more", conversation=conv)).status == "completed"


class TestDelete:
    async def test_the_id_is_gone_and_the_descendants_stay(self, make_app: MakeApp) -> None:
        model = ScriptedModel([says("root"), says("child"), says("grandchild")])
        app = make_app(model)
        root = await ask(app, "r")
        child = await ask(app, "c", previous_response_id=root.id)
        await delete_turn(app, CALLER.owner, root.id)
        with pytest.raises(InvalidRequest):
            await ask(app, "x", previous_response_id=root.id)
        await ask(app, "g", previous_response_id=child.id)
        assert [item["content"][0]["text"] for item in model.requests[-1].items] == ["r", "root", "c", "child", "g"]

    async def test_nothing_stays_of_a_leaf(self, make_app: MakeApp) -> None:
        app = make_app(ScriptedModel([says("root")]))
        turn = await ask(app, "r")
        await delete_turn(app, CALLER.owner, turn.id)
        assert await app.store.read(STATE, CALLER.owner, turn.id) is None

    async def test_two_deletes_at_one_moment_are_one(self, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
        app = make_app(ScriptedModel([says("root")]))
        turn = await ask(app, "r")

        async def is_faster(app: App, owner: str, record: TurnRecord) -> bool:
            await app.store.batch(STATE, owner, [Delete(record.id)])
            return True

        monkeypatch.setattr(cancel, "_has_children", is_faster)
        await delete_turn(app, CALLER.owner, turn.id)
        assert await app.store.read(STATE, CALLER.owner, turn.id) is None

    async def test_a_running_turn_is_cancelled_first(self, make_app: MakeApp) -> None:
        model = ScriptedModel([[*says("so far")[:2], 30.0]])
        app = make_app(model)
        live = await begin(app, "go")
        await _until_text(live.follow())
        await delete_turn(app, CALLER.owner, live.record.id)
        assert model.closed_early == 1
        with pytest.raises(NotFound):
            await get_turn(app, CALLER.owner, live.record.id)

    @pytest.mark.parametrize("in_conversation", [True, False])
    async def test_who_reads_it_on_another_host_is_told(self, make_app: MakeApp, in_conversation: bool) -> None:
        """Never a stream that just stops: it ends with its terminal event, or with an error."""
        words = [TextDelta(0, f"word {number} ") for number in range(400)]
        model = ScriptedModel([[*says("a")[:1], *(step for word in words for step in (word, 0.02))]])
        here, there = make_app(model), make_app(ScriptedModel())
        place = {"conversation": await conversation(here)} if in_conversation else {}
        live = await begin(here, "go", **place)
        seen: list[Any] = []

        async def read() -> None:
            async for batch in follow_live(here, CALLER.owner, live):
                seen.extend(batch.events)

        reading = asyncio.create_task(read())
        await asyncio.sleep(0.6)
        assert len(seen) > 8
        await delete_turn(there, CALLER.owner, live.record.id)
        (failure,) = await asyncio.wait_for(asyncio.gather(reading, return_exceptions=True), 10)
        if isinstance(failure, NotFound):
            assert failure.code == "response_deleted"
        else:
            assert (failure, seen[-1]["type"]) == (None, "response.failed")


async def test_a_resumed_stream_whose_journal_has_expired_still_ends(make_app: MakeApp) -> None:
    """The events are told anew from the items, in fewer numbers than the client has seen."""
    words = [TextDelta(0, f"word {number} ") for number in range(20)]
    model = ScriptedModel([[*says("a")[:1], *(step for word in words for step in (word, 0.02)), *says("a")[-2:]]])
    app = make_app(model)
    live = await begin(app, "go")
    shown = [event async for batch in follow_live(app, CALLER.owner, live) for event in batch.events]
    for stored in await app.store.scan(EVENTS, live.record.id):
        await app.store.batch(EVENTS, live.record.id, [Delete(stored.body["id"])])
    after = shown[-2]["sequence_number"]
    found = await app.store.read(STATE, CALLER.owner, live.record.id)
    assert found is not None
    await app.store.batch(STATE, CALLER.owner, [Upsert({**found.body, "completed_at": app.clock.now() - 90_000})])

    rest = await events(app, live.record.id, after=after)
    assert [event["type"] for event in rest] == ["response.completed"]
    assert rest[0]["sequence_number"] > after


async def test_a_journal_that_has_begun_to_expire_is_not_replayed_with_a_gap(make_app: MakeApp) -> None:
    app = make_app(ScriptedModel([[*says("first ")[:2], 0.1, *says("second ")[1:2], 0.1, *says("third")[1:]]]))
    live = await begin(app, "go")
    async for _ in live.follow():
        pass
    entries = await app.store.scan(EVENTS, live.record.id)
    await app.store.batch(EVENTS, live.record.id, [Delete(entries[0].body["id"])])
    found = await app.store.read(STATE, CALLER.owner, live.record.id)
    assert found is not None
    await app.store.batch(STATE, CALLER.owner, [Upsert({**found.body, "completed_at": app.clock.now() - 90_000})])
    seen = await events(app, live.record.id)
    numbers = [event["sequence_number"] for event in seen]

    assert len(entries) > 2
    assert numbers == list(range(len(numbers)))
    assert "".join(event.get("delta", "") for event in seen) == "first second third"
    assert seen[-1]["type"] == "response.completed"


class TestTools:
    """Tools that the server runs."""

    async def test_the_model_is_called_again_with_the_output(self, make_app: MakeApp) -> None:
        model = ScriptedModel([calls(("add", '{"a": 1, "b": 2}')), says("three")])
        app = make_app(model, tools=ToolRegistry({"add": _adder()}))
        turn = await ask(app, "1+2?", tools=[{"type": "mcp", "server_label": "companion"}])
        assert [item["type"] for item in turn.output] == ["mcp_call", "message"]
        assert (turn.output[0]["output"], turn.output[0]["status"]) == ("3", "completed")
        assert model.requests[1].items[-1] == turn.output[0]
        assert fold(await events(app, turn.id)).items == turn.output

    async def test_the_limit_of_calls_is_kept(self, make_app: MakeApp) -> None:
        model = ScriptedModel([calls(("add", "{}"), ("add", "{}")), says("enough")])
        app = make_app(model, tools=ToolRegistry({"add": _adder()}))
        turn = await ask(app, "go", tools=[{"type": "mcp", "server_label": "companion"}], max_tool_calls=1)
        assert [item["status"] for item in turn.output if item["type"] == "mcp_call"] == ["completed", "failed"]

    async def test_arguments_that_are_no_json_are_told_to_the_model(self, make_app: MakeApp) -> None:
        model = ScriptedModel([calls(("add", "{nonsense")), says("sorry")])
        app = make_app(model, tools=ToolRegistry({"add": _adder()}))
        turn = await ask(app, "go", tools=[{"type": "mcp", "server_label": "companion"}])
        assert turn.output[0]["status"] == "failed"
        assert "not valid JSON" in turn.output[0]["error"]["content"][0]["text"]


class TestClientCalls:
    """Function calls that the client is to run."""

    async def test_a_call_without_output_is_refused(self, make_app: MakeApp) -> None:
        app = make_app(ScriptedModel([calls(("weather", "{}"))]))
        first = await ask(app, "go", tools=[{"type": "function", "name": "weather"}])
        with pytest.raises(InvalidRequest, match="No tool output found for function call call_0"):
            await ask(app, "and?", previous_response_id=first.id)

    async def test_an_output_for_no_call_is_refused(self, make_app: MakeApp) -> None:
        app = make_app(ScriptedModel())
        with pytest.raises(InvalidRequest, match="No tool call found"):
            await ask(app, input=[{"type": "function_call_output", "call_id": "call_9", "output": "x"}])

    async def test_the_output_completes_the_round(self, make_app: MakeApp) -> None:
        model = ScriptedModel([calls(("weather", "{}")), says("sunny")])
        app = make_app(model)
        first = await ask(app, "go", tools=[{"type": "function", "name": "weather"}])
        output = {"type": "function_call_output", "call_id": "call_0", "output": "sun"}
        second = await ask(app, input=[output], previous_response_id=first.id)
        assert text_of(second) == "sunny"
        assert [item["type"] for item in model.requests[1].items] == [
            "message",
            "function_call",
            "function_call_output",
        ]


async def test_only_settings_that_were_sent_reach_the_model(make_app: MakeApp) -> None:
    model = ScriptedModel([says("a"), says("b")])
    app = make_app(model)
    await ask(app, "plain")
    await ask(app, "set", temperature=0.5, max_output_tokens=99, reasoning={"effort": "low"})

    plain, asked = model.requests
    assert (plain.temperature, plain.max_output_tokens, plain.reasoning, plain.text) == (None, None, None, None)
    assert (asked.temperature, asked.max_output_tokens, asked.reasoning) == (0.5, 99, {"effort": "low"})


async def test_an_item_is_carried_from_a_reference(make_app: MakeApp) -> None:
    model = ScriptedModel([says("one"), says("two")])
    app = make_app(model)
    first = await ask(app, "hello")
    reference = {"type": "item_reference", "id": first.output[0]["id"]}
    await ask(app, input=[reference, {"role": "user", "content": "more"}])

    assert model.requests[1].items[0] == first.output[0]
    with pytest.raises(NotFound):
        await ask(app, input=[{"id": "msg_unknown"}])


async def test_an_answer_cut_by_its_limit_is_incomplete(make_app: MakeApp) -> None:
    cut = [ItemStarted(0, "message"), TextDelta(0, "half"), Finished(usage=Usage(), incomplete="max_output_tokens")]
    app = make_app(ScriptedModel([cut]))
    turn = await ask(app, "go")

    assert (turn.status, turn.incomplete_reason) == ("incomplete", "max_output_tokens")
    assert turn.output[0]["status"] == "incomplete"


async def _until_text(batches: AsyncIterator[Batch]) -> None:
    async for batch in batches:
        if any(event["type"] == "response.output_text.delta" for event in batch.events):
            return


async def _collect(app: App, turn: str) -> list[dict[str, Any]]:
    return await events(app, turn)


def _adder() -> ServerTool:
    async def call(arguments: dict[str, int]) -> str:
        return str(arguments.get("a", 0) + arguments.get("b", 0))

    return ServerTool(name="add", description="Adds.", parameters={"type": "object"}, call=call, is_idempotent=True)
