"""Real processes for tests: the server, the emulators, the scripted upstream. Each ends with its `with` block."""

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent

EMULATOR_KEY = "C2y6yDjf5/R+ob0N8A7Cgv30VRDJIWEHLM+4QDU5DE2nQ9nDuVTqobD4b8mGGyPMbIZnqyMsEcaGQy67XIw/Jw=="
"""The key that every Cosmos DB emulator has, as documented."""

START_SECONDS = 60.0
STOP_SECONDS = 20.0


class ProcessFailed(AssertionError):
    """It did not start, or did not stop; the message carries what it printed."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(
    command: list[str], *, ready: str, env: Mapping[str, str] | None = None
) -> Generator[subprocess.Popen[bytes]]:
    """The command's process, from when the URL `ready` answers until the block ends."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )

        def printed() -> str:
            output.seek(0)
            return f"{' '.join(command)}\n{output.read().decode(errors='replace')}"

        try:
            deadline = time.monotonic() + START_SECONDS
            while not answers(ready):
                if process.poll() is not None:
                    raise ProcessFailed(f"ended with {process.returncode} before it served: {printed()}")
                if time.monotonic() > deadline:
                    raise ProcessFailed(f"does not serve {ready} after {START_SECONDS} s: {printed()}")
                time.sleep(0.05)
            yield process
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise ProcessFailed(f"did not end {STOP_SECONDS} s after SIGTERM: {printed()}") from None


def answers(url: str) -> bool:
    """Whether anything answers there in HTTP, whatever it says, short of a server error."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status < 500
    except urllib.error.HTTPError as error:
        return error.code < 500
    except OSError:
        return False


@contextmanager
def companion(data: Path, **settings: str) -> Generator[str]:
    """Our server on a free port, with these environment variables; gives its base URL, up to and including /v1."""
    port = free_port()
    command = [sys.executable, "-m", "localhost", "--port", str(port), "--data", str(data)]
    with running(command, ready=f"http://127.0.0.1:{port}/healthz", env=settings):
        yield f"http://127.0.0.1:{port}/v1"


@contextmanager
def upstream() -> Generator[str]:
    """The scripted OpenAI-compatible server; gives its base URL, up to and including /v1."""
    port = free_port()
    command = [sys.executable, "-m", "tests.upstream", "--port", str(port)]
    with running(command, ready=f"http://127.0.0.1:{port}/v1/models"):
        yield f"http://127.0.0.1:{port}/v1"


@contextmanager
def cosmos_emulator() -> Generator[str]:
    """An empty Cosmos DB account; gives its endpoint."""
    port = free_port()
    script = ROOT / "node_modules" / "@vercel" / "cosmosdb-server" / "lib" / "cli.js"
    command = ["node", str(script), "--no-ssl", "--host", "127.0.0.1", "--port", str(port)]
    with running(command, ready=f"http://127.0.0.1:{port}/"):
        yield f"http://127.0.0.1:{port}/"
