"""For tests: the app on the real runtime, in the test's own process, or on a port of its own.

    async with app_on_runtime() as app, httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=LOCAL) as client:
        ...
    async with app_on_runtime() as app, serving(app) as base_url:      # real sockets: streams arrive as they are sent
        ...

The runtime and the extensions keep their state in globals, so one process holds one function app with one extension;
for the other extension start a server: `python -m localhost --port 0 --data DIR` with COMPANION_HTTP_EXTENSION set.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from localhost.host import Host, load
from localhost.server import serving

__all__ = ["LOCAL", "ROOT", "app_on_runtime", "serving"]

ROOT = Path(__file__).parent.parent
LOCAL = "http://127.0.0.1"
"""A base URL the local owner is served under."""

_loaded: dict[Path, Host] = {}


@asynccontextmanager
async def app_on_runtime(directory: Path = ROOT) -> AsyncGenerator[Host]:
    """The function app in `directory`, an ASGI app; loaded once per process, whatever the event loop."""
    if directory not in _loaded:
        assert not _loaded, f"{next(iter(_loaded))} is loaded in this process already"
        _loaded[directory] = await load(directory)
    yield _loaded[directory]
