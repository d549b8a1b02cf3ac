"""The port to background work: a queue of small messages, each delivered at least once.

A message says where to look, never what to do: whoever gets it reads the record, so a lost, late or doubled message
does no harm. What matters is found again by querying for it (`due`), should every message be lost.
"""

from typing import Any, Literal, Protocol

type Json = dict[str, Any]
type QueueName = Literal["turns", "turns-low", "jobs", "turns-poison", "turns-low-poison", "jobs-poison"]

TURNS: QueueName = "turns"
"""Background turns."""
TURNS_LOW: QueueName = "turns-low"
"""Background turns of the `flex` tier: looked at beside, never before, the others."""
JOBS: QueueName = "jobs"
"""Exports, imports and erasures."""

TRIES = 5
"""Deliveries of a message before it is parked; host.json says the same to the host."""


class Queue(Protocol):
    """Raises `StorageUnavailable` when the queue cannot be reached."""

    async def send(self, queue: QueueName, body: Json, *, delay: float = 0.0) -> None:
        """Deliver `body` (JSON, at most 48 KB) to the queue's trigger, not before `delay` seconds from now."""
        ...

    async def ping(self) -> None: ...

    async def close(self) -> None: ...
