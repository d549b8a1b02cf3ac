"""What every `Store` promises, on every adapter. What the emulator cannot do is named in `conftest.EMULATOR_CANNOT`."""

import asyncio
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import pytest

from shared.clock import ManualClock
from shared.errors import InvalidRequest, PayloadTooLarge, StorageUnavailable
from shared.settings import Secret, Settings
from shared.storage.base import (
    DIRECTORY,
    EVENTS,
    STATE,
    AlreadyExists,
    BatchFailed,
    Create,
    Delete,
    Document,
    Missing,
    Query,
    Replace,
    Stale,
    Store,
    Upsert,
)
from shared.storage.cosmos import CosmosStore, container_definitions
from shared.storage.sqlite import SqliteStore
from shared.telemetry import Tally
from tests.contract import conftest
from tests.contract.conftest import Backend
from tests.processes import ROOT, free_port

LARGE = pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
"""What the SDK's client has to say of it is nobody's business here."""


def a_turn(number: int, **fields: Any) -> Document:
    return {"id": f"turn-{number}", "kind": "turn", "group": "thread", "sort": f"{number:06}", "n": number} | fields


async def stored(store: Store, partition: str, id_: str) -> Document | None:
    found = await store.read(STATE, partition, id_)
    return found.body if found else None


async def add(store: Store, partition: str, *documents: Document) -> list[str]:
    return await store.batch(STATE, partition, [Create(document) for document in documents])


