"""Rules of the repository that no linter knows."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from shared.settings import VARIABLES
from tools import lock, settings_page

ROOT = Path(__file__).parents[2]

# Folders of one machine; /home/site is where Azure puts the app, /tmp/ alone is everywhere.
MACHINE_PATH = re.compile(r"(?<![\w.:/-])/(?:root|home(?!/site)|work|Users|opt/pypi)/[\w.-]+")
REGISTRY = re.compile(r"pypi\.org|pythonhosted\.org|registry\.npmjs|deb\.debian\.org|security\.debian\.org", re.I)


def tracked() -> list[Path]:
    listing = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, timeout=30
    ).stdout
    return [ROOT / name for name in listing.decode().split("\0") if name and (ROOT / name).is_file()]


def lines_that_match(pattern: re.Pattern[str]) -> list[str]:
    found: list[str] = []
    for path in tracked():
        if path == Path(__file__):
            continue
        text = path.read_text(errors="replace")
        found += [f"{path.relative_to(ROOT)}: {match.group()}" for match in pattern.finditer(text)]
    return found


def test_no_tracked_file_names_a_folder_of_one_machine() -> None:
    assert lines_that_match(MACHINE_PATH) == []


def test_no_tracked_file_names_a_package_registry() -> None:
    """Where packages come from is the machine's business; lock files carry hashes instead."""
    assert lines_that_match(REGISTRY) == []


def test_nothing_generated_or_vendored_is_tracked() -> None:
    folders = {"node_modules", "dist", "vendor", ".venv", "__pycache__", ".python_packages"}
    suffixes = (".min.js", ".min.css", ".bundle.js", ".map", ".whl", ".pyc", ".sqlite", ".tgz")

    found = [p.relative_to(ROOT) for p in tracked() if folders & set(p.parts) or p.name.endswith(suffixes)]

    assert found == []


@pytest.mark.parametrize("text", ["see /root/x", '"/home/me/x"', "cd /work/main", "open /Users/me"])
def test_a_machine_path_is_recognised(text: str) -> None:
    assert MACHINE_PATH.search(text)


def test_the_settings_page_is_what_the_settings_say() -> None:
    """`make docs` writes it."""
    assert settings_page.PAGE.read_text() == settings_page.page()


def test_every_decision_has_its_five_parts() -> None:
    parts = ("Context", "Decision", "Consequences", "Alternatives", "Check")
    pages = sorted((ROOT / "docs" / "adr").glob("*.md"))

    assert pages
    assert [(p.name, part) for p in pages for part in parts if f"**{part}.**" not in p.read_text()] == []


def test_links_between_pages_lead_somewhere() -> None:
    pages = [path for path in tracked() if path.suffix == ".md"]
    link = re.compile(r"\]\((?!https?://|#|mailto:)([^)#\s]+)")

    dead = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in pages
        for target in link.findall(page.read_text())
        if not (page.parent / target).exists()
    ]

    assert dead == []


def test_a_setting_is_listed_once() -> None:
    names = [variable.name for variable in VARIABLES]

    assert sorted(names) == sorted(set(names))


def test_every_variable_the_code_reads_is_in_the_list() -> None:
    """Code asks for a variable by its literal name; the names of the platform itself are not ours to list."""
    listed = {variable.name for variable in VARIABLES}
    asked = re.compile(r"""(?:environ(?:\.get\(|\[)|getenv\()\s*["']([A-Z][A-Z0-9_]+)["']""")
    files = [p for p in tracked() if p.suffix == ".py" and p.relative_to(ROOT).parts[0] in ("shared", "functions")]

    found = {name for path in files for name in asked.findall(path.read_text())}

    assert found <= listed


def test_the_lock_files_answer_pyproject() -> None:
    assert list(lock.complaints()) == []


def test_a_requirement_no_pin_satisfies_is_reported() -> None:
    assert list(lock.unmet(["openai>=3"], {"openai": "1.0"})) == ["openai>=3 is asked for, 1.0 is pinned"]


def test_a_requirement_of_a_requirement_must_be_pinned_too() -> None:
    version = lock.pins(lock.RUN.read_text())["starlette"]

    found = list(lock.unmet(["starlette"], {"starlette": version}))

    assert [problem for problem in found if problem.startswith("anyio")]


def run_in_ci(folder: Path, test: str, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    (folder / "test_it.py").write_text(test)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options, str(folder)]
    return subprocess.run(
        command, cwd=folder, env={"CI": "true"}, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("options", [(), ("-n", "1")], ids=["one process", "xdist"])
def test_ci_fails_on_a_skipped_test(tmp_path: Path, options: tuple[str, ...]) -> None:
    test = "import pytest\ndef test_a(): pass\ndef test_b(): pytest.skip('no engine')\n"

    run = run_in_ci(tmp_path, test, *options)

    assert run.returncode == 1
    assert "no engine" in run.stdout.split("not allowed")[1]


def test_ci_fails_on_a_skipped_file(tmp_path: Path) -> None:
    test = "import pytest\npytest.skip('no engine', allow_module_level=True)\n"

    run = run_in_ci(tmp_path, test)

    assert run.returncode != 0


def test_ci_passes_when_nothing_is_skipped(tmp_path: Path) -> None:
    assert run_in_ci(tmp_path, "def test_a(): pass\n").returncode == 0
