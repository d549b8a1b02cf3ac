"""A stock fuzzer drives the whole surface from our own document: no 5xx, no status that is not documented.

A few examples for each operation here; `FUZZ_EXAMPLES=200` (`make soak`) takes many.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import ROOT, companion

EXAMPLES = os.environ.get("FUZZ_EXAMPLES", "2")
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance"


@pytest.mark.timeout(3600)
def test_the_whole_surface_answers_as_its_document_says(tmp_path: Path) -> None:
    seconds = 60 if EXAMPLES == "2" else 3000
    with companion(tmp_path / "data", COMPANION_OFFLINE_DELAY="0", COMPANION_TITLES="off") as url:
        options = ["--checks", CHECKS, "--phases", "coverage,fuzzing", "--max-examples", EXAMPLES, "--seed", "1"]
        options += ["--max-time", str(seconds), "--continue-on-failure", "--no-color", "--warnings", "off"]
        options += ["--generation-database", "none", "--request-timeout", "30", "--no-shrink"]
        program = Path(sys.executable).parent / "st"
        document = f"{url.removesuffix('/v1')}/openapi.json"
        run = subprocess.run(
            [str(program), "run", document, *options],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=seconds + 120,
            check=False,
        )
    tested = re.search(r"(\d+) generated", run.stdout)

    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]
    assert tested is not None, run.stdout[-2000:]
    assert int(tested[1]) > 100
