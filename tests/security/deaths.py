"""Processes that die: before each call that a piece of work makes to the store and the blobs, one after the other."""

import shutil
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from shared.app import App
from shared.bootstrap import build_app
from shared.clock import Clock
from shared.models.offline import OfflineModel
from shared.models.router import Router
from shared.settings import Settings
from shared.storage.base import Store
from shared.storage.large import LargeFieldStore

_STORE = ("read", "query", "scan", "batch", "due", "changes", "erase")
_BLOBS = ("put", "get", "delete", "erase")

type Work = Callable[[App], Awaitable[object]]


class Died(BaseException):
    """The process is gone: no handler of it runs any more."""


@asynccontextmanager
async def process(folder: Path, clock: Clock, **environ: str) -> AsyncGenerator[App]:
    """A process of its own on this data: nothing of another one's memory is in it."""
    settings = Settings.read({"COMPANION_DATA": str(folder), "COMPANION_TITLES": "off", **environ})
    app = build_app(settings, models=Router.over(OfflineModel(word_delay=0.0)), clock=clock)
    try:
        yield app
    finally:
        await app.close(seconds=1)


async def each_death(start: Path, clock: Clock, work: Work, **environ: str) -> AsyncGenerator[tuple[int, Path]]:
    """The data as each death leaves it, in a folder of its own; the first one, 0, nobody died in."""
    point, calls = 0, 0
    while point <= calls:
        folder = start.with_name(f"{start.name}-{point}")
        shutil.copytree(start, folder)
        async with process(folder, clock, **environ) as app:
            with _counted(app, at=point) as count, suppress(Died):
                await work(app)
        calls = max(calls, count())
        yield point, folder
        shutil.rmtree(folder)
        point += 1


@contextmanager
def _counted(app: App, *, at: int) -> Generator[Callable[[], int]]:
    count = 0

    def dying(call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def counted(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if 0 < at <= count:
                raise Died  # what it had in hand beside this dies with it
            return await call(*args, **kwargs)

        return counted

    with pytest.MonkeyPatch.context() as patch:  # a death has no seam of its own
        for port, names in ((_adapter(app.store), _STORE), (app.blobs, _BLOBS)):
            for name in names:
                patch.setattr(port, name, dying(getattr(port, name)))
        yield lambda: count


def _adapter(store: Store) -> Any:
    """Below what keeps records small."""
    return store._store if isinstance(store, LargeFieldStore) else store  # pyright: ignore[reportPrivateUsage]
