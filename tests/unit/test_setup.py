"""The scripts behind `make setup`: what they find, and what they say when they do not."""

import subprocess
from pathlib import Path

TOOLS = Path(__file__).parents[2] / "tools"


def run(script: Path, path: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(script)], env={"PATH": path, **env}, capture_output=True, text=True, timeout=60, check=False
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


def test_a_missing_node_is_one_sentence(tmp_path: Path) -> None:
    """An old one counts as missing."""
    script = (TOOLS / "setup.sh").read_text()
    function = script[script.index("install_node()") : script.index("make_venv\ncase")]
    (tmp_path / "node.sh").write_text(f"is_current() {{ return 1; }}\n{function}\ninstall_node\n")
    executable(tmp_path / "bin" / "node", "exit 1")
    executable(tmp_path / "bin" / "npm", "echo npm was run")

    found = run(tmp_path / "node.sh", f"{tmp_path}/bin:/usr/bin:/bin")

    assert found.returncode == 1
    assert found.stderr.startswith("Node 20 or newer, with npm, is missing: install it")
    assert "npm was run" not in found.stdout
