"""Story: someone who has just read the README runs its ten lines."""

import os
import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"
SERVED_AT = "http://127.0.0.1:7071/v1"


def first_python_block() -> str:
    block = re.search(r"^```python\n(.*?)^```$", README.read_text(), re.M | re.S)
    assert block, "README.md has no Python block"
    return block[1]


def test_the_first_lines_of_the_readme_hold_a_conversation(base_url: str) -> None:
    """Two streamed turns; the second answer knows what only the first turn said."""
    code = first_python_block()
    assert SERVED_AT in code

    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code.replace(SERVED_AT, base_url)],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert run.returncode == 0, run.stderr
    assert "Ada" in run.stdout.strip().splitlines()[-1]


def test_it_is_ten_lines() -> None:
    assert len([line for line in first_python_block().splitlines() if line.strip()]) <= 10
