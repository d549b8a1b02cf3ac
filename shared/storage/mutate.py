"""Atomic change of several records at once, retried while others change them too.

Within a process the changes of one partition wait for each other, and each begins with what the one before it made: a
user's many turns at once would otherwise meet at the same usage record, and all but one of them fail, again and again.
What waits at one moment is written in one batch.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

from shared.errors import StorageUnavailable
from shared.storage.base import BatchFailed, Create, Delete, Document, Operation, Replace, Store, Stored

MAX_TRIES = 40
"""Enough for 64 parallel writers of one record, each of whom wins once."""
LARGEST_GROUP = 16
"""Each writes a turn of up to 100 KB and a few more records; a batch in Cosmos DB has up to 2 MB and 100 operations."""

type _Outcome = tuple[list[str], list[Stored]]
"""Etags of the fixed operations, and the changed records."""


@dataclass(slots=True)
class Change:
    """How one record changes. `apply` gets the stored body (None: not there) and gives the new one.

    It may be called several times, always on the newest body; what it raises ends the whole change.
    """

    id: str
    apply: Callable[[Document | None], Document]
    known: Stored | None = None
    """As last read; spares a read when it is still the newest."""
    is_known: bool = False
    """True: `known` is what a read gave, even where that was nothing."""


@dataclass(eq=False)
class _Job:
    """One call of `mutate`, waiting for its turn."""

    fixed: Sequence[Operation]
    changes: Sequence[Change]
    done: asyncio.Future[_Outcome]
    context: Context
    """What the writes of its group are counted to, where it is the first."""

    def ids(self) -> set[str]:
        """Of the records that it alone may write in a batch."""
        return {each.id if isinstance(each, Delete) else each.body["id"] for each in self.fixed}


@dataclass(eq=False)
class _Line:
    """Who changes one partition here; gone when nobody does."""

    jobs: list[_Job] = field(default_factory=list[_Job])
    writing: asyncio.Task[None] | None = None
    newest: dict[str, Stored] = field(default_factory=dict[str, Stored])
    """Records as the last group left them."""

    def next_group(self) -> list[_Job]:
        """The first that waits, and those behind it that can be written in the same batch."""
        group: list[_Job] = []
        fixed, changed = set[str](), set[str]()
        while self.jobs and len(group) < LARGEST_GROUP:
            job = self.jobs[0]
            if job.done.done():  # who asked for it has left, and is about to take it away
                self.jobs.pop(0)
                continue
            own, shared = job.ids(), {change.id for change in job.changes}
            if own & (fixed | changed) or shared & fixed:
                break
            fixed |= own
            changed |= shared
            group.append(self.jobs.pop(0))
        return group


_lines: WeakValueDictionary[tuple[int, str, str], _Line] = WeakValueDictionary()


async def mutate(
    store: Store, container: str, partition: str, fixed: Sequence[Operation], changes: Sequence[Change]
) -> _Outcome:
    """Write the fixed operations and the changes in one batch.

    Returns:
        The new etags of the fixed operations, and the changed records as now stored.

    Raises:
        BatchFailed: a fixed operation did not hold; nothing was written.
        StorageUnavailable: whether it was written is unknown, or too many others change the same records.
    """
    key = (id(store), container, partition)
    line = _lines.get(key)
    if line is None:
        line = _lines[key] = _Line()
    job = _Job(fixed, changes, asyncio.get_running_loop().create_future(), copy_context())
    line.jobs.append(job)
    write = partial(_write, store, container, partition, line)
    if line.writing is None:
        _begin(line, write)
    try:
        return await job.done
    except asyncio.CancelledError:
        if job in line.jobs:
            line.jobs.remove(job)
        raise


def _begin(line: _Line, write: Callable[[list[_Job]], Coroutine[Any, Any, None]]) -> None:
    """Write the next group, then what has come meanwhile; groups that end without waiting, one after the other."""

    async def run(group: list[_Job]) -> None:
        try:
            await write(group)
        except BaseException as ending:  # the end of this process: who waits here ends as it would have by itself
            for job in group:
                _end(job, ending)
            raise
        finally:
            if line.writing is asyncio.current_task():
                line.writing = None
                _begin(line, write)

    loop = asyncio.get_running_loop()
    while line.writing is None and (group := line.next_group()):
        task = asyncio.Task(run(group), loop=loop, context=group[0].context, eager_start=True)
        if not task.done():
            line.writing = task


async def _write(store: Store, container: str, partition: str, line: _Line, group: list[_Job]) -> None:
    """Write a group in one batch; who cannot be written is told, and the rest tried again."""
    known = _known(line, group)
    line.newest.clear()
    for attempt in range(MAX_TRIES):
        try:
            await _read_unknown(store, container, partition, known, group)
            bodies = _apply(known, group)
            operations = [operation for job in group for operation in job.fixed]
            changed = {id_: _operation(known[id_], body) for id_, body in bodies.items()}
            if not group:
                return
            etags = await store.batch(container, partition, [*operations, *changed.values()])
        except BatchFailed as failure:
            if failure.index < sum(len(job.fixed) for job in group):
                _take_out(group, failure)
                continue
            known.clear()
            await asyncio.sleep(random.uniform(0, 0.002 * min(attempt, 20)))  # noqa: S311 - jitter, not a secret
        except StorageUnavailable as failure:
            _fail(group, failure)
            return
        except Exception as failure:  # it is the batch that is refused, for what one of them brought
            if len(group) > 1:
                for job in group:
                    await _write(store, container, partition, line, [job])
            else:
                _end(group[0], failure)
            return
        else:
            count = len(operations)
            stored = {id_: Stored(bodies[id_], etag) for id_, etag in zip(changed, etags[count:], strict=True)}
            line.newest.update(stored)
            _settle(group, etags, stored)
            return
    _fail(group, StorageUnavailable("Too many requests of yours change the same records; try again.", retry_after=1))


def _known(line: _Line, group: list[_Job]) -> dict[str, Stored | None]:
    """Every record to change as it was last seen, where it was."""
    seen = {change.id: change.known for job in group for change in job.changes if change.is_known}
    return {**seen, **{id_: line.newest[id_] for id_ in {*line.newest} & _changed(group)}}


def _changed(group: list[_Job]) -> set[str]:
    return {change.id for job in group for change in job.changes}


async def _read_unknown(
    store: Store, container: str, partition: str, known: dict[str, Stored | None], group: list[_Job]
) -> None:
    for id_ in [change.id for job in group for change in job.changes]:
        if id_ not in known:
            known[id_] = await store.read(container, partition, id_)


def _apply(known: dict[str, Stored | None], group: list[_Job]) -> dict[str, Document]:
    """The new bodies: each job changes what the one before it made. One that cannot leaves the group, and is told."""
    bodies: dict[str, Document] = {}
    for job in list(group):
        made: dict[str, Document] = {}
        try:
            for change in job.changes:
                before = known[change.id]
                body = made.get(change.id) or bodies.get(change.id) or (before.body if before else None)
                made[change.id] = change.apply(body)
        except Exception as refused:
            group.remove(job)
            _end(job, refused)
        else:
            bodies |= made
    return bodies


def _operation(before: Stored | None, body: Document) -> Operation:
    return Replace(body, before.etag) if before else Create(body)


def _take_out(group: list[_Job], failure: BatchFailed) -> None:
    """Tell the job whose own operation did not hold."""
    index = failure.index
    for job in list(group):
        if index < len(job.fixed):
            group.remove(job)
            _end(job, type(failure)(index, failure.id))
            return
        index -= len(job.fixed)


def _fail(group: list[_Job], failure: StorageUnavailable) -> None:
    for job in group:
        again = StorageUnavailable(failure.message, retry_after=failure.retry_after)
        again.__cause__ = failure
        _end(job, failure if len(group) == 1 else again)


def _settle(group: list[_Job], etags: list[str], stored: dict[str, Stored]) -> None:
    place = 0
    for job in group:
        own = etags[place : place + len(job.fixed)]
        place += len(job.fixed)
        if not job.done.done():
            job.done.set_result((own, [stored[change.id] for change in job.changes]))


def _end(job: _Job, failure: BaseException) -> None:
    if isinstance(failure, asyncio.CancelledError):
        job.done.cancel()
    elif not job.done.done():
        job.done.set_exception(failure)
