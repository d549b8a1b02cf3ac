"""What must be true of a world once it has come to rest, whatever happened in it."""

import re
from collections import defaultdict
from typing import Any

import orjson

from shared.app import App
from shared.conversations.records import ConversationRecord, TurnRecord
from shared.errors import NotFound
from shared.models.base import Json
from shared.storage.base import STATE
from shared.turns.follow import follow
from shared.turns.title import TITLE_MODEL
from shared.usage.records import Spent, UsageRecord
from tests.sim.client import Client, Gone, Shown
from tests.sim.world import OWNER, Machine, World

_WORD = re.compile(r"(\d+)\.(\d+)")


async def check_world(world: World, machine: Machine, *, owner: str = OWNER) -> None:
    """Everything below, accusing of what does not hold. `machine` is one that took no part yet."""
    turns = turns_of(world, owner)
    reader = Client(world, [machine], owner=owner)
    for turn in turns.values():
        if not turn.is_final:
            world.accuse(f"{turn.id} is {turn.status} for ever (attempt {turn.attempt}, due {turn.due})")
    replays: dict[str, Shown] = {}
    for turn in turns.values():
        if turn.is_final and turn.is_response:
            replays[turn.id] = await _check_replay(world, reader, turn)
    for client in world.clients:
        for shown in client.shown:
            _check_shown(world, shown, replays, turns)
    for turn in turns.values():
        _check_items(world, turn)
    _check_headers(world, owner, turns)
    _check_usage(world, owner, turns)
    _check_tools(world)
    _check_asked(world, turns)
    for message in world.queue.messages:
        turn = turns.get(message.body["turn"])
        if turn is not None and not turn.is_final:
            world.accuse(f"the message of {turn.id} is still in the queue")


def turns_of(world: World, owner: str = OWNER) -> dict[str, TurnRecord]:
    bodies = (stored.body for stored in world.store.all(STATE, owner))
    return {body["id"]: TurnRecord.model_validate(body) for body in bodies if body["kind"] == "turn"}


def _headers(world: World, owner: str) -> list[ConversationRecord]:
    bodies = (stored.body for stored in world.store.all(STATE, owner))
    return [ConversationRecord.model_validate(body) for body in bodies if body["kind"] == "conversation"]


async def _check_replay(world: World, reader: Client, turn: TurnRecord) -> Shown:
    """A replay is whole and agrees with the record; so is every part of it that one may ask for."""
    whole = await _replay(world, reader, turn.id, -1)
    events = whole.events
    if not whole.is_over:
        world.accuse(f"{turn.id}: the replay has no end")
        return whole
    if orjson.dumps(events[-1]["response"]["output"]) != orjson.dumps(turn.output):
        world.accuse(f"{turn.id}: the terminal event shows other items than the record")
    try:
        told = retell(events)
    except AssertionError as failure:
        world.accuse(f"{turn.id}: {failure}")
        return whole
    if told != [comparable(item) for item in turn.output]:
        world.accuse(f"{turn.id}: the events add up to other items than the record has: {told} / {turn.output}")
    after = world.chance.randrange(-1, len(events))
    part = await _replay(world, reader, turn.id, after)
    if list(part.blocks.values()) != [whole.blocks[number] for number in sorted(whole.blocks) if number > after]:
        world.accuse(f"{turn.id}: what is replayed after {after} is not the rest of the whole replay")
    return whole


async def _replay(world: World, reader: Client, turn: str, after: int) -> Shown:
    shown = Shown(world)
    shown.id, shown.last = turn, after

    async def read(app: App) -> None:
        async for batch in follow(app, reader.owner, turn, after=after):
            shown.take(batch.data)

    try:
        await reader.call(read)
    except (Gone, NotFound) as failure:
        world.accuse(f"{turn}: the replay after {after} failed: {failure!r}")
    return shown


def retell(events: list[Json]) -> list[Json]:
    """The items that the events of a whole stream add up to, text from deltas alone."""
    items: list[Json] = []
    texts: dict[tuple[Any, ...], str] = defaultdict(str)
    for event in events:
        index: int = event.get("output_index", -1)
        kind: str = event["type"]
        if kind == "response.output_item.added":
            if index != len(items):
                raise AssertionError(f"item {index} is added where {len(items)} should be")
            items.append(event["item"])
        elif kind.endswith(".delta"):
            texts[index, event.get("content_index", event.get("summary_index"))] += event["delta"]
        elif (
            kind.endswith("_text.done")
            and texts[index, event.get("content_index", event.get("summary_index"))] != (event["text"])
        ):
            raise AssertionError(f"the deltas of item {index} do not add up to its text")
        elif kind == "response.output_item.done":
            items[index] = event["item"]
    for index, item in enumerate(items):
        parts: list[Json] = item.get("content") or item.get("summary") or []
        for place, part in enumerate(parts):
            if part.get("text", "") != texts.get((index, place), ""):
                raise AssertionError(f"the deltas of item {index} do not add up to its part {place}")
    return [comparable(item) for item in items]


def comparable(item: Json) -> Json:
    """An item without what is null."""
    return {name: value for name, value in item.items() if value is not None}


