"""Hypothesis looks for sequences of operations after which the product differs from a plain model of it.

- stores: SQLite, the simulation's store and a dict, given the same operations, answer alike;
- conversations: a tree of turns with branches, items added and removed, listed in both orders with cursors;
- usage: what is reserved, spent, running and waiting adds up, whatever is retried, lost or late.
"""

import asyncio
import json
import os
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from pydantic import TypeAdapter

from shared.clock import ManualClock
from shared.conversations.service import (
    add_items,
    create_conversation,
    get_conversation,
    list_items,
    remove_item,
    update_conversation,
)
from shared.errors import NotFound, QuotaExceeded, RateLimited
from shared.settings import Limits
from shared.storage.base import (
    STATE,
    BatchFailed,
    Create,
    Delete,
    Document,
    Operation,
    Query,
    Replace,
    Store,
    Upsert,
)
from shared.storage.sqlite import SqliteStore
from shared.turns.cancel import delete_turn
from shared.usage import meter
from shared.usage.records import LINE_SECONDS, Spent, UsageRecord
from shared.wire.items import InputItem
from tests.sim.client import Client
from tests.sim.invariants import turns_of
from tests.sim.loop import VirtualLoop
from tests.sim.store import MemoryStore
from tests.sim.world import OWNER, Machine, World

IDS = tuple("abcde")
PARTITIONS = ("p1", "p2")
SCALE = int(os.environ.get("SOAK_SCALE", "1"))
"""How many times more examples; `make soak` sets it."""
STEPS = settings(max_examples=40 * SCALE, stateful_step_count=40, deadline=None)


@dataclass(slots=True)
class Kept:
    """A document in the plain model of a store."""

    body: Document
    version: int
    expires: float | None
    etags: list[str]
    """One for each store."""


