"""Changes of one partition that are asked at one moment: one batch, and each is told its own outcome."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import override

import pytest

from shared.clock import SystemClock
from shared.errors import Conflict, StorageUnavailable
from shared.storage.base import STATE, AlreadyExists, Create, Document, Operation, Replace, Stale
from shared.storage.mutate import LARGEST_GROUP, Change, mutate
from shared.storage.sqlite import SqliteStore
from shared.telemetry import Tally


class Watched(SqliteStore):
    """Notes its batches; refuses, or loses, what it is told to."""

    def __init__(self) -> None:
        super().__init__(":memory:", SystemClock())
        self.sizes: list[int] = []
        self.most = 1000
        self.is_down = False

    @override
    async def batch(self, container: str, partition: str, operations: Sequence[Operation]) -> list[str]:
        self.sizes.append(len(operations))
        if len(operations) > self.most:
            raise ValueError("the batch is too large")
        if self.is_down:
            raise StorageUnavailable("down")
        return await super().batch(container, partition, operations)


@pytest.fixture
async def store() -> AsyncGenerator[Watched]:
    made = Watched()
    await made.setup()
    yield made
    await made.close()


def record(id_: str, count: int = 0) -> Document:
    return {"id": id_, "kind": "thing", "count": count}


def counted(id_: str = "count") -> Change:
    def apply(body: Document | None) -> Document:
        return record(id_, (body["count"] if body else 0) + 1)

    return Change(id_, apply)


async def count(store: Watched) -> int:
    found = await store.read(STATE, "ada", "count")
    return found.body["count"] if found else 0


async def many(store: Watched, jobs: list[tuple[list[Operation], Change]]) -> list[object]:
    return await asyncio.gather(
        *(mutate(store, STATE, "ada", fixed, [change]) for fixed, change in jobs), return_exceptions=True
    )


async def test_what_waits_at_one_moment_is_one_batch_and_each_gets_its_own_etags(store: Watched) -> None:
    ids = [f"thing{number}" for number in range(9)]

    outcomes = await many(store, [([Create(record(id_))], counted()) for id_ in ids])

    assert await count(store) == 9
    assert store.sizes == [2, 9]
    for id_, outcome in zip(ids, outcomes, strict=True):
        found = await store.read(STATE, "ada", id_)
        assert found is not None
        assert isinstance(outcome, tuple)
        assert outcome[0] == [found.etag]


async def test_who_cannot_be_written_is_told_and_the_others_are_written(store: Watched) -> None:
    def refuse(body: Document | None) -> Document:
        raise Conflict("busy")

    await mutate(store, STATE, "ada", [Create(record("taken"))], [counted()])
    jobs: list[tuple[list[Operation], Change]] = [
        ([Create(record("a"))], counted()),
        ([Create(record("b"))], counted()),
        ([Create(record("c")), Create(record("taken"))], counted()),
        ([Create(record("d"))], Change("count", refuse)),
        ([Replace(record("taken"), "1234567")], counted()),
        ([Create(record("e"))], counted()),
    ]

    first, *outcomes = await many(store, jobs)

    taken, refused, stale = outcomes[1:4]
    assert isinstance(first, tuple)
    assert isinstance(taken, AlreadyExists)
    assert (taken.index, taken.id) == (1, "taken")
    assert isinstance(refused, Conflict)
    assert isinstance(stale, Stale)
    assert stale.index == 0
    assert await count(store) == 4
    found = [await store.read(STATE, "ada", id_) for id_ in ("a", "b", "c", "d", "e")]
    assert [each is not None for each in found] == [True, True, False, False, True]


async def test_another_process_that_changes_the_same_record_loses_nothing(store: Watched) -> None:
    """Its change is seen when the group is tried again."""

    known = (await mutate(store, STATE, "ada", [], [counted()]))[1][0]
    await store.batch(STATE, "ada", [Replace(record("count", 100), known.etag)])
    changes = [counted() for _ in range(3)]
    for change in changes:
        change.known, change.is_known = known, True

    await asyncio.gather(*(mutate(store, STATE, "ada", [], [change]) for change in changes))

    assert await count(store) == 103


async def test_a_group_has_an_end(store: Watched) -> None:
    await many(store, [([Create(record(f"thing{number}"))], counted()) for number in range(3 * LARGEST_GROUP)])

    assert max(store.sizes) == LARGEST_GROUP + 1
    assert await count(store) == 3 * LARGEST_GROUP


async def test_what_is_refused_together_is_tried_alone(store: Watched) -> None:
    store.most = 2

    outcomes = await many(store, [([Create(record(f"thing{number}"))], counted()) for number in range(4)])

    assert all(isinstance(outcome, tuple) for outcome in outcomes)
    assert await count(store) == 4


async def test_where_the_outcome_is_unknown_everyone_is_told(store: Watched) -> None:
    store.is_down = True

    outcomes = await many(store, [([Create(record(f"thing{number}"))], counted()) for number in range(4)])

    assert all(isinstance(outcome, StorageUnavailable) for outcome in outcomes)
    assert len({id(outcome) for outcome in outcomes}) == 4


async def test_who_leaves_the_line_is_not_written_and_nobody_waits_for_it(store: Watched) -> None:
    tasks = [asyncio.create_task(mutate(store, STATE, "ada", [], [counted()])) for _ in range(3)]
    await asyncio.sleep(0)
    tasks[1].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

    assert await count(store) == 2


async def test_who_leaves_just_before_its_group_begins_is_not_written(
    store: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = [asyncio.create_task(mutate(store, STATE, "ada", [Create(record(id_))], [counted()])) for id_ in "abcd"]
    batch = store.batch

    async def then_one_leaves(container: str, partition: str, operations: Sequence[Operation]) -> list[str]:
        etags = await batch(container, partition, operations)
        tasks[2].cancel()
        return etags

    monkeypatch.setattr(store, "batch", then_one_leaves)
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)

    assert [isinstance(each, tuple) for each in outcomes] == [True, True, False, True]
    assert await count(store) == 3
    assert await store.read(STATE, "ada", "c") is None


async def test_however_many_are_refused_each_is_told(store: Watched) -> None:
    def refuse(body: Document | None) -> Document:
        raise Conflict("busy")

    refused: tuple[list[Operation], Change] = ([Create(record("same"))], Change("count", refuse, is_known=True))
    async with asyncio.timeout(10):
        first, *outcomes = await many(store, [([], counted()), *[refused] * 1000])

    assert isinstance(first, tuple)
    assert [type(outcome) for outcome in outcomes] == [Conflict] * 1000


async def test_records_that_only_one_may_write_in_a_batch_are_written_one_after_the_other(store: Watched) -> None:
    jobs: list[tuple[list[Operation], Change]] = [([Create(record("same"))], counted()) for _ in range(3)]

    outcomes = await many(store, jobs)

    assert [type(outcome) for outcome in outcomes] == [tuple, AlreadyExists, AlreadyExists]
    assert await count(store) == 1


async def test_a_write_is_counted_to_who_asked_for_it_when_nobody_else_did(store: Watched) -> None:
    with Tally() as tally:
        await mutate(store, STATE, "ada", [], [counted()])

    assert tally.charge > 0
