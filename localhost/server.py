"""A host on a port: HTTP by uvicorn, timers and queues beside it, and an orderly end."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from localhost import host, queues, timers
from shared.eager import started
from shared.flag import Flag

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
HEADER_SECONDS = 30.0
"""How long a client may take to send the head of a request; the cloud's host has the same."""
KEEP_ALIVE = 120
"""Seconds an idle connection stays; longer than clients keep one in their pools, which must not find one closed."""
MOST_ACCEPTED = 16
"""Connections taken by one pass of the event loop."""
STALL_SECONDS = 60.0
"""How long a client may leave what was sent to it unread or unacknowledged, before its connection is given up."""

log = logging.getLogger("companion.localhost")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    directory: Path
    """Where function_app.py and host.json are."""
    data: Path
    hostname: str
    port: int
    """0: any free one."""
    drain: float
    """Seconds running responses may take after SIGTERM."""


type Announce = Callable[[int, host.Host], None]
"""Called once it serves, with the port and what it serves."""


class PortTaken(Exception):
    """Somebody else listens there."""


class Server(uvicorn.Server):
    """Uvicorn without its own idea of signals, which is to raise them again after the drain."""

    def __init__(self, config: uvicorn.Config, on_start: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_start = on_start

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_start()


class Impatient(HttpToolsProtocol):
    """Uvicorn's protocol, but a client that does not come to the point is let go."""

    __slots__ = ("_patience",)  # one attribute more, and Python would give each connection a dict of its own

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        self._patience: asyncio.TimerHandle | None = None
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._wait()

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        super().on_headers_complete()
        cycle: Any = self.cycle
        cycle.message_event = Flag()  # nobody waits yet: its task was made just now

    def _wait(self) -> None:
        self._stop_waiting()
        self._patience = self.loop.call_later(HEADER_SECONDS, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None


class Acceptor:
    """Makes the protocols of connections; where one comes it takes those that wait behind it, too.

    libuv takes one in a pass of the event loop. While passes are long, or many come, the others would wait in front of
    the process, where nobody can refuse them. (More listeners would do it too, but each connection wakes them all.)
    """

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._joining: set[asyncio.Task[None]] = set()

    def __call__(self, **given: Any) -> Impatient:
        for _ in range(MOST_ACCEPTED - 1):
            try:
                self._take(given)
            except OSError:  # nobody else is there; what is wrong with the listener libuv meets itself
                break
            except Exception:  # raised into libuv it would end all listening
                log.exception("connection.lost")
                break
        return Impatient(**given)

    def _take(self, given: dict[str, Any]) -> None:
        connection, _ = self._listener.accept()
        task = started(self._join(connection, given))
        if not task.done():
            self._joining.add(task)
            task.add_done_callback(self._joining.discard)

    @staticmethod
    async def _join(connection: socket.socket, given: dict[str, Any]) -> None:
        connection.setblocking(False)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: Impatient(**given), connection)
        except OSError:  # it has left already
            connection.close()


def make_server(app: ASGIApp, listener: socket.socket, *, drain: float, on_start: Callable[[], None]) -> Server:
    config = uvicorn.Config(
        app,
        http=cast(type[Impatient], Acceptor(listener)),  # called as one
        ws="none",
        interface="asgi3",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,  # nobody asks for the peer's address
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=max(1, round(drain)),
    )
    return Server(config, on_start)


def bind(hostname: str, port: int) -> socket.socket:
    """A listening address of our own.

    Raises:
        PortTaken: it is not free.
    """
    family = socket.AF_INET6 if ":" in hostname else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # named, so that asyncio sees what it is
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; what is accepted inherits it
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(STALL_SECONDS * 1000))
    listener.setblocking(False)
    try:
        listener.bind((hostname, port))
    except OSError as exc:
        listener.close()
        raise PortTaken(f"Cannot listen on {hostname}:{port}: {exc.strerror}. Choose another with --port.") from None
    return listener


@asynccontextmanager
async def serving(app: ASGIApp, *, drain: float = 5.0) -> AsyncGenerator[str]:
    """The app on a free port of this machine, in this event loop; gives its base URL."""
    listener = bind("127.0.0.1", 0)
    serves = asyncio.Event()
    server = make_server(app, listener, drain=drain, on_start=serves.set)
    task = asyncio.create_task(server.serve([listener]))
    await serves.wait()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


async def run(options: Options, announce: Announce) -> None:
    """Serve until SIGTERM or SIGINT, then drain; the same signal again ends the process at once.

    Queue triggers are fed from the app's `queue`, when that is one to receive from.
    """
    listener = bind(options.hostname, options.port)
    loaded = await host.load(options.directory)
    port: int = listener.getsockname()[1]
    server = make_server(loaded, listener, drain=options.drain, on_start=lambda: announce(port, loaded))
    schedule = timers.plan(loaded.runtime)
    source = _queue_source()
    _own_signals(server)
    try:
        async with asyncio.TaskGroup() as group:
            background = [group.create_task(timers.run_timers(loaded.runtime, schedule, options.data))]
            if source is not None:
                queue_options = queues.QueueOptions.read(loaded.host_json)
                background.append(group.create_task(queues.run_queues(loaded.runtime, source, queue_options)))
            await server.serve([listener])
            for task in background:
                task.cancel()
    finally:
        await _close_app()


def _own_signals(server: Server) -> None:
    def stop(number: int) -> None:
        if server.should_exit:
            os._exit(128 + number)  # what was accepted is in storage: that is what a crash relies on too
        server.should_exit = True

    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, stop, number)


def _queue_source() -> queues.QueueSource[Any] | None:
    edge = sys.modules.get("functions._edge")
    queue = getattr(edge.current_app(), "queue", None) if edge is not None else None
    return cast(queues.QueueSource[Any], queue) if isinstance(queue, queues.QueueSource) else None


async def _close_app() -> None:
    """Of the edges, when the loaded app has them."""
    edge = sys.modules.get("functions._edge")
    if edge is not None:
        await edge.close_app()
