"""Feeds the edges app two messages from a queue in memory, one of which never succeeds; prints what became of them."""

import asyncio
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

from localhost.host import load
from localhost.queues import QueueMessage, QueueOptions, run_queues

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Memory:
    def __init__(self, *bodies: str) -> None:
        self.waiting = [
            QueueMessage(id=f"m{number}", body=body, dequeue_count=1, inserted=NOW)
            for number, body in enumerate(bodies)
        ]
        self.completed: list[str] = []
        self.buried: list[str] = []

    async def receive(self, queue: str) -> QueueMessage | None:
        assert queue == "jobs"
        return self.waiting.pop(0) if self.waiting else None

    async def complete(self, queue: str, message: QueueMessage) -> None:
        self.completed.append(message.id)

    async def abandon(self, queue: str, message: QueueMessage, *, delay: float) -> None:
        again = QueueMessage(
            id=message.id, body=message.body, dequeue_count=message.dequeue_count + 1, inserted=message.inserted
        )
        self.waiting.append(again)

    async def bury(self, queue: str, message: QueueMessage) -> None:
        self.buried.append(message.id)


async def main() -> None:
    host = await load(Path(__file__).parent / "edges")
    source = Memory("good", "bad")
    feed = asyncio.create_task(run_queues(host.runtime, source, QueueOptions.read(host.host_json)))
    while not (source.completed and source.buried):  # noqa: ASYNC110 - a test's own time limit ends it
        await asyncio.sleep(0.01)
    feed.cancel()
    jobs = sys.modules["function_app"].state["jobs"]
    print(json.dumps({"completed": source.completed, "buried": source.buried, "jobs": jobs}))  # noqa: T201


asyncio.run(main())
