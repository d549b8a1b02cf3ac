"""A process that can die or stand still: every task of it stops at once, wherever it is.

Tasks made in a host's context belong to it. A dead host's tasks are cancelled, and whatever their cleaning up does has
no effect, as its ports refuse (`Died`). A frozen host's tasks take no step until it is thawed, as after SIGSTOP.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any

HOST: ContextVar["Host | None"] = ContextVar("host", default=None)


class Died(BaseException):
    """The process is gone: nothing of it goes on, so nothing may catch this."""


type Point = Callable[["Host", str], None]
"""Called at every place where a process may die; kills the host to make it die there."""


class Host:
    """One process."""

    def __init__(self, name: str, *, point: Point | None = None) -> None:
        self.name = name
        self.is_dead = False
        self.is_frozen = False
        self.tasks: set[asyncio.Task[Any]] = set()
        self.on_death: list[Callable[[], None]] = []
        self.on_point = point
        self._held: list[asyncio.Future[None]] = []

    def spawn[T](self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run something in this process, as a request that it serves or a timer that fires."""
        context = copy_context()
        context.run(HOST.set, self)
        return asyncio.get_running_loop().create_task(work, context=context)

    def point(self, label: str) -> None:
        """A place where the process may die.

        Raises:
            Died: it is dead.
        """
        if self.is_dead:
            raise Died(self.name)
        if self.on_point is not None:
            self.on_point(self, label)
        if self.is_dead:
            raise Died(self.name)

    def die(self) -> None:
        if self.is_dead:
            return
        self.is_dead = True
        self.thaw()
        for tell in self.on_death:
            tell()
        for task in list(self.tasks):
            task.cancel()

    def freeze(self) -> None:
        self.is_frozen = True

    def thaw(self) -> None:
        self.is_frozen = False
        held, self._held = self._held, []
        for future in held:
            if not future.done():
                future.set_result(None)

    def hold(self) -> asyncio.Future[None]:
        """What a task of a frozen host waits for."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future._asyncio_future_blocking = True  # pyright: ignore[reportAttributeAccessIssue] - what `await` sets
        self._held.append(future)
        return future


class _Gated(Coroutine[Any, Any, Any]):
    """A coroutine that takes no step while its host is frozen."""

    def __init__(self, host: Host, inner: Coroutine[Any, Any, Any]) -> None:
        self._host = host
        self._inner = inner
        self._thrown: BaseException | None = None

    def send(self, value: Any) -> Any:
        if self._host.is_frozen:
            return self._host.hold()
        thrown, self._thrown = self._thrown, None
        return self._inner.throw(thrown) if thrown is not None else self._inner.send(value)

    def throw(self, type_: Any, value: Any = None, traceback: Any = None) -> Any:
        thrown = type_ if value is None else value
        if self._host.is_frozen:
            self._thrown = thrown if isinstance(thrown, BaseException) else thrown()
            return self._host.hold()
        self._thrown = None
        return self._inner.throw(thrown)

    def close(self) -> None:
        self._inner.close()

    def __await__(self) -> Any:
        return self._inner.__await__()


type OnTask = Callable[[Host, asyncio.Task[Any]], None]


def watch_tasks(loop: asyncio.AbstractEventLoop, on_end: OnTask) -> None:
    """From now on tasks of this loop belong to the host in whose context they were made; `on_end` sees each end."""

    def factory(loop: asyncio.AbstractEventLoop, work: Any, *, context: Context | None = None, **rest: Any) -> Any:
        host = context.get(HOST) if context is not None else HOST.get()
        if host is None:
            return asyncio.Task(work, loop=loop, context=context, **rest)
        task: asyncio.Task[Any] = asyncio.Task(_Gated(host, work), loop=loop, context=context, **rest)
        host.tasks.add(task)

        def ended(task: asyncio.Task[Any]) -> None:
            host.tasks.discard(task)
            on_end(host, task)

        task.add_done_callback(ended)
        if host.is_dead:
            task.cancel()
        return task

    loop.set_task_factory(factory)
