"""Several real processes of Companion on one folder of data, and a proxy in front that gives each request to the next.

The proxy is what a load balancer without affinity is. It can cut connections; the fleet can kill processes, make them
stand still, and ask them to end.
"""

import asyncio
import contextlib
import os
import random
import signal
import sqlite3
import sys
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from tests.processes import ROOT, free_port

START_SECONDS = 60.0


class Member:
    """One place of the fleet: a port, and the process that serves there now."""

    def __init__(self, data: Path, settings: Mapping[str, str]) -> None:
        self.port = free_port()
        self.is_ready = False
        """The balancer sends requests here."""
        self.is_struck = False
        """Something is being done to it."""
        self.output = (data / f"host-{self.port}.log").open("ab")
        self._data = data
        self._settings = settings
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """A new process, from now until it serves."""
        arguments = ["-m", "localhost", "--port", str(self.port), "--data", str(self._data), "--drain", "5"]
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            cwd=ROOT,
            env={**os.environ, **self._settings},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=self.output,
            stderr=self.output,
        )
        async with asyncio.timeout(START_SECONDS), aiohttp.ClientSession() as session:
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(f"http://127.0.0.1:{self.port}/healthz") as response:
                        if response.status == 200:
                            break
                assert self._process.returncode is None, "a host ended before it served"
                await asyncio.sleep(0.05)
        self.is_ready = True

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def freeze(self) -> None:
        """Stop it where it stands, but not amid a write: SQLite's one lock would stand still with it."""
        with _locked(self._data / "companion.db"):
            self.send(signal.SIGSTOP)

    async def ended(self) -> None:
        assert self._process is not None
        self.is_ready = False
        await self._process.wait()

    async def stop(self) -> None:
        """Whatever state it is in."""
        if self._process is not None and self._process.returncode is None:
            self.send(signal.SIGCONT)
            self.send(signal.SIGKILL)
            await self._process.wait()
        self.output.close()


@contextlib.contextmanager
def _locked(database: Path) -> Generator[None]:
    """With nobody else writing to it, if it exists."""
    if not database.exists():
        yield
        return
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


class Fleet:
    """See the module."""

    def __init__(self, members: list[Member]) -> None:
        self.members = members
        self.port = 0
        self._next = 0
        self._open: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def cut(self, chance: random.Random) -> bool:
        """Break one connection of a client, if there is one."""
        if not self._open:
            return False
        writer = chance.choice(sorted(self._open, key=id))
        writer.transport.abort()
        return True

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, which clients use for one request: to the next process that serves."""
        target = await self._connect()
        if target is None:
            writer.close()
            return
        self._open.add(writer)
        up = asyncio.create_task(_pump(reader, target[1]))
        down = asyncio.create_task(_pump(target[0], writer))
        self._pumps |= {up, down}
        try:
            await asyncio.wait([up, down], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._open.discard(writer)
            for task in (up, down):
                task.cancel()
                self._pumps.discard(task)
            for end in (writer, target[1]):
                end.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        for _ in self.members:
            member = self.members[self._next % len(self.members)]
            self._next += 1
            if not member.is_ready:
                continue
            try:
                return await asyncio.open_connection("127.0.0.1", member.port)
            except OSError:
                continue
        return None


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


@asynccontextmanager
async def running(count: int, data: Path, settings: Mapping[str, str]) -> AsyncGenerator[Fleet]:
    """A fleet that serves, behind its proxy."""
    fleet = Fleet([Member(data, settings) for _ in range(count)])
    server = await asyncio.start_server(fleet.handle, "127.0.0.1", 0)
    fleet.port = server.sockets[0].getsockname()[1]
    try:
        await fleet.members[0].start()  # makes the database; the others find it
        await asyncio.gather(*(member.start() for member in fleet.members[1:]))
        yield fleet
    finally:
        server.close()
        server.close_clients()
        for member in fleet.members:
            await member.stop()
        await server.wait_closed()
