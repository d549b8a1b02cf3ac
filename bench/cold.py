"""Cold start: what importing and indexing the app takes, beside the bare stack it stands on."""

import asyncio
import re
import statistics
import subprocess
import sys
from dataclasses import dataclass

from bench.load import Target, ask
from bench.servers import ROOT, free_port, serving

_TIMED = """
import resource, sys
sys.path.insert(0, {root!r})
{work}
used = resource.getrusage(resource.RUSAGE_SELF)
print(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, len(sys.modules))
"""
_BARE = "import azure.functions, starlette.applications, starlette.requests, starlette.responses"
_BARE_SERVED = f"{_BARE}, azurefunctions.extensions.base, uvicorn"
_APP = "import function_app; function_app.app.get_functions()"


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Of a fresh process, less what the interpreter itself takes; medians."""

    milliseconds: float
    """Of processor time."""
    megabytes: float
    modules: int


def all_starts(repeats: int = 15) -> dict[str, Start]:
    """`app`: import and index of the whole app; `bare`: the stack it cannot do without; and that with a server."""
    works = {"app": _APP, "bare": _BARE, "bare and uvicorn": _BARE_SERVED}
    runs: dict[str, list[list[float]]] = {name: [] for name in ("nothing", *works)}
    for _ in range(repeats):  # in turn, so that what else the machine does befalls all alike
        for name, work in {"nothing": "pass", **works}.items():
            runs[name].append(_run(work))
    nothing = _median(runs["nothing"], 0)
    return {
        name: Start(
            milliseconds=round((_median(runs[name], 0) - nothing) * 1000, 1),
            megabytes=round(_median(runs[name], 1), 1),
            modules=round(_median(runs[name], 2)),
        )
        for name in works
    }


async def first_request() -> dict[str, float]:
    """CPU milliseconds of a fresh local server: up to its banner, its first stored turn, its second."""
    port = free_port()
    command = [sys.executable, "-m", "localhost", "--port", str(port), "--data", "{data}"]
    environ = {"COMPANION_OFFLINE_DELAY": "0", "COMPANION_TITLES": "off"}
    async with serving("companion", command, env=environ, port=port) as server:
        body: dict[str, object] = {"input": "Hello"}
        target = Target(name="companion", port=port, path="/v1/responses", body=body, model="companion", whole=b"resp_")
        marks = [server.cpu()]
        for _ in range(2):
            sample = await ask(target, tokens=0, stream=False)
            assert sample.is_whole, "the first request failed"
            marks.append(server.cpu())
    names = ("start until it listens", "first turn", "second turn")
    return {
        name: round((after - before) * 1000, 1)
        for name, before, after in zip(names, [0.0, *marks], marks, strict=False)
    }


def _run(work: str) -> list[float]:
    code = _TIMED.format(root=str(ROOT), work=work)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return [float(field) for field in done.stdout.split()]


def _median(runs: list[list[float]], field: int) -> float:
    return statistics.median(run[field] for run in runs)


def breakdown(most: int = 12) -> list[tuple[str, float]]:
    """The packages that the app's import spends its time in, milliseconds each, most first."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {_APP}"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    own: dict[str, float] = {}
    for line in re.finditer(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)", done.stderr):
        package = line[2].partition(".")[0]
        own[package] = own.get(package, 0.0) + int(line[1]) / 1000
    return sorted(own.items(), key=lambda pair: -pair[1])[:most]


if __name__ == "__main__":
    starts = all_starts()
    for name, start in starts.items():
        print(f"{name:<16} {start}  {start.milliseconds / starts['bare'].milliseconds:.2f} x bare")
    for package, milliseconds in breakdown(25):
        print(f"{milliseconds:8.1f} ms  {package}")
    print(asyncio.run(first_request()))