documents = st.fixed_dictionaries(
    {"kind": st.sampled_from(["x", "y"]), "sort": st.sampled_from(["1", "2", "3"]), "n": st.integers(0, 9)},
    optional={"group": st.sampled_from(["g", "h"]), "due": st.integers(0, 50), "ttl": st.sampled_from([5, 20, -1])},
)
operations = st.lists(
    st.tuples(
        st.sampled_from(["create", "replace", "stale replace", "upsert", "delete", "delete etag", "stale delete"]),
        st.sampled_from(IDS),
        documents,
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda operation: operation[1],
)


queries = st.builds(
    Query,
    kind=st.sampled_from(["x", "y"]),
    group=st.sampled_from([None, "g", "h"]),
    after=st.sampled_from([None, "1", "2", "3"]),
    order=st.sampled_from(["asc", "desc"]),
    limit=st.integers(1, 6),
)


class Stores(RuleBasedStateMachine):
    """Two stores and a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = ManualClock()
        self.stores: list[Store] = [SqliteStore(":memory:", self.clock), MemoryStore(self.clock)]
        self.model: dict[str, dict[str, Kept]] = {partition: {} for partition in PARTITIONS}
        self.version = 0
        self.tokens: dict[str, list[tuple[int, list[str]]]] = {partition: [] for partition in PARTITIONS}

    def teardown(self) -> None:
        for store in self.stores:
            self.loop.run_until_complete(store.close())
        self.loop.close()

    def ask(self, name: str, *arguments: Any, **keywords: Any) -> list[Any]:
        return [self.loop.run_until_complete(getattr(store, name)(*arguments, **keywords)) for store in self.stores]

    def live(self, partition: str) -> dict[str, Kept]:
        now = self.clock.now()
        return {id_: kept for id_, kept in self.model[partition].items() if kept.expires is None or kept.expires > now}

    @rule(partition=st.sampled_from(PARTITIONS), wanted=operations)
    def batch(self, partition: str, wanted: list[tuple[str, str, Document]]) -> None:
        live = self.live(partition)
        outcomes: list[Any] = []
        for number, store in enumerate(self.stores):
            batch = [self._operation(*each, live, number) for each in wanted]
            try:
                outcomes.append(self.loop.run_until_complete(store.batch(STATE, partition, batch)))
            except BatchFailed as failure:
                outcomes.append((type(failure).__name__, failure.index, failure.id))
        refusals = [self._refusal(index, *each, live) for index, each in enumerate(wanted)]
        expected = next((refusal for refusal in refusals if refusal is not None), None)
        if expected is not None:
            assert outcomes == [expected] * len(self.stores)
            return
        for index, (kind, id_, body) in enumerate(wanted):
            self.version += 1
            if "delete" in kind:
                del self.model[partition][id_]
                continue
            ttl = body.get("ttl", -1)
            expires = None if ttl < 0 else self.clock.now() + ttl
            etags = [outcome[index] for outcome in outcomes]
            self.model[partition][id_] = Kept({"id": id_, **body}, self.version, expires, etags)

    def _operation(self, kind: str, id_: str, body: Document, live: dict[str, Kept], store: int) -> Operation:
        whole = {"id": id_, **body}
        etag = live[id_].etags[store] if id_ in live else "0"
        match kind:
            case "create":
                return Create(whole)
            case "replace":
                return Replace(whole, etag)
            case "stale replace":
                return Replace(whole, "999999")
            case "upsert":
                return Upsert(whole)
            case "delete":
                return Delete(id_)
            case "delete etag":
                return Delete(id_, etag)
            case _:
                return Delete(id_, "999999")

    def _refusal(
        self, index: int, kind: str, id_: str, body: Document, live: dict[str, Kept]
    ) -> tuple[str, int, str] | None:
        del body
        if kind == "create" and id_ in live:
            return ("AlreadyExists", index, id_)
        if ("replace" in kind or "delete" in kind) and id_ not in live:
            return ("Missing", index, id_)
        if "stale" in kind:
            return ("Stale", index, id_)
        return None

    @rule(seconds=st.sampled_from([1, 6, 30]))
    def pass_time(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule(partition=st.sampled_from(PARTITIONS))
    def erase(self, partition: str) -> None:
        self.ask("erase", STATE, partition)
        self.model[partition].clear()

    @rule(partition=st.sampled_from(PARTITIONS), id_=st.sampled_from(IDS))
    def read(self, partition: str, id_: str) -> None:
        kept = self.live(partition).get(id_)
        for number, found in enumerate(self.ask("read", STATE, partition, id_)):
            assert (found and (found.body, found.etag)) == (kept and (kept.body, kept.etags[number]))

    @rule(partition=st.sampled_from(PARTITIONS), query=queries)
    def query(self, partition: str, query: Query) -> None:
        """Sort keys are not unique here, so what is behind the cursor is compared as keys in order."""
        bodies = [kept.body for kept in self.live(partition).values()]
        keys = [
            body["sort"]
            for body in bodies
            if body["kind"] == query.kind
            and query.group in (None, body.get("group"))
            and _is_behind(body["sort"], query.after, query.order)
        ]
        expected = sorted(keys, reverse=query.order == "desc")[: query.limit]
        for found in self.ask("query", STATE, partition, query):
            assert [stored.body["sort"] for stored in found] == expected
            assert all(stored.body in bodies for stored in found)

    @rule(partition=st.sampled_from(PARTITIONS))
    def scan(self, partition: str) -> None:
        expected = [kept.body for _, kept in sorted(self.live(partition).items())]
        for found in self.ask("scan", STATE, partition):
            assert [stored.body for stored in found] == expected

    @rule(before=st.integers(0, 60))
    def due(self, before: int) -> None:
        expected = sorted(
            (kept.body["due"], partition, id_)
            for partition in PARTITIONS
            for id_, kept in self.live(partition).items()
            if kept.body["kind"] == "x" and kept.body.get("due", 99) < before
        )
        for found in self.ask("due", STATE, "x", before=float(before)):
            assert [due.stored.body["due"] for due in found] == [due for due, _, _ in expected]
            assert {(due.partition, due.stored.body["id"]) for due in found} == {each[1:] for each in expected}

    @rule(partition=st.sampled_from(PARTITIONS), back=st.integers(0, 3), limit=st.integers(1, 4))
    def changes(self, partition: str, back: int, limit: int) -> None:
        """From the beginning, or from a token that an earlier call gave."""
        known = self.tokens[partition]
        since, tokens = known[-1 - back] if back < len(known) else (0, [None] * len(self.stores))
        live = sorted(self.live(partition).values(), key=lambda kept: kept.version)
        newer = [kept for kept in live if kept.version > since]
        page = newer[:limit]
        given: list[str] = []
        for number, store in enumerate(self.stores):
            changed = self.loop.run_until_complete(store.changes(STATE, partition, since=tokens[number], limit=limit))
            assert [stored.body for stored in changed.documents] == [kept.body for kept in page]
            assert changed.has_more == (len(newer) > limit)
            given.append(changed.token)
        known.append((page[-1].version if page else since, given))


def _is_behind(key: str, after: str | None, order: str) -> bool:
    return after is None or (key > after if order == "asc" else key < after)


@dataclass(slots=True)
class Node:
    """A turn in the plain model of a conversation."""

    id: str
    parent: str | None
    items: list[str]


class Conversations(RuleBasedStateMachine):
    """A conversation of the product beside a tree of lists."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop()
        self.nodes: dict[str, Node] = {}
        self.head: str | None = None
        self.number = 0

    def teardown(self) -> None:
        self.world.end()
        self.run(asyncio.sleep(1))
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()

    def run(self, work: Any) -> Any:
        self.loop.forgive()
        return self.loop.run_until_complete(work)

    @initialize()
    def begin(self) -> None:
        async def build() -> tuple[World, Machine, str]:
            world = World(self.loop)
            machine = world.start("A")
            header = await create_conversation(machine.app, OWNER, metadata={}, items=None)
            return world, machine, header.id

        self.world, self.machine, self.id = self.run(build())

    def path(self) -> list[Node]:
        """From the root to the head."""
        path: list[Node] = []
        at = self.head
        while at is not None:
            path.insert(0, self.nodes[at])
            at = self.nodes[at].parent
        return path

    def shown(self) -> list[str]:
        return [item for node in self.path() for item in node.items]

    def _take_turn(self, text: str, parent: str | None, *, is_branch: bool) -> None:
        conversation: Any = {"id": self.id, "parent": parent} if is_branch else self.id
        client = Client(self.world, [self.machine])
        shown = self.run(client.stream(input=text, conversation=conversation))
        assert shown.id is not None
        turn = turns_of(self.world)[shown.id]
        assert turn.parent == parent
        if turn.status != "failed":
            self.nodes[turn.id] = Node(turn.id, parent, [item["id"] for item in turn.input + turn.output])
            self.head = turn.id

    @rule(text=st.sampled_from(["say 2", "think 1", "fail", "limit 3"]))
    def take_turn(self, text: str) -> None:
        self._take_turn(text, self.head, is_branch=False)

    @precondition(lambda self: bool(self.nodes))
    @rule(data=st.data())
    def branch(self, data: st.DataObject) -> None:
        parent = data.draw(st.sampled_from([None, *self.nodes]))
        self._take_turn("say 2", parent, is_branch=True)

    @rule(count=st.integers(1, 3))
    def add(self, count: int) -> None:
        message: Any = {"type": "message", "role": "user", "content": "added"}
        items: list[InputItem] = [_item(message) for _ in range(count)]
        before = set(turns_of(self.world))
        added = self.run(add_items(self.machine.app, OWNER, self.id, items))
        (turn,) = set(turns_of(self.world)) - before
        self.nodes[turn] = Node(turn, self.head, [item["id"] for item in added])
        self.head = turn

    @precondition(lambda self: bool(self.shown()))
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        item = data.draw(st.sampled_from(self.shown()))
        self.run(remove_item(self.machine.app, OWNER, self.id, item))
        for node in self.nodes.values():
            if item in node.items:
                node.items.remove(item)

    @precondition(lambda self: bool(self.nodes))
    @rule(data=st.data())
    def show_another_branch(self, data: st.DataObject) -> None:
        head = data.draw(st.sampled_from(list(self.nodes)))
        self.run(update_conversation(self.machine.app, OWNER, self.id, head=head))
        self.head = head

    @precondition(lambda self: bool(self.nodes))
    @rule(data=st.data())
    def delete_a_response(self, data: st.DataObject) -> None:
        """Its items stay in the conversation."""
        turn = data.draw(st.sampled_from(list(self.nodes)))
        if turns_of(self.world)[turn].is_response:
            self.run(delete_turn(self.machine.app, OWNER, turn))

    @rule(order=st.sampled_from(["asc", "desc"]), limit=st.integers(1, 7))
    def list_in_pages(self, order: Literal["asc", "desc"], limit: int) -> None:
        expected = self.shown() if order == "asc" else self.shown()[::-1]
        found: list[str] = []
        after, has_more = None, True
        while has_more:
            page, has_more = self.run(
                list_items(self.machine.app, OWNER, self.id, after=after, order=order, limit=limit)
            )
            assert len(page) == limit or not has_more
            found += [item["id"] for item in page]
            after = found[-1] if found else None
        assert found == expected

    @rule(data=st.data(), order=st.sampled_from(["asc", "desc"]))
    def list_behind_an_item(self, data: st.DataObject, order: Literal["asc", "desc"]) -> None:
        shown = self.shown() if order == "asc" else self.shown()[::-1]
        if not shown:
            with pytest.raises(NotFound):
                self.run(list_items(self.machine.app, OWNER, self.id, after="msg_x", order=order, limit=9))
            return
        place = data.draw(st.integers(0, len(shown) - 1))
        page, _ = self.run(list_items(self.machine.app, OWNER, self.id, after=shown[place], order=order, limit=5))
        assert [item["id"] for item in page] == shown[place + 1 : place + 6]

    @invariant()
    def the_head_is_known(self) -> None:
        if self.nodes or self.number:
            header = self.run(get_conversation(self.machine.app, OWNER, self.id)).record
            assert header.head == self.head
            assert header.running is None

    @invariant()
    def nothing_went_wrong_on_the_way(self) -> None:
        assert not getattr(self, "world", None) or not self.world.violations


def _item(body: Any) -> InputItem:
    return TypeAdapter[InputItem](InputItem).validate_python(body)


SLOTS = 2
LIMITS = Limits(requests_per_minute=8, tokens_per_minute=900, concurrent_turns=3, usd_per_day=4, usd_per_month=6)
TURNS = [f"resp_{number}" for number in range(8)]


@dataclass(slots=True)
class Ledger:
    """The plain model of a month."""

    held: dict[str, tuple[float, float]] = field(default_factory=dict[str, tuple[float, float]])
    """Turn to cost and expiry."""
    spent: float = 0.0
    days: dict[int, float] = field(default_factory=dict[int, float])
    turns: int = 0
    running: list[str] = field(default_factory=list[str])
    first: list[str] = field(default_factory=list[str])
    rest: list[str] = field(default_factory=list[str])


class Usage(RuleBasedStateMachine):
    """A month's record beside plain sums and lists."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_800_000_000.0
        self.record = UsageRecord(id=meter.month_id(self.now))
        self.model = Ledger()

    def keep(self, record: UsageRecord) -> None:
        """As the store would give it back."""
        self.record = UsageRecord.model_validate(json.loads(json.dumps(record.document())))

    def held(self) -> dict[str, float]:
        """A background turn's reservation runs out a day later than others'."""
        apart = {*self.model.running, *self.waiting}
        return {
            turn: cost
            for turn, (cost, expires) in self.model.held.items()
            if expires + (LINE_SECONDS if turn in apart else 0) > self.now
        }

    @property
    def waiting(self) -> list[str]:
        return [*self.model.first, *self.model.rest]

    @rule(turn=st.sampled_from(TURNS), tokens=st.integers(1, 400), cost=st.sampled_from([0.0, 0.5, 1.0]))
    def reserve(self, turn: str, tokens: int, cost: float) -> None:
        if turn in self.model.running or turn in self.waiting:
            return
        held = self.held()
        today = self.model.days.get(int(self.now // 86_400), 0.0)
        try:
            record = meter.reserve(
                self.record, turn, limits=LIMITS, tokens=tokens, cost=cost, now=self.now, seconds=100
            )
        except QuotaExceeded:
            assert today >= 4 or self.model.spent >= 6
            return
        except RateLimited as refusal:
            assert refusal.retry_after is not None
            assert refusal.retry_after > 0
            return
        self.keep(record)
        if turn in held:
            return
        assert today + sum(held.values()) < 4
        assert self.model.spent + sum(held.values()) < 6
        apart = {*self.model.running, *self.waiting}
        assert len([other for other in held if other not in apart]) < 3
        self.model.held = {other: self.model.held[other] for other in held}
        self.model.held[turn] = (cost, self.now + 100)

    @rule(turn=st.sampled_from(TURNS), tokens=st.integers(0, 400), cost=st.sampled_from([0.0, 0.25, 1.5]))
    def settle(self, turn: str, tokens: int, cost: float) -> None:
        """Also of a turn whose reservation has run out: it was used all the same."""
        spent = Spent(turns=1, output_tokens=tokens, cost=cost)
        self.keep(meter.settle(self.record, turn, model="m", spent=spent, now=self.now))
        self.model.held = {other: self.model.held[other] for other in self.held() if other != turn}
        self.model.spent += cost
        day = int(self.now // 86_400)
        self.model.days[day] = self.model.days.get(day, 0.0) + cost
        self.model.turns += 1

    @rule(turn=st.sampled_from(TURNS))
    def release(self, turn: str) -> None:
        self.keep(meter.release(self.record, turn))
        self.model.held.pop(turn, None)

    @rule(turn=st.sampled_from(TURNS), is_first=st.booleans())
    def enter(self, turn: str, is_first: bool) -> None:
        if turn in self.model.running or turn in self.waiting:
            return
        self.keep(meter.enter_background(self.record, turn, slots=SLOTS, is_first=is_first))
        if len(self.model.running) < SLOTS:
            self.model.running.append(turn)
        else:
            (self.model.first if is_first else self.model.rest).append(turn)

    @rule(turn=st.sampled_from(TURNS))
    def leave(self, turn: str) -> None:
        record, admitted = meter.leave_background(self.record, turn, slots=SLOTS)
        self.keep(record)
        for line in (self.model.running, self.model.first, self.model.rest):
            if turn in line:
                line.remove(turn)
        expected: list[str] = []
        while len(self.model.running) < SLOTS and self.waiting:
            line = self.model.first or self.model.rest
            expected.append(line.pop(0))
            self.model.running.append(expected[-1])
        assert admitted == expected

    @rule(seconds=st.sampled_from([0.5, 7.0, 99.0, 40_000.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def it_adds_up(self) -> None:
        record, model = self.record, self.model
        total = Spent()
        for models in record.days.values():
            for spent in models.values():
                total = total.plus(spent)
        assert (total.turns, round(total.cost, 6)) == (model.turns, round(model.spent, 6))
        held = {turn: kept.cost for turn, kept in record.held(self.now).items()}
        assert held == self.held()
        assert (record.background, record.waiting) == (model.running, self.waiting)
        assert record.waiting_first == len(model.first)
        assert len(record.background) <= SLOTS
        assert not record.waiting or len(record.background) == SLOTS
        assert record.rate.requests >= 0
        assert record.rate.tokens >= 0


TestStores = Stores.TestCase
TestStores.settings = STEPS
TestConversations = Conversations.TestCase
TestConversations.settings = settings(STEPS, max_examples=25 * SCALE, stateful_step_count=25)
TestUsage = Usage.TestCase
TestUsage.settings = settings(STEPS, max_examples=100 * SCALE)