class TestWriting:
    async def test_a_created_document_reads_back_as_written(self, store: Store, partition: str) -> None:
        document = a_turn(
            1, text="größer als 🦕 \u0000 \"'\\", nested={"list": [1, 2.5, None, True], "": {}}, big=2**53 - 1
        )

        await add(store, partition, document)

        assert await stored(store, partition, "turn-1") == document

    async def test_what_is_not_there_reads_as_nothing(self, store: Store, partition: str) -> None:
        assert await store.read(STATE, partition, "turn-1") is None

    async def test_the_etag_returned_is_the_one_read(self, store: Store, partition: str) -> None:
        (created,) = await add(store, partition, a_turn(1))
        first, second = await add(store, partition, a_turn(2), a_turn(3))

        found = [await store.read(STATE, partition, f"turn-{number}") for number in (1, 2, 3)]

        assert [one.etag for one in found if one] == [created, first, second]

    async def test_creating_twice_fails_with_already_exists(self, store: Store, partition: str) -> None:
        await add(store, partition, a_turn(1))

        with pytest.raises(AlreadyExists) as failure:
            await add(store, partition, a_turn(1, text="second"))

        assert (failure.value.index, failure.value.id) == (0, "turn-1")
        assert await stored(store, partition, "turn-1") == a_turn(1)

    async def test_replace_writes_when_the_etag_is_the_stored_one(self, store: Store, partition: str) -> None:
        (etag,) = await add(store, partition, a_turn(1))

        await store.batch(STATE, partition, [Replace(a_turn(1, text="new"), etag)])

        assert await stored(store, partition, "turn-1") == a_turn(1, text="new")

    async def test_every_write_changes_the_etag(self, store: Store, partition: str) -> None:
        """Even one that changes nothing else: an old etag never fits again."""
        (first,) = await add(store, partition, a_turn(1))
        (second,) = await store.batch(STATE, partition, [Replace(a_turn(1), first)])
        (third,) = await store.batch(STATE, partition, [Upsert(a_turn(1))])
        await store.batch(STATE, partition, [Delete("turn-1")])
        (fourth,) = await add(store, partition, a_turn(1))

        assert len({first, second, third, fourth}) == 4

    @LARGE
    async def test_more_than_two_megabytes_at_once_are_refused(self, store: Store, partition: str) -> None:
        """However many documents they are; bytes count, and not characters."""
        for documents in (1, 3):
            text = "ä" * (1_100_000 // documents)
            with pytest.raises(PayloadTooLarge):
                await add(store, partition, *(a_turn(number, text=text) for number in range(documents)))

        assert await store.scan(STATE, partition) == []

    @LARGE
    async def test_almost_two_megabytes_at_once_are_stored(self, store: Store, partition: str) -> None:
        (etag,) = await add(store, partition, a_turn(1, text="x" * 1_990_000))

        found = await store.read(STATE, partition, "turn-1")
        assert found is not None
        assert (found.etag, len(found.body["text"])) == (etag, 1_990_000)

    async def test_replace_with_an_old_etag_fails_with_stale(self, store: Store, partition: str) -> None:
        (old,) = await add(store, partition, a_turn(1))
        await store.batch(STATE, partition, [Upsert(a_turn(1, text="newer"))])

        with pytest.raises(Stale) as failure:
            await store.batch(STATE, partition, [Replace(a_turn(1, text="late"), old)])

        assert (failure.value.index, failure.value.id) == (0, "turn-1")
        assert await stored(store, partition, "turn-1") == a_turn(1, text="newer")

    async def test_replace_of_nothing_fails_with_missing(self, store: Store, partition: str) -> None:
        with pytest.raises(Missing):
            await store.batch(STATE, partition, [Replace(a_turn(1), "1")])

    async def test_an_etag_of_another_store_is_stale(self, store: Store, partition: str) -> None:
        await add(store, partition, a_turn(1))

        with pytest.raises(Stale):
            await store.batch(STATE, partition, [Replace(a_turn(1), '"0000-not-ours"')])

    async def test_upsert_creates_and_overwrites(self, store: Store, partition: str) -> None:
        await store.batch(STATE, partition, [Upsert(a_turn(1))])
        await store.batch(STATE, partition, [Upsert(a_turn(1, text="new"))])

        assert await stored(store, partition, "turn-1") == a_turn(1, text="new")

    async def test_delete_removes(self, store: Store, partition: str) -> None:
        (etag,) = await add(store, partition, a_turn(1))
        await add(store, partition, a_turn(2))

        etags = await store.batch(STATE, partition, [Delete("turn-1", etag), Delete("turn-2")])

        assert etags == ["", ""]
        assert await store.scan(STATE, partition) == []

    async def test_a_single_delete_removes(self, store: Store, partition: str) -> None:
        await add(store, partition, a_turn(1))

        assert await store.batch(STATE, partition, [Delete("turn-1")]) == [""]
        assert await stored(store, partition, "turn-1") is None

    async def test_delete_of_nothing_fails_with_missing(self, store: Store, partition: str) -> None:
        with pytest.raises(Missing) as failure:
            await store.batch(STATE, partition, [Delete("turn-1")])

        assert (failure.value.index, failure.value.id) == (0, "turn-1")

    async def test_delete_with_an_old_etag_fails_with_stale(self, store: Store, partition: str) -> None:
        (old,) = await add(store, partition, a_turn(1))
        await store.batch(STATE, partition, [Upsert(a_turn(1))])

        with pytest.raises(Stale):
            await store.batch(STATE, partition, [Delete("turn-1", old)])

    async def test_a_document_of_100_kilobytes(self, store: Store, partition: str) -> None:
        document = a_turn(1, text="x€" * 25_000)

        await add(store, partition, document)

        assert await stored(store, partition, "turn-1") == document

    async def test_the_caller_keeps_its_document(self, store: Store, partition: str) -> None:
        document = a_turn(1)

        await add(store, partition, document)

        assert document == a_turn(1)

    @pytest.mark.parametrize("id_", ["", "a/b", "a\\b", "a?b", "a#b"])
    async def test_an_id_that_one_store_could_not_hold_is_refused_by_all(
        self, store: Store, partition: str, id_: str
    ) -> None:
        with pytest.raises(ValueError, match="an id is not empty"):
            await add(store, partition, {"id": id_})

    async def test_the_store_keeps_its_own_field_names(self, store: Store, partition: str) -> None:
        with pytest.raises(ValueError, match="keeps for itself"):
            await add(store, partition, {"id": "one", "pk": "other"})


class TestBatch:
    async def test_a_batch_of_100_operations(self, store: Store, partition: str) -> None:
        etags = await add(store, partition, *(a_turn(number) for number in range(100)))

        assert len(set(etags)) == 100
        assert len(await store.scan(STATE, partition)) == 100

    async def test_more_than_100_operations_are_a_bug(self, store: Store, partition: str) -> None:
        with pytest.raises(ValueError, match="at most 100"):
            await add(store, partition, *(a_turn(number) for number in range(101)))

    async def test_an_empty_batch_does_nothing(self, store: Store, partition: str) -> None:
        assert await store.batch(STATE, partition, []) == []

    async def test_operations_of_every_kind_together(self, store: Store, partition: str) -> None:
        replaced, _, deleted = await add(store, partition, a_turn(1), a_turn(2), a_turn(3))

        etags = await store.batch(
            STATE,
            partition,
            [
                Replace(a_turn(1, text="new"), replaced),
                Upsert(a_turn(2, text="new")),
                Delete("turn-3", deleted),
                Create(a_turn(4)),
                Upsert(a_turn(5)),
            ],
        )

        assert [bool(etag) for etag in etags] == [True, True, False, True, True]
        found = [one.body for one in await store.scan(STATE, partition)]
        assert found == [a_turn(1, text="new"), a_turn(2, text="new"), a_turn(4), a_turn(5)]

    @pytest.mark.parametrize(
        ("operation", "error"),
        [
            (Create(a_turn(2, text="taken")), AlreadyExists),
            (Replace(a_turn(2, text="new"), "1"), Stale),
            (Replace(a_turn(9), "1"), Missing),
            (Delete("turn-9"), Missing),
            (Delete("turn-2", "1"), Stale),
        ],
        ids=["create", "replace stale", "replace missing", "delete missing", "delete stale"],
    )
    @pytest.mark.parametrize("position", [0, 2])
    async def test_all_or_none(
        self,
        store: Store,
        partition: str,
        operation: Create | Replace | Delete,
        error: type[BatchFailed],
        position: int,
    ) -> None:
        await add(store, partition, a_turn(1), a_turn(2))
        operations = [Create(a_turn(3)), Upsert(a_turn(1, text="overwritten")), Create(a_turn(4))]
        before = await store.scan(STATE, partition)

        with pytest.raises(error) as failure:
            await store.batch(STATE, partition, [*operations[:position], operation, *operations[position:]])

        assert failure.value.index == position
        assert failure.value.id == (operation.id if isinstance(operation, Delete) else operation.body["id"])
        assert await store.scan(STATE, partition) == before

    async def test_the_first_operation_that_fails_is_named(self, store: Store, partition: str) -> None:
        await add(store, partition, a_turn(1), a_turn(2))

        with pytest.raises(BatchFailed) as failure:
            await store.batch(STATE, partition, [Create(a_turn(3)), Create(a_turn(2)), Create(a_turn(1))])

        assert failure.value.index == 1

    async def test_a_failed_batch_fails_no_other_that_runs_beside_it(self, store: Store, partition: str) -> None:
        await add(store, partition, a_turn(1))

        async def write(number: int) -> str:
            try:
                await add(store, partition, a_turn(100 + number), a_turn(1 if number % 2 else 200 + number))
            except AlreadyExists:
                return "refused"
            return "written"

        outcomes = await asyncio.gather(*(write(number) for number in range(20)))

        assert outcomes == ["written", "refused"] * 10
        assert len(await store.scan(STATE, partition)) == 21


class TestQuery:
    @pytest.fixture(autouse=True)
    async def documents(self, store: Store, partition: str) -> None:
        turns = [a_turn(number, group="even" if number % 2 == 0 else "odd") for number in (5, 3, 1, 4, 2, 0)]
        await add(store, partition, *turns, a_turn(1, id="conversation", kind="conversation"))

    @pytest.mark.parametrize(
        ("query", "expected"),
        [
            (Query(kind="turn"), [0, 1, 2, 3, 4, 5]),
            (Query(kind="turn", order="desc"), [5, 4, 3, 2, 1, 0]),
            (Query(kind="turn", group="odd"), [1, 3, 5]),
            (Query(kind="turn", group="odd", order="desc"), [5, 3, 1]),
            (Query(kind="turn", limit=2), [0, 1]),
            (Query(kind="turn", order="desc", limit=2), [5, 4]),
            (Query(kind="turn", after="000003"), [4, 5]),
            (Query(kind="turn", after="000003", order="desc"), [2, 1, 0]),
            (Query(kind="turn", group="even", after="000002", limit=1), [4]),
            (Query(kind="turn", group="even", after="000003", order="desc", limit=1), [2]),
            (Query(kind="turn", group="none"), []),
            (Query(kind="other"), []),
            (Query(kind="turn", after="000005"), []),
        ],
        ids=str,
    )
    async def test_a_page_in_key_order(self, store: Store, partition: str, query: Query, expected: list[int]) -> None:
        assert [one.body["n"] for one in await store.query(STATE, partition, query)] == expected

    async def test_a_result_carries_its_etag(self, store: Store, partition: str) -> None:
        (found,) = await store.query(STATE, partition, Query(kind="conversation"))

        assert found == await store.read(STATE, partition, "conversation")

    async def test_pages_join_without_gap_or_repeat(self, store: Store, partition: str) -> None:
        seen: list[int] = []
        after: str | None = None
        while page := await store.query(STATE, partition, Query(kind="turn", after=after, order="desc", limit=4)):
            seen += [one.body["n"] for one in page]
            after = page[-1].body["sort"]

        assert seen == [5, 4, 3, 2, 1, 0]

    async def test_a_document_without_sort_is_not_found(self, store: Store, partition: str) -> None:
        await add(store, partition, {"id": "unsorted", "kind": "turn", "group": "odd"})

        assert len(await store.query(STATE, partition, Query(kind="turn"))) == 6
        assert len(await store.query(STATE, partition, Query(kind="turn", group="odd", order="desc"))) == 3

    async def test_a_replaced_document_moves_to_its_new_place(self, store: Store, partition: str) -> None:
        await store.batch(STATE, partition, [Upsert(a_turn(0, group="odd", sort="000009"))])

        found = await store.query(STATE, partition, Query(kind="turn", group="odd"))

        assert [one.body["n"] for one in found] == [1, 3, 5, 0]

    async def test_quotes_in_values_are_only_values(self, store: Store, partition: str) -> None:
        await add(store, partition, a_turn(7, group='it\'s "@kind" --'))

        found = await store.query(STATE, partition, Query(kind="turn", group='it\'s "@kind" --'))

        assert [one.body["n"] for one in found] == [7]


class TestPartitions:
    async def test_partitions_do_not_see_each_other(self, store: Store, partition: str) -> None:
        other = f"{partition}-other"
        await add(store, partition, a_turn(1))

        assert await store.read(STATE, other, "turn-1") is None
        assert await store.query(STATE, other, Query(kind="turn")) == []
        assert await store.scan(STATE, other) == []
        with pytest.raises(Missing):
            await store.batch(STATE, other, [Delete("turn-1")])
        with pytest.raises(Missing):
            await store.batch(STATE, other, [Replace(a_turn(1), "1")])

    async def test_the_same_id_may_be_in_several(self, store: Store, partition: str) -> None:
        other = f"{partition}-other"
        await add(store, partition, a_turn(1, text="mine"))
        await add(store, other, a_turn(1, text="theirs"))

        await store.batch(STATE, other, [Delete("turn-1")])

        assert await stored(store, partition, "turn-1") == a_turn(1, text="mine")

    async def test_containers_do_not_see_each_other(self, store: Store, partition: str) -> None:
        await add(store, partition, a_turn(1))

        assert await store.read(EVENTS, partition, "turn-1") is None

    @pytest.mark.parametrize("owner", ["https://issuer.example/a|b c", "ünïcode-🦕", 'quo"te', "x" * 200])
    async def test_any_text_may_be_an_owner(self, store: Store, partition: str, owner: str) -> None:
        await add(store, f"{partition}{owner}", a_turn(1))

        assert await stored(store, f"{partition}{owner}", "turn-1") == a_turn(1)
        assert len(await store.query(STATE, f"{partition}{owner}", Query(kind="turn"))) == 1
        assert await store.erase(STATE, f"{partition}{owner}") == 1


class TestScan:
    async def test_a_whole_partition_in_id_order(self, store: Store, partition: str) -> None:
        for number in (3, 1, 2, 10):
            await store.batch(EVENTS, partition, [Create({"id": f"{number:04}", "text": "x"})])

        found = await store.scan(EVENTS, partition)

        assert [one.body["id"] for one in found] == ["0001", "0002", "0003", "0010"]
        assert found[0] == await store.read(EVENTS, partition, "0001")

    async def test_a_partition_of_300(self, store: Store, partition: str) -> None:
        """More than one page of what the store sends at once."""
        for start in range(0, 300, 100):
            await add(store, partition, *(a_turn(number) for number in range(start, start + 100)))

        assert len(await store.scan(STATE, partition)) == 300


class TestDue:
    async def test_what_is_due_in_any_partition_earliest_first(self, store: Store, partition: str) -> None:
        kind = f"work-{uuid4().hex}"
        for number, due in enumerate((30.5, 10, 20, 99)):
            document = {"id": f"work-{number}", "kind": kind, "due": due, "sort": "1"}
            await add(store, f"{partition}-{number}", document)
        await add(store, partition, {"id": "done", "kind": kind}, a_turn(1, due=5))

        found = await store.due(STATE, kind, before=99)

        assert [(one.partition, one.stored.body["due"]) for one in found] == [
            (f"{partition}-1", 10),
            (f"{partition}-2", 20),
            (f"{partition}-0", 30.5),
        ]
        assert found[0].stored == await store.read(STATE, f"{partition}-1", "work-1")

    async def test_at_most_the_limit(self, store: Store, partition: str) -> None:
        kind = f"work-{uuid4().hex}"
        await add(store, partition, *({"id": f"w{n}", "kind": kind, "due": n} for n in (4, 2, 3, 1)))

        found = await store.due(STATE, kind, before=100, limit=2)

        assert [one.stored.body["due"] for one in found] == [1, 2]

    async def test_page_by_page(self, store: Store, partition: str) -> None:
        kind = f"work-{uuid4().hex}"
        await add(store, partition, *({"id": f"w{n}", "kind": kind, "due": n + 0.5} for n in range(5)))

        found = await store.due(STATE, kind, after=1.5, before=4.5, limit=2)
        rest = await store.due(STATE, kind, after=found[-1].stored.body["due"], before=4.5, limit=9)

        assert [one.stored.body["due"] for one in found] == [1.5, 2.5]
        assert [one.stored.body["due"] for one in rest] == [2.5, 3.5]

    async def test_what_lost_its_date_is_due_no_more(self, store: Store, partition: str) -> None:
        kind = f"work-{uuid4().hex}"
        await add(store, partition, {"id": "w", "kind": kind, "due": 1})
        await store.batch(STATE, partition, [Upsert({"id": "w", "kind": kind})])

        assert await store.due(STATE, kind, before=100) == []


class TestExpiry:
    async def test_expired_documents_are_invisible_at_once(
        self, backend: Backend, store: Store, partition: str
    ) -> None:
        kind = f"work-{uuid4().hex}"
        document = a_turn(1, kind=kind, due=1, ttl=1)
        await add(store, partition, document, a_turn(2, kind=kind), a_turn(3, kind=kind, ttl=-1))
        assert await stored(store, partition, "turn-1") == document

        await backend.wait(2)

        assert await store.read(STATE, partition, "turn-1") is None
        assert [one.body["n"] for one in await store.query(STATE, partition, Query(kind=kind))] == [2, 3]
        assert [one.body["n"] for one in await store.scan(STATE, partition)] == [2, 3]
        assert await store.due(STATE, kind, before=100) == []
        with pytest.raises(Missing):
            await store.batch(STATE, partition, [Delete("turn-1")])

    async def test_a_container_has_a_default_expiry(self, backend: Backend, store: Store, partition: str) -> None:
        """A journal's batches go after a day, or earlier where one says so."""
        await store.batch(EVENTS, partition, [Create({"id": "1"}), Create({"id": "2", "ttl": 1})])

        await backend.wait(2)

        assert [one.body["id"] for one in await store.scan(EVENTS, partition)] == ["1"]
        if isinstance(backend.clock, ManualClock):  # nobody waits a day for another clock
            await backend.wait(86_400)
            assert await store.scan(EVENTS, partition) == []

    async def test_an_expired_id_is_free_again(self, backend: Backend, store: Store, partition: str) -> None:
        (etag,) = await add(store, partition, a_turn(1, ttl=1))

        await backend.wait(2)
        with pytest.raises(Missing):
            await store.batch(STATE, partition, [Replace(a_turn(1), etag)])
        await add(store, partition, a_turn(1, text="second"))

        assert await stored(store, partition, "turn-1") == a_turn(1, text="second")

    async def test_a_write_starts_the_time_again(self, backend: Backend, store: Store, partition: str) -> None:
        await add(store, partition, a_turn(1, ttl=2))
        await backend.wait(1.2)
        await store.batch(STATE, partition, [Upsert(a_turn(1, ttl=2))])
        await backend.wait(1.2)

        assert await stored(store, partition, "turn-1") == a_turn(1, ttl=2)


class TestChanges:
    async def test_the_first_call_shows_everything(self, store: Store, partition: str) -> None:
        await add(store, partition, a_turn(1), a_turn(2))

        changed = await store.changes(STATE, partition, since=None)

        assert [one.body["n"] for one in changed.documents] == [1, 2]
        assert changed.documents[0] == await store.read(STATE, partition, "turn-1")
        assert not changed.has_more

    async def test_a_partition_without_documents_has_a_token_too(self, store: Store, partition: str) -> None:
        changed = await store.changes(STATE, partition, since=None)

        assert (changed.documents, changed.has_more) == ([], False)
        assert changed.token

    async def test_changes_continue_from_a_token(self, store: Store, partition: str) -> None:
        nothing = await store.changes(STATE, partition, since=None)
        await add(store, partition, a_turn(1), a_turn(2))
        first = await store.changes(STATE, partition, since=nothing.token)
        await store.batch(STATE, partition, [Upsert(a_turn(1, text="new")), Create(a_turn(3))])
        second = await store.changes(STATE, partition, since=first.token)
        third = await store.changes(STATE, partition, since=second.token)

        assert [one.body["n"] for one in first.documents] == [1, 2]
        assert [one.body for one in second.documents] == [a_turn(1, text="new"), a_turn(3)]
        assert (third.documents, third.has_more) == ([], False)

    async def test_changes_show_each_document_once_in_its_latest_version(self, store: Store, partition: str) -> None:
        """A deleted one does not show: who must tell of it writes a tombstone."""
        nothing = await store.changes(STATE, partition, since=None)
        await add(store, partition, a_turn(1), a_turn(2), a_turn(3))
        await store.batch(STATE, partition, [Upsert(a_turn(1, text="new")), Delete("turn-2")])

        changed = await store.changes(STATE, partition, since=nothing.token)

        assert [one.body for one in changed.documents] == [a_turn(3), a_turn(1, text="new")]

    async def test_changes_come_in_pages(self, store: Store, partition: str) -> None:
        await add(store, partition, *(a_turn(number) for number in range(5)))
        seen: list[int] = []
        sizes: list[int] = []
        token: str | None = None
        has_more = True

        while has_more:
            changed = await store.changes(STATE, partition, since=token, limit=2)
            seen += [one.body["n"] for one in changed.documents]
            sizes.append(len(changed.documents))
            token, has_more = changed.token, changed.has_more

        assert seen == [0, 1, 2, 3, 4]
        assert max(sizes) == 2

    async def test_changes_of_another_partition_do_not_show(self, store: Store, partition: str) -> None:
        """Not even with a token that was made for that one: clients keep tokens."""
        other = f"{partition}-other"
        start = await store.changes(STATE, other, since=None)
        await add(store, other, a_turn(1, text="theirs"))
        await add(store, partition, a_turn(2))
        theirs = await store.changes(STATE, other, since=start.token)

        mine = await store.changes(STATE, partition, since=None)
        with_their_token = await store.changes(STATE, partition, since=start.token)

        assert [one.body["n"] for one in theirs.documents] == [1]
        assert [one.body["n"] for one in mine.documents] == [2]
        assert all(one.body["n"] == 2 for one in with_their_token.documents)

    async def test_a_made_up_token_is_an_invalid_request(self, store: Store, partition: str) -> None:
        with pytest.raises(InvalidRequest):
            await store.changes(STATE, partition, since="made up")


class TestErase:
    async def test_everything_of_the_partition_goes(self, store: Store, partition: str) -> None:
        other = f"{partition}-other"
        await add(store, other, a_turn(1))
        for start in (0, 100):
            await add(store, partition, *(a_turn(number) for number in range(start, start + 70)))

        assert await store.erase(STATE, partition) == 140

        assert await store.scan(STATE, partition) == []
        assert await stored(store, other, "turn-1") == a_turn(1)

    async def test_erase_is_safe_to_repeat(self, store: Store, partition: str) -> None:
        await add(store, partition, a_turn(1))

        assert [await store.erase(STATE, partition) for _ in range(2)] == [1, 0]

    async def test_two_erases_at_once_both_end(self, store: Store, partition: str) -> None:
        await add(store, partition, *(a_turn(number) for number in range(50)))

        counts = await asyncio.gather(store.erase(STATE, partition), store.erase(STATE, partition))

        assert sum(counts) == 50
        assert await store.scan(STATE, partition) == []


class TestConcurrency:
    async def test_of_50_replaces_with_one_etag_exactly_one_wins(self, store: Store, partition: str) -> None:
        (etag,) = await add(store, partition, a_turn(1))

        async def replace_it(number: int) -> bool:
            try:
                await store.batch(STATE, partition, [Replace(a_turn(1, writer=number), etag)])
            except Stale:
                return False
            return True

        wins = await asyncio.gather(*(replace_it(number) for number in range(50)))

        body = await stored(store, partition, "turn-1")
        assert wins.count(True) == 1
        assert body is not None
        assert body["writer"] == wins.index(True)

    async def test_of_50_creates_of_one_id_exactly_one_wins(self, store: Store, partition: str) -> None:
        outcomes = await asyncio.gather(
            *(add(store, partition, a_turn(1, writer=number), a_turn(100 + number)) for number in range(50)),
            return_exceptions=True,
        )

        assert sum(isinstance(outcome, AlreadyExists) for outcome in outcomes) == 49
        assert len(await store.scan(STATE, partition)) == 2

    async def test_a_counter_that_many_change_loses_nothing(
        self, backend: Backend, store: Store, partition: str
    ) -> None:
        """Two stores on the same data, as two processes have."""
        stores = (store, backend.open())
        await add(store, partition, {"id": "counter", "n": 0})

        async def increment(mine: Store) -> None:
            while True:
                found = await mine.read(STATE, partition, "counter")
                assert found
                try:
                    await mine.batch(STATE, partition, [Replace(found.body | {"n": found.body["n"] + 1}, found.etag)])
                except Stale:
                    continue
                return

        await asyncio.gather(*(increment(stores[number % 2]) for number in range(16)))

        assert await stored(stores[1], partition, "counter") == {"id": "counter", "n": 16}

    async def test_a_second_store_sees_what_the_first_wrote(
        self, backend: Backend, store: Store, partition: str
    ) -> None:
        second = backend.open()
        (etag,) = await add(store, partition, a_turn(1))
        assert await stored(second, partition, "turn-1") == a_turn(1)

        await second.batch(STATE, partition, [Replace(a_turn(1, text="by the second"), etag)])

        assert await stored(store, partition, "turn-1") == a_turn(1, text="by the second")

    async def test_a_cancelled_caller_does_not_disturb_the_others(self, store: Store, partition: str) -> None:
        async with asyncio.TaskGroup() as group:
            first = group.create_task(add(store, partition, a_turn(1)))
            second = group.create_task(add(store, partition, a_turn(2)))
            await asyncio.sleep(0)
            first.cancel()

        assert second.result()
        assert await stored(store, partition, "turn-2") == a_turn(2)


class TestCharge:
    async def test_each_operation_counts_once_with_its_charge(self, store: Store, partition: str) -> None:
        (etag,) = await add(store, partition, a_turn(1))
        with Tally() as tally:
            await store.read(STATE, partition, "turn-1")
            await store.read(STATE, partition, "turn-9")
            await store.query(STATE, partition, Query(kind="turn"))
            await store.scan(STATE, partition)
            await store.due(STATE, "turn", before=1)
            await store.batch(STATE, partition, [Replace(a_turn(1), etag), Create(a_turn(2))])
            with pytest.raises(Stale):
                await store.batch(STATE, partition, [Replace(a_turn(1), etag)])

        assert tally.counts == {"read": 2, "query": 1, "scan": 1, "due": 1, "batch": 2}
        assert tally.charge >= tally.operations

    async def test_a_larger_document_costs_more(self, store: Store, partition: str) -> None:
        charges: list[float] = []
        for size in (100, 50_000):
            with Tally() as tally:
                await add(store, partition, a_turn(size, text="x" * size))
                await store.read(STATE, partition, f"turn-{size}")
            charges.append(tally.charge)

        assert charges[1] > 2 * charges[0]


class TestLife:
    async def test_setup_is_safe_to_repeat(self, backend: Backend, store: Store, partition: str) -> None:
        await add(store, partition, a_turn(1))

        await store.setup()
        await asyncio.gather(*(backend.open().setup() for _ in range(3)))

        assert await stored(store, partition, "turn-1") == a_turn(1)

    async def test_ping_answers(self, store: Store) -> None:
        await store.ping()

    async def test_close_is_safe_to_repeat(self, backend: Backend) -> None:
        store = backend.open()
        await store.setup()
        await store.ping()

        await store.close()
        await store.close()

    async def test_the_directory_is_keyed_by_its_own_ids(self, store: Store, partition: str) -> None:
        await store.batch(DIRECTORY, partition, [Create({"id": partition, "kind": "api_key", "owner": "me"})])

        found = await store.read(DIRECTORY, partition, partition)

        assert found is not None
        assert found.body["owner"] == "me"


class TestUnavailable:
    """An endpoint that refuses connections, one that never answers, and a file that another process holds."""

    @pytest.mark.parametrize("how", ["refuses", "is silent"])
    async def test_a_dead_endpoint_is_told_within_the_limit(
        self, how: Literal["refuses", "is silent"], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # The limit itself is what is tested; nobody waits ten seconds for that.
        monkeypatch.setattr("shared.storage.cosmos.LIMIT", 1.0)
        port = free_port()
        server = await asyncio.start_server(_say_nothing, "127.0.0.1", port) if how == "is silent" else None
        settings = replace(
            Settings.read({}).storage, cosmos_endpoint=f"http://127.0.0.1:{port}", cosmos_key=Secret("eA==")
        )
        store = CosmosStore(settings)
        started = time.monotonic()

        with pytest.raises(StorageUnavailable):
            await store.read(STATE, "owner", "turn-1")
        with pytest.raises(StorageUnavailable):
            await store.batch(STATE, "owner", [Create(a_turn(1))])

        await store.close()
        if server is not None:
            server.close()
        assert time.monotonic() - started < 20

    async def test_a_locked_file_is_told_within_the_limit(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("shared.storage.sqlite_schema.BUSY_SECONDS", 0.2)
        path = str(tmp_path / "companion.db")
        store = SqliteStore(path, ManualClock())
        await add(store, "owner", a_turn(1))
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")

        with pytest.raises(StorageUnavailable):
            await add(store, "owner", a_turn(2))
        while_locked = await stored(store, "owner", "turn-1")
        holder.execute("ROLLBACK")
        holder.close()
        await add(store, "owner", a_turn(3))
        await store.close()

        assert while_locked == a_turn(1)

    async def test_a_closed_store_says_so(self, tmp_path: Path) -> None:
        store = SqliteStore(str(tmp_path / "companion.db"), ManualClock())
        await store.close()

        with pytest.raises(StorageUnavailable, match="closed"):
            await store.read(STATE, "owner", "turn-1")

    async def test_a_folder_that_cannot_be_made_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        store = SqliteStore(str(tmp_path / "file" / "companion.db"), ManualClock())

        with pytest.raises(StorageUnavailable):
            await store.read(STATE, "owner", "turn-1")


async def _say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()


WRITER = """
import asyncio, sys
from shared.clock import SystemClock
from shared.storage.base import STATE, Create, Replace, Stale
from shared.storage.sqlite import SqliteStore

async def main(path, name):
    store = SqliteStore(path, SystemClock())
    for number in range(100):
        await store.batch(STATE, "owner", [Create({"id": f"{name}-{number}"})])
        while True:
            found = await store.read(STATE, "owner", "counter")
            try:
                await store.batch(STATE, "owner", [Replace({"id": "counter", "n": found.body["n"] + 1}, found.etag)])
                break
            except Stale:
                continue
    await store.close()

asyncio.run(main(*sys.argv[1:]))
"""


def all_bytes(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.iterdir())


class TestSqliteFile:
    """What only a file has: other processes, a disk, an earlier life."""

    async def test_processes_share_a_file(self, tmp_path: Path) -> None:
        path = str(tmp_path / "companion.db")
        store = SqliteStore(path, ManualClock())
        await add(store, "owner", {"id": "counter", "n": 0})

        writers = [
            await asyncio.create_subprocess_exec(sys.executable, "-c", WRITER, path, name, cwd=ROOT)
            for name in ("first", "second")
        ]
        codes = [await writer.wait() for writer in writers]

        counter = await stored(store, "owner", "counter")
        documents = await store.scan(STATE, "owner")
        await store.close()
        assert codes == [0, 0]
        assert counter == {"id": "counter", "n": 200}
        assert len(documents) == 201

    async def test_processes_may_create_the_file_at_once(self, tmp_path: Path) -> None:
        stores = [SqliteStore(str(tmp_path / "companion.db"), ManualClock()) for _ in range(4)]

        await asyncio.gather(
            *(asyncio.to_thread(asyncio.run, add(store, "owner", a_turn(n))) for n, store in enumerate(stores))
        )

        found = await stores[0].scan(STATE, "owner")
        for store in stores:
            await store.close()
        assert len(found) == 4

    async def test_close_finishes_what_was_accepted(self, tmp_path: Path) -> None:
        path = str(tmp_path / "companion.db")
        store = SqliteStore(path, ManualClock())
        writes = [asyncio.create_task(add(store, "owner", a_turn(number))) for number in range(200)]
        await asyncio.sleep(0)

        await store.close()
        await asyncio.gather(*writes)

        again = SqliteStore(path, ManualClock())
        found = await again.scan(STATE, "owner")
        await again.close()
        assert len(found) == 200

    async def test_erased_bytes_are_gone_from_the_disk(self, tmp_path: Path) -> None:
        """Also those of versions that were overwritten, deleted or moved between pages before."""
        store = SqliteStore(str(tmp_path / "companion.db"), ManualClock())
        other = SqliteStore(str(tmp_path / "companion.db"), ManualClock())
        for number in range(120):
            for owner in ("alice", "bob"):
                mark = f"canary-{owner}-"
                document = a_turn(number % 40, group=mark, sort=f"{mark}{number}", text=mark * (number * 37 % 300))
                await store.batch(STATE, mark, [Upsert(document | {"id": f"{mark}{number % 40}"})])
        await store.batch(STATE, "canary-alice-", [Delete("canary-alice-7")])
        await other.scan(STATE, "canary-alice-")

        await store.erase(STATE, "canary-alice-")

        contents = await asyncio.to_thread(all_bytes, tmp_path)
        kept = await store.scan(STATE, "canary-bob-")
        for opened in (store, other):
            await opened.close()
        assert b"canary-bob-" in contents
        assert b"canary-alice-" not in contents
        assert len(kept) == 40

    async def test_expired_documents_leave_the_file_in_time(self, tmp_path: Path) -> None:
        path = str(tmp_path / "companion.db")
        clock = ManualClock()
        store = SqliteStore(path, clock)
        await store.batch(EVENTS, "turn", [Create({"id": f"{number}"}) for number in range(100)])
        clock.advance(86_401)
        for number in range(64):
            await add(store, "owner", a_turn(number))
        await store.close()

        connection = sqlite3.connect(path)
        (left,) = connection.execute("SELECT count(*) FROM documents WHERE container = 'events'").fetchone()
        connection.close()
        assert left == 0

    async def test_a_store_serves_one_event_loop_after_another(self, tmp_path: Path) -> None:
        path = str(tmp_path / "companion.db")

        def life(number: int) -> None:
            async def main() -> None:
                store = SqliteStore(path, ManualClock())
                await add(store, "owner", a_turn(number))
                await store.close()

            asyncio.run(main())

        for number in range(3):
            await asyncio.to_thread(life, number)

        store = SqliteStore(path, ManualClock())
        found = await store.scan(STATE, "owner")
        await store.close()
        assert len(found) == 3


def test_importing_the_adapters_imports_no_sdk() -> None:
    """A cold start pays for a cloud's SDK at its first use, not before."""
    modules = "shared.storage.cosmos, shared.storage.cosmos_emulator, shared.storage.blob"
    code = f"import sys, {modules}; print([name for name in sys.modules if name.split('.')[0] == 'azure'])"

    printed = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True, timeout=30)

    assert printed == "[]\n"


def test_a_container_indexes_what_queries_name_and_nothing_else() -> None:
    by_name = {definition["id"]: definition for definition in container_definitions()}

    assert by_name[EVENTS]["indexingPolicy"]["includedPaths"] == []
    assert by_name[EVENTS]["defaultTtl"] == 86_400
    assert by_name[STATE]["indexingPolicy"]["excludedPaths"] == [{"path": "/*"}]
    assert [[part["path"] for part in index] for index in by_name[STATE]["indexingPolicy"]["compositeIndexes"]] == [
        ["/kind", "/sort"],
        ["/kind", "/group", "/sort"],
    ]


def test_every_exemption_names_a_test() -> None:
    names = {
        name
        for value in globals().values()
        if isinstance(value, type) and value.__module__ == __name__
        for name in vars(value)
        if name.startswith("test_")
    }

    assert conftest.EMULATOR_CANNOT.keys() <= names
