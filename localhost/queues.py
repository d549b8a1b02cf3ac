"""Queue triggers: messages from a source to functions, with retries and a place for those that never succeed."""

import asyncio
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol, runtime_checkable

from localhost import protos
from localhost.runtime import Function, InvocationFailed, Runtime
from shared.errors import StorageUnavailable

log = logging.getLogger("companion.localhost")


class QueueMessage(Protocol):
    """A message that this process alone sees for a while."""

    @property
    def id(self) -> str: ...
    @property
    def body(self) -> str: ...
    @property
    def dequeue_count(self) -> int:
        """1 the first time."""
        ...

    @property
    def pop_receipt(self) -> str: ...
    @property
    def inserted(self) -> datetime: ...
    @property
    def expires(self) -> datetime: ...


@runtime_checkable
class QueueSource[M: QueueMessage](Protocol):
    """Where the messages of queue triggers come from. Errors: StorageUnavailable."""

    async def receive(self, queue: str) -> M | None:
        """The next visible message, hidden from others; None when there is none now."""
        ...

    async def complete(self, queue: str, message: M) -> None:
        """Done: delete it."""
        ...

    async def abandon(self, queue: str, message: M, *, delay: float) -> None:
        """Failed: visible again in so many seconds."""
        ...

    async def bury(self, queue: str, message: M) -> None:
        """Failed too often: park it where a person finds it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueOptions:
    """`extensions.queues` of host.json."""

    batch: int
    """Messages of one queue worked on at a time."""
    attempts: int
    retry: float
    """Seconds until a failed message is tried again."""
    idle: float
    """Seconds between looks at an empty queue, at most."""

    @classmethod
    def read(cls, host_json: Mapping[str, Any]) -> "QueueOptions":
        queues = host_json.get("extensions", {}).get("queues", {})
        return cls(
            batch=queues.get("batchSize", 16),
            attempts=queues.get("maxDequeueCount", 5),
            retry=_seconds(queues.get("visibilityTimeout", "00:00:00")),
            idle=_seconds(queues.get("maxPollingInterval", "00:00:02")),
        )


async def run_queues[M: QueueMessage](runtime: Runtime, source: QueueSource[M], options: QueueOptions) -> None:
    """Feed every queue-triggered function until cancelled."""
    async with asyncio.TaskGroup() as group:
        for function in runtime.of_type("queueTrigger"):
            group.create_task(_Feed(runtime, function, source, options).run())


class _Feed[M: QueueMessage]:
    """One queue and the function it triggers."""

    def __init__(self, runtime: Runtime, function: Function, source: QueueSource[M], options: QueueOptions) -> None:
        self._runtime = runtime
        self._function = function
        self._queue = str(function.trigger["queueName"])
        self._source = source
        self._options = options

    async def run(self) -> None:
        room = asyncio.Semaphore(self._options.batch)
        wait = least = min(0.05, self._options.idle)
        async with asyncio.TaskGroup() as group:
            while True:
                await room.acquire()
                message = await self._receive()
                if message is None:
                    room.release()
                    await asyncio.sleep(wait)
                    wait = min(wait * 2, self._options.idle)
                    continue
                wait = least
                group.create_task(self._work(message)).add_done_callback(lambda _: room.release())

    async def _receive(self) -> M | None:
        try:
            return await self._source.receive(self._queue)
        except StorageUnavailable as exc:
            log.warning("queue.unavailable %s: %s", self._queue, exc)
            return None

    async def _work(self, message: M) -> None:
        try:
            await self._settle(message, has_succeeded=await self._try(message))
        except StorageUnavailable as exc:
            log.warning("queue.unavailable %s: %s", self._queue, exc)  # the message becomes visible again by itself

    async def _try(self, message: M) -> bool:
        data = protos.TypedData(string=message.body)
        try:
            await self._runtime.invoke(self._function, data, metadata=_metadata(message))
        except InvocationFailed as exc:
            log.error("job.failed %s", exc)
            return False
        return True

    async def _settle(self, message: M, *, has_succeeded: bool) -> None:
        if has_succeeded:
            await self._source.complete(self._queue, message)
        elif message.dequeue_count >= self._options.attempts:
            await self._source.bury(self._queue, message)
        else:
            await self._source.abandon(self._queue, message, delay=self._options.retry)


def _metadata(message: QueueMessage) -> dict[str, protos.TypedData]:
    """As the host sends it; dates must be JSON."""
    now = datetime.now(UTC)
    return {
        "Id": protos.TypedData(string=message.id),
        "PopReceipt": protos.TypedData(string=message.pop_receipt),
        "DequeueCount": protos.TypedData(json=str(message.dequeue_count)),
        "InsertionTime": protos.TypedData(json=_date(message.inserted)),
        "ExpirationTime": protos.TypedData(json=_date(message.expires)),
        "NextVisibleTime": protos.TypedData(json=_date(now)),
    }


def _date(moment: datetime) -> str:
    return json.dumps(moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S+00:00"))


def _seconds(span: str) -> float:
    """Of `hh:mm:ss`."""
    hours, minutes, seconds = span.split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
