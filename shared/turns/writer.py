"""Journal, then send: what the output adds up to, drained once an interval, made durable, then shown."""

import asyncio
from typing import Any

from shared.turns.events import Batch
from shared.turns.journal import Journal
from shared.turns.live import LiveTurn
from shared.turns.output import Output

type Json = dict[str, Any]


class Writer:
    """Between a turn's output and its readers.

    The first words go at once; after that the deltas of one interval become one event, one append and one write. While
    nobody reads, the interval is as long as the lease allows. Without a journal everything is passed on at once.
    """

    def __init__(
        self, output: Output, live: LiveTurn, journal: Journal | None, *, interval: float, lease: float
    ) -> None:
        self._output = output
        self._live = live
        self._journal = journal
        self._interval = interval if journal is not None else 0.0
        self._quiet = lease / 3
        """Seconds of silence after which a sign of life is due."""
        self._dirty = asyncio.Event()
        self._lock = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._is_stopping = False

    def start(self, owner_task: asyncio.Task[Any] | None) -> None:
        """Begin to flush in the background; when that fails, `owner_task` is cancelled and `stop` raises why."""
        self._task = asyncio.create_task(self._run())
        if owner_task is not None:
            self._task.add_done_callback(lambda task: self._cancel_on_failure(task, owner_task))

    def touch(self) -> None:
        """There is something to flush."""
        self._dirty.set()

    async def flush(self, *, outcome: Json | None = None) -> bool:
        """Append what is pending, then show it; with an outcome, this is the last of it.

        Returns:
            False when a turn that nobody read and nothing was journalled of is closing: it is its record that will
            be shown, so an append would buy nothing.

        Raises:
            Fenced: another host has the turn.
        """
        async with self._lock:
            self._dirty.clear()
            journal = self._journal
            if outcome is not None and journal is not None and journal.number == 0 and not self._is_read():
                self._output.drain()
                return False
            events = self._output.drain()
            batch = Batch.of(events) if events else Batch(0, -1, data=b"")
            if journal is not None and (events or outcome is not None):
                await journal.append(batch, outcome=outcome)
            if events:
                self._live.publish(batch)
            return True

    async def stop(self) -> None:
        """End the background flushing; raises what ended it early (`Fenced`, `StorageUnavailable`)."""
        self._is_stopping = True
        self._dirty.set()
        if self._task is not None:
            await self._task

    def _is_read(self) -> bool:
        return self._live.readers > 0

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._is_stopping:
            alarm = loop.call_later(self._quiet, self._dirty.set) if self._journal is not None else None
            await self._dirty.wait()
            if alarm is not None:
                alarm.cancel()
            if self._is_stopping:
                return
            if self._output.is_dirty:
                await self.flush()
            elif self._journal is not None:
                async with self._lock:
                    self._dirty.clear()
                    await self._journal.sign_of_life()
            await self._rest()

    async def _rest(self) -> None:
        """Let deltas gather; shorter when the turn ends or somebody starts to read."""
        pause = self._interval if self._journal is None or self._is_read() else max(self._interval, self._quiet)
        while pause > 0 and not self._is_stopping:
            step = min(pause, self._interval or pause)
            await asyncio.sleep(step)
            pause -= step
            if self._is_read():
                return

    def _cancel_on_failure(self, task: asyncio.Task[None], owner: asyncio.Task[Any]) -> None:
        if not task.cancelled() and task.exception() is not None and not (owner.done() or self._live.is_ending):
            owner.cancel()
