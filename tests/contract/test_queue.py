"""Both queues deliver at least once, to one receiver at a time; each is fed and read by its real other side.

The cloud's queue is sent to by our adapter and read with the stock `azure-storage-queue` client, as the Functions host
does; the local one feeds the triggers of the local host.
"""

import asyncio
import base64
import json
from collections.abc import AsyncGenerator, Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
from azure.storage.queue.aio import QueueClient

from shared.clock import ManualClock
from shared.errors import StorageUnavailable
from shared.ids import CountedIds
from shared.jobs.azure_queue import AzureQueue
from shared.jobs.poison import park
from shared.jobs.store_queue import VISIBILITY_SECONDS, StoreQueue
from shared.settings import Secret, Settings
from shared.storage.base import DIRECTORY
from shared.storage.sqlite import SqliteStore
from tests.processes import ROOT, free_port, running

BODY = {"owner": "ada", "turn": "resp_1"}


@pytest.fixture(scope="module")
def azurite_queue() -> Iterator[str]:
    """A connection string to an empty queue service, with an account of its own."""
    port, key = free_port(), base64.b64encode(uuid4().bytes).decode()
    script = ROOT / "node_modules" / "azurite" / "dist" / "src" / "queue" / "main.js"
    command = ["node", str(script), "--queueHost", "127.0.0.1", "--queuePort", str(port)]
    command += ["--inMemoryPersistence", "--silent", "--skipApiVersionCheck", "--disableTelemetry"]
    url = f"http://127.0.0.1:{port}"
    with running(command, ready=url, env={"AZURITE_ACCOUNTS": f"companion:{key}"}):
        yield f"DefaultEndpointsProtocol=http;AccountName=companion;AccountKey={key};QueueEndpoint={url}/companion;"


class TestAzureQueue:
    @pytest.fixture
    async def queue(self, azurite_queue: str) -> AsyncGenerator[AzureQueue]:
        queue = AzureQueue(replace(Settings.read({}).storage, connection_string=Secret(azurite_queue)))
        yield queue
        await queue.close()

    async def test_a_message_reaches_the_trigger_as_it_was_sent(self, queue: AzureQueue, azurite_queue: str) -> None:
        await queue.send("turns", BODY)

        async with QueueClient.from_connection_string(azurite_queue, "turns") as client:
            message = await client.receive_message()
            assert message is not None
            await client.delete_message(message)
        assert json.loads(message.content) == BODY

    async def test_a_delayed_message_is_not_seen_yet(self, queue: AzureQueue, azurite_queue: str) -> None:
        await queue.send("turns-low", BODY, delay=60)

        async with QueueClient.from_connection_string(azurite_queue, "turns-low") as client:
            assert await client.receive_message() is None

    async def test_a_poison_message_is_parked_with_its_reason(self, queue: AzureQueue, azurite_queue: str) -> None:
        await park(queue, "turns", BODY, tries=5, reason="The work failed.")

        async with QueueClient.from_connection_string(azurite_queue, "turns-poison") as client:
            message = await client.receive_message()
        assert message is not None
        assert json.loads(message.content) == {**BODY, "tries": 5, "reason": "The work failed."}

    async def test_the_service_answers_a_ping(self, queue: AzureQueue) -> None:
        await queue.ping()

    async def test_a_dead_service_is_unavailable(self) -> None:
        dead = f"DefaultEndpointsProtocol=http;AccountName=a;AccountKey=a2V5;QueueEndpoint=http://127.0.0.1:{free_port()}/a;"
        queue = AzureQueue(replace(Settings.read({}).storage, connection_string=Secret(dead)))
        with pytest.raises(StorageUnavailable):
            await queue.send("turns", BODY)
        await queue.close()


class TestStoreQueue:
    @pytest.fixture
    async def clock(self) -> ManualClock:
        return ManualClock()

    @pytest.fixture
    async def store(self, clock: ManualClock, tmp_path: Path) -> AsyncGenerator[SqliteStore]:
        store = SqliteStore(str(tmp_path / "queue.db"), clock)
        yield store
        await store.close()

    @pytest.fixture
    def queue(self, store: SqliteStore, clock: ManualClock) -> StoreQueue:
        return StoreQueue(store, clock, CountedIds())

    async def test_a_message_is_delivered_and_then_gone(self, queue: StoreQueue) -> None:
        await queue.send("turns", BODY)
        message = await queue.receive("turns")
        assert message is not None
        await queue.complete("turns", message)

        assert (json.loads(message.body), message.dequeue_count) == (BODY, 1)
        assert await queue.receive("turns") is None

    async def test_one_receiver_at_a_time(self, queue: StoreQueue) -> None:
        for _ in range(5):
            await queue.send("turns", BODY)
        got = await asyncio.gather(*(queue.receive("turns") for _ in range(20)))

        ids = [message.id for message in got if message is not None]
        assert len(ids) == len(set(ids))

    async def test_a_dead_receiver_s_message_comes_again(self, queue: StoreQueue, clock: ManualClock) -> None:
        await queue.send("turns", BODY)
        first = await queue.receive("turns")
        assert await queue.receive("turns") is None
        clock.advance(VISIBILITY_SECONDS + 1)
        second = await queue.receive("turns")

        assert first is not None
        assert second is not None
        assert second.dequeue_count == 2

    async def test_a_late_complete_does_not_take_a_new_delivery_away(
        self, queue: StoreQueue, clock: ManualClock
    ) -> None:
        await queue.send("turns", BODY)
        first = await queue.receive("turns")
        clock.advance(VISIBILITY_SECONDS + 1)
        await queue.receive("turns")
        assert first is not None
        await queue.complete("turns", first)
        clock.advance(VISIBILITY_SECONDS + 1)

        assert await queue.receive("turns") is not None

    async def test_a_failed_message_waits(self, queue: StoreQueue, clock: ManualClock) -> None:
        await queue.send("turns", BODY)
        message = await queue.receive("turns")
        assert message is not None
        await queue.abandon("turns", message, delay=10)
        assert await queue.receive("turns") is None
        clock.advance(11)
        assert await queue.receive("turns") is not None

    async def test_a_poison_message_is_parked_with_a_reason(self, queue: StoreQueue, store: SqliteStore) -> None:
        await queue.send("turns", BODY)
        message = await queue.receive("turns")
        assert message is not None
        await queue.bury("turns", message)

        parked = await store.read(DIRECTORY, message.id, message.id)
        assert await queue.receive("turns") is None
        assert parked is not None
        assert (parked.body["kind"], parked.body["reason"]) == (
            "message:turns-poison",
            "delivered too often without success",
        )

    async def test_a_delay_is_kept(self, queue: StoreQueue, clock: ManualClock) -> None:
        await queue.send("turns", BODY, delay=5)
        assert await queue.receive("turns") is None
        clock.advance(6)
        assert await queue.receive("turns") is not None

    async def test_queues_do_not_mix(self, queue: StoreQueue) -> None:
        await queue.send("turns-low", BODY)
        assert await queue.receive("turns") is None
        assert await queue.receive("turns-low") is not None
