"""Journal, then send: what the output adds up to, drained once an interval, made durable, then shown."""

import asyncio
import math
from collections.abc import Callable
from typing import Any

from shared.eager import started
from shared.errors import StorageUnavailable
from shared.flag import Flag
from shared.turns.events import Batch
from shared.turns.journal import Fenced, Journal
from shared.turns.live import LiveTurn
from shared.turns.output import Output

type Json = dict[str, Any]

EARLY = 0.3
"""Of an interval: how much sooner than an interval after the flush before what was just read may be shown. On average
there is one flush an interval all the same: the next one is due as if this one had come in time."""
LATE = 0.25
"""Of an interval: what came too soon after a flush waits so much longer than one for what is read then, to be shown
with it."""


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
        self._dirty = Flag()
        self._lock = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._is_stopping = False
        self._failure: Fenced | StorageUnavailable | None = None
        self._resting: asyncio.Future[None] | None = None
        self._due, self._early = 0.0, math.inf
        """When the next flush is due on average, and from when on what is touched is flushed at once; loop's time."""

    def start(self, owner_task: asyncio.Task[Any] | None) -> None:
        """Begin to flush in the background; when that fails, `owner_task` is cancelled and `stop` raises why."""
        self._task = asyncio.create_task(self._run())
        if owner_task is not None:
            self._task.add_done_callback(lambda task: self._cancel_on_failure(task, owner_task))

    def touch(self) -> None:
        """There is something to flush."""
        self._dirty.set()
        if self._resting is not None and self._resting.get_loop().time() >= self._early:
            self._end_rest()

    async def flush(self, *, outcome: Json | None = None) -> bool:
        """Append what is pending, then show it; with an outcome, this is the last of it.

        Returns:
            False when a turn that nobody read and nothing was journalled of is closing: it is its record that will
            be shown, so an append would buy nothing.

        Cancelled meanwhile, it ends first: events that have their numbers must not be lost half-way.

        Raises:
            Fenced: another host has the turn.
        """
        flushing = started(self._flush(outcome))
        if flushing.done():
            return flushing.result()
        try:
            return await asyncio.shield(flushing)
        except asyncio.CancelledError:
            await asyncio.wait([flushing])
            if not flushing.cancelled():
                flushing.exception()  # the same is met again by whatever is written next
            raise

    async def _flush(self, outcome: Json | None = None) -> bool:
        async with self._lock:
            self._dirty.clear()
            journal = self._journal
            if (
                self._failure is None
                and outcome is not None
                and journal is not None
                and journal.number == 0
                and not self._is_read()
            ):
                self._output.drain()
                return False
            events = self._output.drain()
            batch = Batch.of(events) if events else Batch(0, -1, data=b"")
            if journal is not None and (events or outcome is not None):
                await self._append(journal, batch, outcome)
            if events:
                self._live.publish(batch)
            return True

    async def _append(self, journal: Journal, batch: Batch, outcome: Json | None) -> None:
        """After a failure nothing is appended any more: it would stand behind a gap."""
        if self._failure is not None:
            raise self._failure
        try:
            await journal.append(batch, outcome=outcome)
        except (Fenced, StorageUnavailable) as failure:
            self._failure = failure
            raise

    async def stop(self) -> None:
        """End the background flushing; raises what ended it early (`Fenced`, `StorageUnavailable`)."""
        self._is_stopping = True
        self._dirty.set()
        self._end_rest()
        if self._task is not None:
            await self._task

    def _is_read(self) -> bool:
        return self._live.readers > 0

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        alarm = _Alarm(self._quiet, self._dirty.set) if self._journal is not None else None
        last: float | None = None
        try:
            while True:
                await self._dirty.wait()
                if last is not None:
                    await self._rest(last)
                if self._is_stopping:
                    return
                last = loop.time()
                self._due = max(self._due, last) + self._interval
                if self._output.is_dirty:
                    await self._flush()
                elif self._journal is not None:
                    async with self._lock:
                        self._dirty.clear()
                        await self._journal.sign_of_life()
                if alarm is not None:
                    alarm.put_off(last)
        finally:
            if alarm is not None:
                alarm.cancel()

    async def _rest(self, last: float) -> None:
        """Let deltas gather for an interval since the last flush; less when the turn ends or somebody starts to read.

        A model that is paced is read once an interval, and it is that read which ends the rest, not a timer: one that
        ran out just before would leave what was read to the next flush. (The rule is the "generic cell rate algorithm"
        of ITU-T I.371, whose tolerance is EARLY.)
        """
        loop = asyncio.get_running_loop()
        is_read = self._journal is None or self._is_read()
        longest = last + max(self._interval, self._quiet)
        self._early = self._due - self._interval * EARLY if is_read else longest
        until = last + self._interval * (1 + LATE) if is_read else longest
        while not self._is_stopping and (now := loop.time()) < self._early:
            rest = self._resting = loop.create_future()
            timer = loop.call_later(until - now if is_read else min(until - now, self._interval), self._end_rest)
            try:
                await rest
            finally:
                timer.cancel()
                self._resting = None
            if not is_read and self._is_read():
                return

    def _end_rest(self) -> None:
        rest, self._resting = self._resting, None
        if rest is not None and not rest.done():
            rest.set_result(None)

    def _cancel_on_failure(self, task: asyncio.Task[None], owner: asyncio.Task[Any]) -> None:
        if not task.cancelled() and task.exception() is not None and not (owner.done() or self._live.is_ending):
            owner.cancel()


class _Alarm:
    """Calls after so many seconds of silence; put off often, it is set anew but once in that time."""

    __slots__ = ("_call", "_last", "_loop", "_seconds", "_timer")

    def __init__(self, seconds: float, call: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._seconds = seconds
        self._call = call
        self._last = self._loop.time()
        self._timer = self._loop.call_later(seconds, self._ring)

    def put_off(self, last: float) -> None:
        self._last = last

    def cancel(self) -> None:
        self._timer.cancel()

    def _ring(self) -> None:
        left = self._last + self._seconds - self._loop.time()
        if left <= 0.001:
            self._call()
            left = self._seconds
        self._timer = self._loop.call_later(left, self._ring)
