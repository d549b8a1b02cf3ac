"""Servers for the page: one with an owner per scenario, one that can be killed and started again."""

import os
import signal
import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.processes import free_port, running

FAST = "0.004"
"""Seconds the offline model takes for a word."""


class KillableServer:
    """Our server on one port and one folder, as often as it is started."""

    def __init__(self, data: Path, **settings: str) -> None:
        self.port = free_port()
        self.base = f"http://127.0.0.1:{self.port}"
        self._command = [sys.executable, "-m", "localhost", "--port", str(self.port), "--data", str(data)]
        self._settings = {"COMPANION_OFFLINE_DELAY": FAST, **settings}
        self._stack = ExitStack()

    def start(self) -> None:
        self._process = self._stack.enter_context(
            running(self._command, ready=f"{self.base}/healthz", env=self._settings)
        )

    def kill(self) -> None:
        """As a crash does: nothing is finished, nothing is said."""
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        self._stack.close()


@contextmanager
def serving(data: Path, **settings: str) -> Generator[KillableServer]:
    server = KillableServer(data, **settings)
    try:
        server.start()
        yield server
    finally:
        server.close()
