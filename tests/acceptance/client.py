"""Runs a stock client, as a process of its own, against a base URL."""

import json
import os
import subprocess
import sys
from pathlib import Path

CLIENTS = Path(__file__).parent / "clients"


def run_client(name: str, base_url: str) -> dict[str, list[str]]:
    """What the script printed last, as JSON."""
    program = [sys.executable, "-W", "error"] if name.endswith(".py") else ["node"]
    run = subprocess.run(
        [*program, str(CLIENTS / name)],
        env={**os.environ, "BASE_URL": base_url},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert run.returncode == 0, f"{run.stdout}\n{run.stderr}"
    answers: dict[str, list[str]] = json.loads(run.stdout.strip().splitlines()[-1])
    return answers
