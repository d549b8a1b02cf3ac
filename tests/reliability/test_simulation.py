"""A thousand simulated worlds: every seed keeps every promise, and replays exactly.

They run in processes of their own: coverage would double their time and add nothing.
"""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.processes import ROOT

SEEDS = 1000
PART = 250


def simulate(seeds: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.sim.storm", seeds],
        cwd=ROOT,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def summary(run: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.timeout(300)
@pytest.mark.parametrize("first", range(0, SEEDS, PART))
def test_every_seed_keeps_every_promise(first: int) -> None:
    run = simulate(f"{first}-{first + PART - 1}")

    assert run.returncode == 0, run.stdout + run.stderr
    assert summary(run)["deaths"] > PART // 10


def test_a_seed_replays_exactly_in_any_process() -> None:
    """Not even the order of hashes, which Python draws anew for each process, changes anything."""
    first, second = (summary(simulate("40-49", PYTHONHASHSEED=seed)) for seed in ("1", "2"))

    assert first == second
