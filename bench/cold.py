"""Cold start: what importing and indexing the app takes, beside the bare stack it stands on."""

import re
import statistics
import subprocess
import sys
from dataclasses import dataclass

from bench.servers import ROOT

_TIMED = """
import resource, sys
sys.path.insert(0, {root!r})
{work}
used = resource.getrusage(resource.RUSAGE_SELF)
print(used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, len(sys.modules))
"""
_NOTHING = "pass"
_BARE = "import azure.functions, azurefunctions.extensions.base, starlette.applications, starlette.responses, uvicorn"
_APP = "import function_app; function_app.app.get_functions()"


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Of a fresh process, less what the interpreter itself takes; medians."""

    milliseconds: float
    """Of processor time."""
    megabytes: float
    modules: int


def start(work: str, repeats: int = 7) -> Start:
    runs = [_run(work) for _ in range(repeats)]
    nothing = [_run(_NOTHING) for _ in range(repeats)]
    return Start(
        milliseconds=round((_median(runs, 0) - _median(nothing, 0)) * 1000, 1),
        megabytes=round(_median(runs, 1), 1),
        modules=round(_median(runs, 2)),
    )


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
        package = ".".join(line[2].split(".")[:1])
        own[package] = own.get(package, 0.0) + int(line[1]) / 1000
    return sorted(own.items(), key=lambda pair: -pair[1])[:most]


def both() -> tuple[Start, Start]:
    """The app, and the bare stack."""
    return start(_APP), start(_BARE)


if __name__ == "__main__":
    app, bare = both()
    print(f"app  {app}\nbare {bare}\nratio {app.milliseconds / bare.milliseconds:.2f}")
    for package, milliseconds in breakdown(25):
        print(f"{milliseconds:8.1f} ms  {package}")
