"""Feeds the edges app two messages from a queue in memory, one of which never succeeds; prints what became of them."""

import asyncio
import json
import sys
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from localhost.host import load
from localhost.queues import QueueOptions, run_queues

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Delivery:
    id: str
    body: str
    dequeue_count: int = 1
    pop_receipt: str = ""
    inserted: datetime = NOW
    expires: datetime = NOW


class Memory:
    def __init__(self, *bodies: str) -> None:
        self.waiting = [Delivery(id=f"m{number}", body=body) for number, body in enumerate(bodies)]
        self.completed: list[str] = []
        self.buried: list[str] = []

    async def receive(self, queue: str) -> Delivery | None:
        assert queue == "jobs"
        return self.waiting.pop(0) if self.waiting else None

    async def complete(self, queue: str, message: Delivery) -> None:
        self.completed.append(message.id)

    async def abandon(self, queue: str, message: Delivery, *, delay: float) -> None:
        self.waiting.append(replace(message, dequeue_count=message.dequeue_count + 1))

    async def bury(self, queue: str, message: Delivery) -> None:
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
