"""The scripts behind `make setup`: what they find, and what they say when they do not."""

import shutil
import subprocess
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"


def run(script: Path, path: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(script), *arguments],
        env={"PATH": path, **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_a_shim_that_fails_is_passed_over(tmp_path: Path) -> None:
    """pyenv has a python3.13 on PATH for a version that is not active; it exits with 127."""
    executable(tmp_path / "shims" / "python3.13", "exit 127")
    executable(tmp_path / "versions" / "3.13.9" / "bin" / "python3.13", f"echo {tmp_path}/held")

    found = run(TOOLS / "find-python.sh", f"{tmp_path}/shims:/usr/bin:/bin", PYTHON="/nonexistent")

    assert found.stdout.strip() == f"{tmp_path}/held"


def test_a_declared_pyenv_root_is_searched(tmp_path: Path) -> None:
    executable(tmp_path / "versions" / "3.13.1" / "bin" / "python3.13", "echo declared")

    found = run(TOOLS / "find-python.sh", "/usr/bin:/bin", PYENV_ROOT=str(tmp_path))

    assert found.stdout.strip() == "declared"


def test_a_missing_python_is_one_sentence(tmp_path: Path) -> None:
    script = tmp_path / "find-python.sh"
    script.write_text((TOOLS / "find-python.sh").read_text().replace("3.13", "3.99").replace("(3, 13)", "(3, 99)"))

    found = run(script, "/usr/bin:/bin")

    assert found.returncode == 1
    assert found.stderr.startswith("Python 3.99 is missing: install it")
    assert found.stderr.count("\n") == 1


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the set-up scripts where everything of Python is in place, and the Node on PATH is too old."""
    tools = tmp_path / "tools"
    shutil.copytree(TOOLS, tools, ignore=shutil.ignore_patterns("__pycache__"))
    executable(tmp_path / ".venv" / "bin" / "python", "exit 0")
    for name in ("requirements.txt", "requirements-dev.txt", "package-lock.json", "web/index.html"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    executable(tmp_path / "bin" / "node", "exit 1")
    executable(tmp_path / "bin" / "npm", "echo npm was run")
    return tmp_path


def test_a_missing_node_is_one_sentence(checkout: Path) -> None:
    """An old one counts as missing."""
    found = run(checkout / "tools" / "setup.sh", f"{checkout}/bin:/usr/bin:/bin", "test")

    assert found.returncode == 1
    assert found.stderr.startswith("Node 20.19 or newer, with npm, is missing: install it")
    assert found.stderr.count("\n") == 1
    assert "npm was run" not in found.stdout


def test_the_server_is_set_up_without_node(checkout: Path) -> None:
    found = run(checkout / "tools" / "setup.sh", f"{checkout}/bin:/usr/bin:/bin", "run")

    assert found.returncode == 0
    assert "the API works without" in found.stderr


def test_a_second_set_up_has_nothing_to_do(checkout: Path) -> None:
    executable(checkout / "bin" / "node", "exit 0")
    executable(checkout / "bin" / "npm", "mkdir -p node_modules")
    executable(checkout / "node_modules" / ".bin" / "vite", "mkdir -p web/dist")
    path = f"{checkout}/bin:/usr/bin:/bin"

    first = run(checkout / "tools" / "setup.sh", path, "run")
    second = run(checkout / "tools" / "setup.sh", path, "run")
    (checkout / "web" / "index.html").write_text("changed")
    third = run(checkout / "tools" / "setup.sh", path, "run")

    assert "Building the chat page" in first.stdout
    assert second.stdout == ""
    assert third.stdout == "Building the chat page (web/dist)\n"


def test_a_page_that_cannot_be_built_does_not_stop_the_server(checkout: Path) -> None:
    executable(checkout / "bin" / "node", "exit 0")
    executable(checkout / "bin" / "npm", "exit 1")

    found = run(checkout / "tools" / "setup.sh", f"{checkout}/bin:/usr/bin:/bin", "run")

    assert found.returncode == 0
    assert "could not be built" in found.stderr
    assert not (checkout / "node_modules" / ".stamp").exists()
