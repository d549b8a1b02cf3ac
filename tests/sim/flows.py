"""What clients do, as scripts that the crash sweep runs again and again with a death at another place each time.

Every flow gets a stage: machine A, which may die, then B, C and D; a client moves on to the next when one has died.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

from shared.answers.service import answered_once
from shared.app import App
from shared.conversations.service import create_conversation, delete_conversation
from shared.errors import AssistantError
from shared.models.base import SUMMARY_INSTRUCTIONS, Json
from shared.projects.service import create_project
from shared.storage.base import EVENTS, STATE, Query
from tests.sim.client import Client, Gone, Shown
from tests.sim.world import OWNER, Machine, World

COMPANION: list[Json] = [{"type": "mcp", "server_label": "companion"}]


@dataclass(slots=True)
class Stage:
    world: World
    machines: list[Machine]

    def client(self, *machines: Machine) -> Client:
        """One that speaks to these in order; to all, A first, when none is given."""
        return Client(self.world, machines or self.machines)

    async def conversation(self) -> str:
        """One that exists before anything can go wrong."""
        header = await create_conversation(self.machines[-1].app, OWNER, metadata={}, items=None)
        return header.id


type Play = Callable[[Stage], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Flow:
    """A script, and the settings it needs."""

    play: Play
    settings: Json = field(default_factory=dict[str, object])


async def plain(stage: Stage) -> None:
    """One answer, waited for; sent again under its key until it came."""
    turn = await stage.client().send(key="k", input="say 5")
    _expect(stage, turn is not None and turn.status == "completed", "the send came to nothing")


async def plain_without_key(stage: Stage) -> None:
    """The answer may be lost with its process; the turn, once accepted, is not."""
    await stage.client().send(input="say 5")
    await asyncio.sleep(3)


async def streamed(stage: Stage) -> None:
    shown = await stage.client().stream(key="k", input="say 8")
    _expect(stage, shown.is_over, "the stream has no end")


async def streamed_and_left(stage: Stage) -> None:
    """The client hears the beginning and never comes back."""
    await stage.client().stream(key="k", input="say 8", hang_up=lambda last: last >= 3, come_back=False)
    await asyncio.sleep(3)


async def cut_short(stage: Stage) -> None:
    """The model stops at its limit: the turn is incomplete, and so is its answer."""
    turn = await stage.client().send(key="k", input="limit 5")
    _expect(stage, turn is not None and turn.status == "incomplete", "the turn is not incomplete")


async def reasoning(stage: Stage) -> None:
    await stage.client().stream(key="k", input="think 4")


async def failing(stage: Stage) -> None:
    """The model fails, once at once and once after its first words."""
    conversation = await stage.conversation()
    client = stage.client()
    await client.stream(key="k1", input="fail", conversation=conversation)
    await client.stream(key="k2", input="break", conversation=conversation)
    await client.stream(key="k3", input="say 3", conversation=conversation)


async def tool_once(stage: Stage) -> None:
    """A tool whose effect must not happen twice."""
    await stage.client().stream(key="k", input="use once", tools=COMPANION)


async def tool_safe(stage: Stage) -> None:
    await stage.client().stream(key="k", input="use safe", tools=COMPANION)


async def tools_parallel(stage: Stage) -> None:
    """Two calls at once, nobody listening."""
    await stage.client().send(key="k", input="use once safe", tools=COMPANION)


async def conversation(stage: Stage) -> None:
    """Three turns, each sent again until it is answered; then all are there, in order, once."""
    id_ = await stage.conversation()
    client = stage.client()
    await client.stream(key="k1", input="say 3", conversation=id_)
    await client.send(key="k2", input="use once", tools=COMPANION, conversation=id_)
    shown = await client.stream(key="k3", input="say 2", conversation=id_)
    last = [asked for asked in stage.world.asked if asked.request.items[-1].get("role") == "user"][-1]
    said = [part["text"] for item in last.request.items if item.get("role") == "user" for part in item["content"]]
    _expect(stage, said == ["say 3", "use once", "say 2"], f"the model was shown {said}")
    _expect(stage, shown.is_over, "the stream has no end")


async def chain(stage: Stage) -> None:
    """Two turns and a fork, by `previous_response_id`."""
    client = stage.client()
    first = await client.stream(key="k1", input="say 2")
    await client.send(key="k2", input="say 3", previous_response_id=first.id)
    await client.stream(key="k3", input="say 4", previous_response_id=first.id)


async def background(stage: Stage) -> None:
    """Accepted by A, run by whoever takes it from the queue, looked at now and then."""
    for machine in stage.machines:
        machine.serve_background()
    client = stage.client()
    shown = await client.stream(key="k", input="say 5", background=True)
    _expect(stage, shown.is_over, "the stream has no end")


async def background_line(stage: Stage) -> None:
    """More than may run at once: the rest wait in line."""
    for machine in stage.machines:
        machine.serve_background()
    client = stage.client()
    for number in "123":
        await client.stream(
            key=f"k{number}",
            input="use once",
            tools=COMPANION,
            background=True,
            hang_up=lambda _: True,
            come_back=False,
        )
    await asyncio.sleep(5)


async def cancelled_here(stage: Stage) -> None:
    """Cancelled through the process that runs it, while its stream is read."""
    await _cancelled(stage, *stage.machines)


async def cancelled_elsewhere(stage: Stage) -> None:
    """A runs it, B is told to cancel it: B may not die, but A may."""
    await _cancelled(stage, *stage.machines[1:])


async def cancelled_by_the_dying(stage: Stage) -> None:
    """B runs it, A is told to cancel it and dies over that."""
    await _cancelled(stage, *stage.machines, runner=stage.machines[1:])


async def cancelled_in_a_tool(stage: Stage) -> None:
    await _cancelled(stage, *stage.machines[1:], text="use once", after=4)


async def cancelled_in_the_queue(stage: Stage) -> None:
    """Nobody has taken it yet."""
    client = stage.client()
    shown = await client.stream(key="k", input="say 5", background=True, hang_up=lambda _: True, come_back=False)
    if shown.id is not None:
        turn = await client.cancel(shown.id)
        _expect(stage, turn is not None and turn.status == "cancelled", "it is not cancelled")
    for machine in stage.machines:
        machine.serve_background()
    await asyncio.sleep(12)


async def deleted(stage: Stage) -> None:
    """A finished response, alone."""
    client = stage.client()
    shown = await client.stream(key="k", input="say 3")
    assert shown.id is not None
    await client.delete(shown.id)
    _expect(stage, shown.id not in stage.world.turn_ids(), "the response is still there")
    left = [batch.body for batch in stage.world.store.all(EVENTS, shown.id) if batch.body["sse"]]
    _expect(stage, not left, "its events are still there")


async def deleted_while_running(stage: Stage) -> None:
    """A response of a conversation, deleted under its reader's eyes."""
    id_ = await stage.conversation()
    first = await stage.client(stage.machines[2]).stream(input="say 2", conversation=id_)
    client = stage.client()
    reading = asyncio.create_task(
        client.stream(key="k", input="say 30", conversation=id_, hang_up=lambda last: last > 4, come_back=False)
    )
    shown = await reading
    if shown.id is not None and not shown.is_over:
        await client.delete(shown.id)
    assert first.id is not None
    await client.delete(first.id)


