"""An event loop whose time is virtual: when nothing is ready, it is at once the time of the next timer.

So a simulated hour costs what the work in it costs, and the order of everything depends on nothing but the program.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any

MAX_STEPS = 250_000
"""Rounds of the loop after which a run is taken to be caught in a circle."""


class Stuck(AssertionError):
    """Nothing will ever happen again, and the program has not ended."""


class _Jump(selectors.SelectSelector):
    """Waits for nothing: moves the loop's time instead."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.steps = 0

    def select(self, timeout: float | None = None) -> list[Any]:
        self.steps += 1
        if timeout is None:
            raise Stuck("every task waits for another")
        if self.steps > MAX_STEPS:
            raise Stuck(f"no end after {MAX_STEPS} rounds, at {self.now:.3f} s")
        self.now += max(0.0, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """See the module; starts at second 0."""

    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)

    def time(self) -> float:
        return self._jump.now

    def work(self, seconds: float) -> None:
        """The only core is busy: time goes by, and nothing else happens."""
        self._jump.now += seconds

    def forgive(self) -> None:
        """Let cleaning up take its rounds."""
        self._jump.steps = 0


class VirtualClock:
    """A `Clock` by the running virtual loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, base: float = 1_800_000_000.0, skew: float = 0.0) -> None:
        self._loop = loop
        self._base = base + skew

    def now(self) -> float:
        return self._base + self._loop.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def run_virtual[T](program: Callable[[VirtualLoop], Coroutine[Any, Any, T]]) -> T:
    """Run a program on a fresh virtual loop, to its end.

    Raises:
        Stuck: it can make no progress.
    """
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(program(loop))
    finally:
        loop.forgive()
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(_ended(left))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


async def _ended(tasks: set[asyncio.Task[Any]]) -> None:
    await asyncio.wait(tasks, timeout=600)
