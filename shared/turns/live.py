"""Turns that run in this process, and what follows them.

A turn runs in a task of its own, not in the request that began it: a client that goes away ends nothing. Clients follow
its batches here while it runs on this host; elsewhere they follow its journal (follow.py).
"""

import asyncio
from collections.abc import AsyncGenerator

from shared.conversations.records import TurnRecord
from shared.errors import AssistantError
from shared.turns.events import Batch, Packed

PACK_AT = 4096
"""Bytes of batches that are kept as they are."""


class LiveTurn:
    """One running turn: its batches so far, and a way to wait for more."""

    __slots__ = (
        "_batches",
        "_packed",
        "_size",
        "_waiters",
        "error",
        "headers",
        "is_cancelling",
        "is_ending",
        "is_here",
        "is_over",
        "readers",
        "record",
        "task",
    )

    def __init__(self, record: TurnRecord) -> None:
        self.record = record
        """As accepted; final once the turn is over."""
        self.readers = 0
        self.is_here = True
        """False: it runs, or ran, on another host, or waits for one; it is followed from the store."""
        self.is_over = False
        """No batch will follow. The record may not be final: then another host has the turn."""
        self.error: AssistantError | None = None
        """Why it failed, for the one who waits for a plain body."""
        self.headers: dict[str, str] = {}
        """For the answer to the request that began it: what its caller may still use; see `take_headers`."""
        self.is_cancelling = False
        """Its owner asked for its end."""
        self.is_ending = False
        """Past the point where stopping the task would help: its end is being written."""
        self.task: asyncio.Task[None] | None = None
        self._packed: list[Packed] = []
        self._batches: list[Batch] = []
        """The newest; those before them are packed."""
        self._size = 0
        self._waiters: list[asyncio.Future[None]] = []

    def take_headers(self) -> dict[str, str]:
        """For an answer that begins now: a turn does not keep them while it runs."""
        headers, self.headers = self.headers, {}
        return headers

    def publish(self, batch: Batch) -> None:
        if self._size >= PACK_AT:  # those who follow have had these
            self._packed.append(Packed(self._batches))
            self._batches, self._size = [], 0
        if not batch.is_empty:
            self._batches.append(batch)
            self._size += batch.size
        self._wake()

    def end(self, record: TurnRecord | None = None) -> None:
        if record is not None:
            self.record = record
        self.is_over = True
        self._wake()

    async def follow(self, after: int = -1) -> AsyncGenerator[Batch]:
        """Every batch behind a sequence number, as soon as it is there, until the turn is over."""
        self.readers += 1
        try:
            while True:
                batch = self._next(after)
                if batch is not None:
                    after = batch.last
                    yield batch
                elif self.is_over:
                    return
                else:
                    await self._change()
        finally:
            self.readers -= 1

    def _next(self, after: int) -> Batch | None:
        """What follows a sequence number: a batch, or several that were packed; None: nothing yet."""
        if self._packed and after < self._packed[-1].last:
            return next(packed for packed in self._packed if packed.last > after).batch().behind(after)
        if not self._batches or self._batches[-1].last <= after:
            return None
        return next(batch for batch in self._batches if batch.last > after).behind(after)

    async def finished(self) -> TurnRecord:
        """The record, once the turn is over."""
        while not self.is_over:
            await self._change()
        return self.record

    def cancel(self) -> None:
        """Ask the turn to end `cancelled`; one that is ending anyway just ends."""
        self.is_cancelling = True
        if self.task is not None and not self.is_ending:
            self.task.cancel()

    async def _change(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():  # its task was cancelled
                waiter.set_result(None)


class LiveTurns:
    """The turns that run in this process, by response id, and the work that outlives a request."""

    def __init__(self) -> None:
        self._turns: dict[str, LiveTurn] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._turns)

    def find(self, owner: str, response_id: str) -> LiveTurn | None:
        return self._turns.get(f"{owner}\x1f{response_id}")

    def add(self, owner: str, live: LiveTurn) -> None:
        self._turns[f"{owner}\x1f{live.record.id}"] = live

    def remove(self, owner: str, live: LiveTurn) -> None:
        self._turns.pop(f"{owner}\x1f{live.record.id}", None)

    def all(self) -> list[LiveTurn]:
        return list(self._turns.values())

    def keep(self, task: asyncio.Task[None]) -> None:
        """Hold on to a task until it ends: asyncio alone would let it be collected."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def drain(self, seconds: float) -> None:
        """Wait for what runs, at most so long; then stop it where it stands. What was journalled can be taken over."""
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=seconds)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=5)
