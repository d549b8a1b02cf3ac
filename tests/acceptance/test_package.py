"""The built package runs by itself: unpacked somewhere else, on the real runtime library, without the repository.

A driver process gets the unpacked package and the `localhost` package on its path and nothing else: no site-packages,
no repository. What it imports is listed and must lie in the unpacked package.
"""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.processes import ROOT, free_port, running
from tools import package

DRIVER = """
import atexit, json, sys
app, driver, report = sys.argv[1:4]
sys.path[:0] = [app, app + "/.python_packages/lib/site-packages", driver]
standard = sys.prefix, sys.base_prefix, sys.exec_prefix

def outside():
    files = {name: getattr(module, "__file__", None) for name, module in list(sys.modules.items())}
    inside = (app, driver)
    found = {n: f for n, f in files.items() if f and not f.startswith(inside) and "/site-packages/" in f}
    found |= {n: f for n, f in files.items() if f and n.partition(".")[0] in {"functions", "shared", "function_app"}
              and not f.startswith(app)}
    return found

atexit.register(lambda: open(report, "w").write(json.dumps({"outside": outside(), "modules": len(sys.modules)})))
from localhost.__main__ import main
sys.exit(main(sys.argv[4:]))
"""

COLD_IMPORT = """
import sys, time
app = sys.argv[1]
sys.path[:0] = [app, app + "/.python_packages/lib/site-packages"]
began = time.perf_counter()
import function_app
functions = function_app.app.get_functions()
print(round((time.perf_counter() - began) * 1000), len(functions), len(sys.modules))
"""


pytestmark = pytest.mark.timeout(900)  # the package is built with all its dependencies, from the registry


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The package's zip, built and unpacked the way the platform does: without the files' times."""
    folder = tmp_path_factory.mktemp("package")
    archive = package.build(folder / "dist")
    app = folder / "elsewhere"
    with zipfile.ZipFile(archive) as zipped:
        zipped.extractall(app)
    yield app
    shutil.rmtree(folder)


def without_repository() -> dict[str, str]:
    """The environment of the test, but for what would bring the repository in."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COMPANION", "OPENAI"))}


def test_the_package_holds_only_what_runs(unpacked: Path) -> None:
    top = {path.name for path in unpacked.iterdir()}

    assert top - {"web"} == {
        ".python_packages",
        "__pycache__",
        "function_app.py",
        "functions",
        "host.json",
        "requirements.txt",
        "shared",
    }
    packages = unpacked / package.PACKAGES
    assert not [name for name in ("pytest", "hypothesis", "ruff", "localhost", "tests") if (packages / name).exists()]


def test_bytecode_is_never_checked_against_the_source(unpacked: Path) -> None:
    """Flags 1: made from a hash, not to be checked."""
    sources = [path for path in unpacked.rglob("*.py") if "templates" not in path.parts]
    compiled = {
        path: path.parent / "__pycache__" / f"{path.stem}.{sys.implementation.cache_tag}.pyc" for path in sources
    }

    missing = [path for path, pyc in compiled.items() if not pyc.exists()]
    flags = {int.from_bytes(pyc.read_bytes()[4:8], "little") for pyc in compiled.values() if pyc.exists()}

    assert (missing, flags) == ([], {1})


def test_a_traceback_does_not_name_the_machine_that_built_it(unpacked: Path) -> None:
    compiled = (unpacked / "__pycache__" / f"function_app.{sys.implementation.cache_tag}.pyc").read_bytes()

    assert b"/home/site/wwwroot/function_app.py" in compiled
    assert str(unpacked.parent).encode() not in compiled


def test_the_same_source_gives_the_same_bytes(unpacked: Path, tmp_path: Path) -> None:
    app = unpacked.parent / "dist" / "app"
    package.write_zip(app, tmp_path / "again.zip")

    assert (tmp_path / "again.zip").read_bytes() == (unpacked.parent / "dist" / "companion.zip").read_bytes()


def test_it_starts_and_converses_without_the_repository(unpacked: Path, tmp_path: Path) -> None:
    driver, report = tmp_path / "driver", tmp_path / "report.json"
    shutil.copytree(ROOT / "localhost", driver / "localhost", ignore=shutil.ignore_patterns("__pycache__"))
    (driver / "run.py").write_text(DRIVER)
    port = free_port()
    command = [sys.executable, "-S", "-P", str(driver / "run.py"), str(unpacked), str(driver), str(report)]
    command += ["--app", str(unpacked), "--port", str(port), "--data", str(tmp_path / "data")]
    environment = {"COMPANION_API_KEYS": "stock-sdk-key=owner", "PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": "1"}

    with running(command, ready=f"http://127.0.0.1:{port}/healthz", env=environment):
        smoke = subprocess.run(
            [sys.executable, "-m", "tools.smoke"],
            cwd=ROOT,
            env=without_repository()
            | {"OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1", "OPENAI_API_KEY": "stock-sdk-key"},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    assert smoke.returncode == 0, smoke.stderr
    assert "first token after" in smoke.stdout
    said = json.loads(report.read_text())
    assert said["outside"] == {}
    assert said["modules"] > 100


def test_cold_import_of_the_package(unpacked: Path, record_property: Callable[[str, object], None]) -> None:
    """Prints it; the budget that guards it is a count of modules, in the benchmark."""
    times: list[int] = []
    modules = 0
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-S", "-P", "-c", COLD_IMPORT, str(unpacked)],
            cwd=unpacked,
            env=without_repository() | {"PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        milliseconds, functions, modules = (int(part) for part in done.stdout.split())
        times.append(milliseconds)
        assert functions > 5
        assert modules > 100
    record_property("cold_import_ms", min(times))
    sys.stdout.write(f"\ncold import and index of the unpacked package: {sorted(times)} ms, {modules} modules\n")