def _check_shown(world: World, shown: Shown, replays: dict[str, Shown], turns: dict[str, TurnRecord]) -> None:
    """What a client was shown is what a replay shows, byte for byte."""
    replay = replays.get(shown.id or "")
    if replay is None:
        if shown.id is not None and shown.id in turns and turns[shown.id].is_response:
            world.accuse(f"{shown.id}: shown, but there is no replay of it")
        return
    for number, block in shown.blocks.items():
        if replay.blocks.get(number) != block:
            world.accuse(f"{shown.id}: event {number} was {block!r} and is replayed as {replay.blocks.get(number)!r}")
            return


def _check_items(world: World, turn: TurnRecord) -> None:
    """Each answer comes from one call of the model, and is whole unless it says that it is not."""
    ids = [item["id"] for item in [*turn.input, *turn.output]]
    if len(set(ids)) < len(ids):
        world.accuse(f"{turn.id}: an item is there twice: {ids}")
    for item in turn.output:
        if item["status"] == "in_progress":
            world.accuse(f"{turn.id}: item {item['id']} of a turn that is {turn.status} is in progress")
        if item["type"] == "message":
            _check_text(world, turn, item)
    if turn.status == "completed":
        torn = [item["id"] for item in turn.output if item["status"] == "incomplete"]
        if torn != [id_ for id_ in turn.torn if id_ in torn] or set(torn) != set(turn.torn):
            world.accuse(f"{turn.id}: torn are {torn}, but the record says {turn.torn}")
        if turn.output and turn.output[-1]["status"] != "completed":
            world.accuse(f"{turn.id} is completed, but its last item is {turn.output[-1]['status']}")
        if not turn.output:
            world.accuse(f"{turn.id} is completed, but has no answer")


def _check_text(world: World, turn: TurnRecord, item: Json) -> None:
    text = "".join(part["text"] for part in item["content"] if part["type"] == "output_text")
    words = [_WORD.fullmatch(word) for word in text.split()]
    found = [(int(word[1]), int(word[2])) for word in words if word]
    if len(found) < len(words) or found != [(found[0][0], place) for place in range(len(found))]:
        world.accuse(f"{turn.id}: two answers in one: {text!r}")


def _check_headers(world: World, owner: str, turns: dict[str, TurnRecord]) -> None:
    for header in _headers(world, owner):
        if header.running is not None:
            world.accuse(f"{header.id} is held by {header.running} for ever")
        members = [turn for turn in turns.values() if turn.conversation == header.id and turn.status != "failed"]
        if header.head is None:
            if members:
                world.accuse(f"{header.id} has turns, but no head")
            continue
        path: list[str] = []
        at: str | None = header.head
        while at is not None and at in turns:
            path.append(at)
            at = turns[at].parent
        if at is not None:
            world.accuse(f"{header.id}: {at} is missing on the way to the root")
        lost = {turn.id for turn in members} - set(path)
        if lost:
            world.accuse(f"{header.id}: {sorted(lost)} are not on the way from the head to the root")


def _check_usage(world: World, owner: str, turns: dict[str, TurnRecord]) -> None:
    """Nothing is held, and every kept turn was counted exactly once."""
    spent: dict[str, Spent] = defaultdict(Spent)
    for stored in world.store.all(STATE, owner):
        if stored.body["kind"] != "usage":
            continue
        usage = UsageRecord.model_validate(stored.body)
        held = [id_ for id_, kept in usage.reserved.items() if kept.expires > world.clock.now()]
        if held:
            world.accuse(f"reservations are left: {held}")
        if usage.background or usage.waiting or usage.waiting_first:
            world.accuse(f"places in the background are left: {usage.background} {usage.waiting} {usage.waiting_first}")
        for models in usage.days.values():
            for model, more in models.items():
                spent[model] = spent[model].plus(more)
    if world.deleted or world.has_unkept:
        return  # what they used is counted, but no record says what it was
    total = Spent()
    for turn in turns.values():
        if turn.surface != "items" and turn.usage is not None:
            count = Spent(
                turns=1,
                input_tokens=turn.usage["input_tokens"],
                cached_tokens=turn.usage["input_tokens_details"]["cached_tokens"],
                output_tokens=turn.usage["output_tokens"],
                cost=turn.cost,
            )
            total = total.plus(count)
    counted = Spent()
    for model, more in spent.items():
        if model != TITLE_MODEL:
            counted = counted.plus(more)
    if counted != total:
        world.accuse(f"counted {counted}, but the turns used {total}")


def _check_tools(world: World) -> None:
    for ticket, times in world.tool_runs.items():
        if times > 1 and ticket.startswith("once "):
            world.accuse(f"the tool {ticket!r} ran {times} times")


def _check_asked(world: World, turns: dict[str, TurnRecord]) -> None:
    """No model was ever shown something torn, or the same input twice."""
    torn = {id_ for turn in turns.values() for id_ in turn.torn}
    for asked in world.asked:
        shown = [item["id"] for item in asked.request.items if item["id"] in torn]
        if shown:
            world.accuse(f"call {asked.number} of the model was shown what is torn: {shown}")
