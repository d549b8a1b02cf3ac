"""Everything of docs/reliability.md at full size, one after another; prints the figures that the page shows.

.venv/bin/python -m tests.soak                   # about half an hour on two cores
.venv/bin/python -m tests.soak --turns 100 --seeds 500 --pairs 10
"""

import argparse
import asyncio
import json
import logging
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.processes import ROOT
from tests.sim.flows import FLOWS
from tests.sim.sweep import pairs, points, run_flow
from tests.soak.chaos import Plan, run


def sweep(pairs_each: int) -> int:
    """Every single death, then random pairs of deaths; how many runs broke a promise."""
    began, total, broken = time.monotonic(), 0, 0
    for name, flow in FLOWS.items():
        count = len(points(flow))
        deaths = [{"A": number} for number in range(1, count + 1)]
        deaths += [{"A": first, "B": second} for first, second in pairs(flow, pairs_each, seed=f"soak {name}")]
        for at in deaths:
            violations = run_flow(flow, **at).violations
            if violations:
                broken += 1
                say(flow=name, deaths=at, violations=violations[:3])
        total += count
    took = round(time.monotonic() - began, 1)
    say(part="crash points", flows=len(FLOWS), points=total, pairs=pairs_each * len(FLOWS), broken=broken, seconds=took)
    return broken


def simulation(seeds: int) -> int:
    """In a process of its own, as in the test run."""
    began = time.monotonic()
    command = [sys.executable, "-m", "tests.sim.storm", f"0-{seeds - 1}"]
    ran = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    *details, last = ran.stdout.splitlines()
    for line in details:
        say(detail=line)
    say(part="simulation", seconds=round(time.monotonic() - began, 1), **json.loads(last))
    return ran.returncode


def processes(turns: int) -> int:
    with tempfile.TemporaryDirectory(prefix="companion-soak-") as folder:
        result = asyncio.run(run(Plan(turns=turns), Path(folder)))
    for violation in result.figures.violations:
        say(violation=violation)
    say(part="processes", **result.summary())
    return len(result.figures.violations)


def say(**what: object) -> None:
    print(json.dumps(what), flush=True)  # noqa: T201


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="The reliability runs at full size.")
    parser.add_argument("--pairs", type=int, default=200, help="random pairs of deaths for each flow")
    parser.add_argument("--seeds", type=int, default=10_000, help="simulated worlds")
    parser.add_argument("--turns", type=int, default=1000, help="turns on real processes")
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    broken = sweep(given.pairs) + simulation(given.seeds) + processes(given.turns)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
