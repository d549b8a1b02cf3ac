"""Tasks that begin at once: what needs no waiting is done before the event loop looks at anything else."""

import asyncio
from collections.abc import Coroutine
from typing import Any


def started[T](work: Coroutine[Any, Any, T], *, name: str | None = None) -> asyncio.Task[T]:
    """A task that has run as far as it could without waiting; it may be done already."""
    return asyncio.Task(work, loop=asyncio.get_running_loop(), name=name, eager_start=True)
