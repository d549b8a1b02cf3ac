"""What is kept of the handlers for the next cold start, while their files may change under a process that runs."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import ROOT

EDIT = """
import pathlib
path = pathlib.Path("functions/health.py")
path.write_text(path.read_text().replace("Live: this process answers.", "Edited."))
"""
INDEX = """
import function_app
function_app.app.get_functions()
"""
TELL = """
from functions.not_found import known_routes
print(*[route.doc for route in known_routes() if route.name == "healthz"])
"""


def run(folder: Path, code: str) -> str:
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.strip()


@pytest.mark.parametrize("imported", ["import function_app", "import functions.health"])
def test_what_a_process_runs_is_not_taken_for_what_its_files_have_become(tmp_path: Path, imported: str) -> None:
    """The next process serves the file as it is, and its document says so."""
    for name in ("functions", "shared"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("index.*"))
    shutil.copy(ROOT / "function_app.py", tmp_path)
    run(tmp_path, imported + EDIT + INDEX)

    assert run(tmp_path, INDEX + TELL) == "Edited."
