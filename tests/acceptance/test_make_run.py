"""Story: a developer types `make run`, the second time today."""

import time
from pathlib import Path

from tests.processes import free_port, running


def seconds_to_serving(data: Path) -> float:
    port = free_port()
    begun = time.monotonic()
    with running(["make", "run", f"port={port}", f"data={data}"], ready=f"http://127.0.0.1:{port}/healthz"):
        return time.monotonic() - begun


def test_it_serves_within_seconds(tmp_path: Path) -> None:
    """One or two where nothing else runs (`make bench` measures it); other tests keep the machine busy here."""
    assert min(seconds_to_serving(tmp_path) for _ in range(3)) < 10
