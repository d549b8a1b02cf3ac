"""Servers under test as processes of our own, pinned to one core; their CPU and memory as the kernel counts them."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).parent.parent
SERVER_CORE, LOAD_CORE = 0, min(1, (os.cpu_count() or 1) - 1)


class DidNotStart(Exception):
    """A server under test; the message ends with what it said."""


def pin(core: int) -> None:
    """This process and what it starts from now on: on one core."""
    os.sched_setaffinity(0, {core})


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(slots=True)
class Server:
    """A running process and its children."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    data: Path

    def cpu(self) -> float:
        """Seconds of processor time so far."""
        return sum(_cpu(pid) for pid in self._pids())

    def memory(self) -> float:
        """Resident megabytes."""
        return sum(_resident(pid) for pid in self._pids()) / 1e6

    def _pids(self) -> list[int]:
        pids = [self.process.pid]
        for pid in pids:
            children = Path(f"/proc/{pid}/task/{pid}/children")
            pids += [int(child) for child in children.read_text().split()] if children.exists() else []
        return pids


def _cpu(pid: int) -> float:
    return time.clock_gettime((~pid << 3) | 2)  # the clock of that process, in nanoseconds, not in ticks


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@asynccontextmanager
async def serving(
    name: str, command: list[str], *, env: dict[str, str], port: int, core: int = SERVER_CORE, patience: float = 60.0
) -> AsyncGenerator[Server]:
    """Start a process, wait until it listens, end it."""
    data = Path(tempfile.mkdtemp(prefix="companion-bench-"))
    log = (data / "log").open("wb")
    environ = {"PATH": os.environ["PATH"], "HOME": str(data), "BENCH_DATA": str(data), **env}
    process = subprocess.Popen(  # noqa: ASYNC220 - a bench may wait
        [part.replace("{data}", str(data)).replace("{port}", str(port)) for part in command],
        env=environ,
        cwd=ROOT,
        stdout=log,
        stderr=subprocess.STDOUT,
        preexec_fn=lambda: pin(core),  # noqa: PLW1509
    )
    try:
        await _listening(process, port, patience, data / "log")
        yield Server(name, port, process, data)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.close()
        shutil.rmtree(data, ignore_errors=True)


async def _listening(process: subprocess.Popen[bytes], port: int, patience: float, log: Path) -> None:
    until = time.monotonic() + patience
    while time.monotonic() < until:
        if process.poll() is not None:
            _fail("start", log)
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.1)
        else:
            writer.close()
            return
    _fail(f"listen within {patience} s", log)


def _fail(what: str, log: Path) -> NoReturn:
    raise DidNotStart(f"a server under test did not {what}:\n{log.read_text()[-2000:]}")