async def conversation_deleted(stage: Stage) -> None:
    """The conversation goes while a response is made in it; the response stays."""
    id_ = await stage.conversation()
    client = stage.client()
    reading = asyncio.create_task(client.stream(key="k", input="say 12", conversation=id_))
    await asyncio.sleep(0.3)
    with suppress(AssistantError):  # it is deleted already, when this is a retry
        await stage.client(*stage.machines[::-1]).insist(lambda app: delete_conversation(app, OWNER, id_))
    shown = await reading
    _expect(stage, shown.is_over or shown.id is None, "the stream has no end")


async def titled(stage: Stage) -> None:
    """The first answer of a conversation gives it a title, at the latest its second one does."""
    id_ = await stage.conversation()
    client = stage.client()
    await client.stream(key="k1", input="say 2", conversation=id_)
    await asyncio.sleep(3)
    await client.send(key="k2", input="say 2", conversation=id_)
    await asyncio.sleep(3)
    stored = await stage.world.store.read("state", OWNER, id_)
    deaths = sum(machine.host.is_dead for machine in stage.machines)
    _expect(stage, deaths > 1 or bool(stored and stored.body.get("title")), "the conversation has no title")


async def compacted(stage: Stage) -> None:
    """A history that outgrows its budget, summarised at the boundary of a turn."""
    id_ = await stage.conversation()
    quiet = stage.client(stage.machines[2])
    for number in range(4):
        await quiet.send(key=f"q{number}", input=f"say {40 + number}", conversation=id_)
    client = stage.client()
    await client.stream(key="k1", input="say 5", conversation=id_)
    await client.stream(key="k2", input="say 3", conversation=id_)
    summaries = [asked for asked in stage.world.asked if asked.request.instructions == SUMMARY_INSTRUCTIONS]
    _expect(stage, bool(summaries), "nothing was summarised")


