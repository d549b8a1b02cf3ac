"""Everything of docs/reliability.md, one part after another; prints the tables that the page shows.

.venv/bin/python -m tests.soak                       # full size: an hour and a half on two cores
.venv/bin/python -m tests.soak --size small          # a few minutes
.venv/bin/python -m tests.soak --turns 200 --only processes
.venv/bin/python -m tests.soak --page docs/reliability.md   # and puts the tables there
"""

import argparse
import asyncio
import dataclasses
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.processes import EMULATOR_KEY, ROOT, cosmos_emulator
from tests.sim.flows import FLOWS
from tests.sim.sweep import pairs, points, run_flow
from tests.soak.chaos import Plan, Result, run

MARKS = ("<!-- soak: begin -->", "<!-- soak: end -->")


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    pairs: int
    """Random pairs of deaths for each flow."""
    seeds: int
    turns: int
    """In the background, on real processes; a quarter more run in the foreground."""
    cosmos: int
    scale: int
    """How many times more the state machines try than in the test run."""
    examples: int
    """Of the fuzzer, for each operation of the surface."""


SIZES = {
    "full": Size(pairs=200, seeds=5_000, turns=1000, cosmos=200, scale=10, examples=200),
    "small": Size(pairs=3, seeds=100, turns=80, cosmos=16, scale=1, examples=2),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table of what was run."""

    part: str
    run: str
    faults: str
    broken: int
    seconds: float


@dataclass(slots=True)
class Report:
    rows: list[Row] = field(default_factory=list[Row])
    fires: dict[str, Result] = field(default_factory=dict[str, Result])

    def add(self, part: str, ran: str, *, faults: str, broken: int, began: float) -> None:
        self.rows.append(Row(part, ran, faults, broken, time.monotonic() - began))
        say(f"{part}: {ran}; broken: {broken}")

    def tables(self) -> str:
        lines = ["| | what was run | faults | broken promises | minutes |", "|---|---|---|---|---|"]
        for row in self.rows:
            lines.append(f"| {row.part} | {row.run} | {row.faults} | {row.broken} | {row.seconds / 60:.1f} |")
        if self.fires:
            summaries = [result.summary() for result in self.fires.values()]
            lines += ["", f"| under fire | {' | '.join(self.fires)} |", f"|---|{'---|' * len(self.fires)}"]
            lines += [f"| {name} | {' | '.join(_shown(each[name]) for each in summaries)} |" for name in summaries[0]]
        return "\n".join(lines)


def _shown(value: Any) -> str:
    match value:
        case None:
            return "–"
        case dict():
            return ", ".join(f"{_shown(each)} {name}" for name, each in value.items()) or "none"  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        case int():
            return f"{value:,}"
        case _:
            return str(value)


def sweep(size: Size, report: Report) -> None:
    """A process dies once before and once after every call that it makes."""
    began, total, broken = time.monotonic(), 0, 0
    labels: set[str] = set()
    for name, flow in FLOWS.items():
        passed = points(flow)
        total += len(passed)
        labels |= {label.partition(".")[0] for label in passed}
        broken += sum(_dies(name, A=number) for number in range(1, len(passed) + 1))
    ran = f"{len(FLOWS)} flows, {total:,} points (before and after each call of {', '.join(sorted(labels))})"
    report.add("Crash points", ran, faults=f"{total:,} deaths", broken=broken, began=began)


def twice(size: Size, report: Report) -> None:
    """And the process that goes on dies too."""
    began = time.monotonic()
    chosen = [(name, pair) for name in FLOWS for pair in pairs(FLOWS[name], size.pairs, seed=f"soak {name}")]
    broken = sum(_dies(name, A=first, B=second) for name, (first, second) in chosen)
    ran = f"{len(FLOWS)} flows, {len(chosen):,} random pairs of points"
    report.add("Pairs of crash points", ran, faults=f"{2 * len(chosen):,} deaths", broken=broken, began=began)


def _dies(name: str, **at: int) -> bool:
    violations = run_flow(FLOWS[name], **at).violations
    if violations:
        say(json.dumps({"flow": name, "deaths": at, "violations": violations[:3]}))
    return bool(violations)


def simulation(size: Size, report: Report) -> None:
    """In a process of its own, as in the test run."""
    began = time.monotonic()
    *details, last = _output([sys.executable, "-m", "tests.sim.storm", f"0-{size.seeds - 1}"], limit=60 + size.seeds)
    for line in details:
        say(line)
    found = json.loads(last)
    ran = f"{found['seeds']:,} seeds, {found['turns']:,} turns, {found['model calls']:,} model calls"
    faults = (
        f"{found['deaths']:,} deaths, {found['stand-stills']:,} stand-stills; lag, 429, time-outs, lost and doubled "
        "messages"
    )
    report.add("Simulated worlds", ran, faults=faults, broken=found["broken"], began=began)


def machines(size: Size, report: Report) -> None:
    """The stores' contract, conversations as trees, the arithmetic of usage."""
    began = time.monotonic()
    failed, ran = _pytest("tests/reliability/test_state_machines.py", SOAK_SCALE=str(size.scale))
    ran = f"{ran} suites, {size.scale} times as many examples as in the test run"
    report.add("State machines", ran, faults="none", broken=failed, began=began)


def processes(size: Size, report: Report) -> None:
    """Four of them on one folder, behind a proxy."""
    plan = Plan(turns=size.turns * 5 // 4)
    _fire(
        report, "SQLite, four processes", plan, faults="SIGKILL, SIGSTOP, SIGTERM, cut connections; 30 % of model calls"
    )


def cosmos(size: Size, report: Report) -> None:
    """One process: the emulator keeps what a failed batch did, which only one writer can make good."""
    with cosmos_emulator() as endpoint:
        settings = {"COSMOS_ENDPOINT": endpoint, "COSMOS_KEY": EMULATOR_KEY}
        plan = Plan(turns=size.cosmos * 5 // 4, users=4, hosts=1, settings=settings)
        _fire(report, "Cosmos DB emulator, one process", plan, faults="cut connections; 30 % of model calls")


def _fire(report: Report, name: str, plan: Plan, *, faults: str) -> None:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="companion-soak-") as folder:
        result = asyncio.run(_in_time(run(plan, Path(folder)), 300.0 + 3 * plan.turns))
    for violation in result.figures.violations:
        say(violation)
    report.fires[name] = result
    ran = f"{result.figures.turns:,} turns, {result.figures.in_background:,} of them in the background"
    broken = len(result.figures.violations) + (not result.is_quick)
    report.add(f"Real processes: {name}", ran, faults=faults, broken=broken, began=began)


async def _in_time(work: Any, seconds: float) -> Result:
    async with asyncio.timeout(seconds):
        return await work


def fuzz(size: Size, report: Report) -> None:
    """Requests that nobody in their right mind sends, made from the document of the surface."""
    began = time.monotonic()
    failed, ran = _pytest("tests/security/test_fuzz.py", FUZZ_EXAMPLES=str(size.examples))
    ran = f"{ran} tests of the whole surface, {size.examples} examples for each operation"
    report.add("Fuzzed requests", ran, faults="none", broken=failed, began=began)


def _pytest(path: str, **environ: str) -> tuple[int, int]:
    """How many of a file's tests failed, and how many ran."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "timeout=0", path]
    lines = _output(command, environ=environ, limit=5400)
    counts = {word: int(count) for count, word in re.findall(r"(\d+) (passed|failed|error)", lines[-1])}
    failed = counts.get("failed", 0) + counts.get("error", 0)
    if failed or "passed" not in counts:
        say("\n".join(lines[-40:]))
    return failed + ("passed" not in counts), sum(counts.values())


def _output(command: list[str], *, limit: float, environ: Mapping[str, str] | None = None) -> list[str]:
    ran = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **(environ or {})},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=limit,
    )
    return ran.stdout.splitlines() or [""]


PARTS: dict[str, Callable[[Size, Report], None]] = {
    each.__name__: each for each in (sweep, twice, simulation, machines, processes, cosmos, fuzz)
}


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


def write(page: Path, tables: str) -> None:
    """Put the tables in the place of those on the page."""
    before, _, rest = page.read_text().partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    page.write_text(f"{before}{MARKS[0]}\n\n{tables}\n\n{MARKS[1]}{after}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="The reliability runs.")
    parser.add_argument("--size", choices=SIZES, default="full")
    for each in dataclasses.fields(Size):
        parser.add_argument(f"--{each.name}", type=int, help="instead of the size's")
    parser.add_argument("--only", choices=PARTS, action="append", help="this part; may be given again")
    parser.add_argument("--page", type=Path, help="put the tables on this page")
    given = parser.parse_args(arguments)
    changed = {
        each.name: getattr(given, each.name)
        for each in dataclasses.fields(Size)
        if getattr(given, each.name) is not None
    }
    size = dataclasses.replace(SIZES[given.size], **changed)
    logging.disable(logging.CRITICAL)
    report = Report()
    for name in given.only or PARTS:
        PARTS[name](size, report)
    say(f"\n{report.tables()}")
    if given.page:
        write(given.page, report.tables())
    return 1 if any(row.broken for row in report.rows) else 0


if __name__ == "__main__":
    sys.exit(main())