async def unstored(stage: Stage) -> None:
    """`store: false` keeps no record; its reservation comes back all the same."""
    stage.world.has_unkept = True
    client = stage.client()
    try:
        await client.send(input="say 4", store=False)
    except (AssistantError, Gone):
        return


async def double_tap(stage: Stage) -> None:
    """The same send twice at once, through two processes: one turn, one stream."""
    a, b = stage.client(), stage.client(*stage.machines[1:])
    shown = await asyncio.gather(a.stream(key="k", input="say 6"), b.stream(key="k", input="say 6"))
    _expect(stage, shown[0].id == shown[1].id, "one send became two turns")
    _expect(stage, shown[0].blocks == shown[1].blocks, "two streams of one turn differ")


async def made_once(stage: Stage) -> None:
    """Something else than a turn, made under a key, asked for until it is answered: it is there once."""
    client = stage.client()

    async def make(app: App) -> bytes:
        return (await create_project(app, OWNER, name="Garden", instructions=None, metadata={})).id.encode()

    answers = [await client.insist(lambda app: answered_once(app, OWNER, "k", "body", make)) for _ in range(2)]
    made = [found.body["id"].encode() for found in stage.world.store.find(STATE, OWNER, Query(kind="project", limit=9))]
    _expect(stage, answers == made * 2, f"answered were {answers}, made were {made}")


async def _cancelled(
    stage: Stage, *machines: Machine, runner: list[Machine] | None = None, text: str = "say 40", after: int = 5
) -> None:
    id_ = await stage.conversation()
    client = stage.client(*(runner or stage.machines))
    other = stage.client(*machines)
    shown = Shown(stage.world)

    async def cancel() -> None:
        while not (client.shown and client.shown[0].last >= after):
            await asyncio.sleep(0.05)
            if client.shown and client.shown[0].is_over:
                return
        name = client.shown[0].id
        assert name is not None
        await other.cancel(name)

    task = asyncio.create_task(cancel())
    shown = await client.stream(key="k", input=text, conversation=id_, tools=COMPANION)
    await task
    _expect(stage, shown.is_over, "the stream has no end")
    await client.send(key="next", input="say 2", conversation=id_)


def _expect(stage: Stage, holds: bool, otherwise: str) -> None:
    if not holds:
        stage.world.accuse(otherwise)


FLOWS: dict[str, Flow] = {
    "plain": Flow(plain),
    "plain without a key": Flow(plain_without_key),
    "streamed": Flow(streamed),
    "streamed, client leaves": Flow(streamed_and_left),
    "cut short": Flow(cut_short),
    "reasoning": Flow(reasoning),
    "failing model": Flow(failing),
    "tool with an effect": Flow(tool_once),
    "idempotent tool": Flow(tool_safe),
    "two tools at once": Flow(tools_parallel),
    "conversation": Flow(conversation),
    "chain and fork": Flow(chain),
    "background": Flow(background),
    "background in line": Flow(background_line, settings={"background_slots": 1}),
    "cancel on the same host": Flow(cancelled_here),
    "cancel from another host": Flow(cancelled_elsewhere),
    "cancel, canceller dies": Flow(cancelled_by_the_dying),
    "cancel in a tool": Flow(cancelled_in_a_tool),
    "cancel in the queue": Flow(cancelled_in_the_queue),
    "delete": Flow(deleted),
    "delete while running": Flow(deleted_while_running),
    "conversation deleted": Flow(conversation_deleted),
    "title": Flow(titled, settings={"titles": True}),
    "compaction": Flow(compacted, settings={"context_tokens": 300}),
    "store: false": Flow(unstored),
    "double tap": Flow(double_tap),
    "made under a key": Flow(made_once),
}
