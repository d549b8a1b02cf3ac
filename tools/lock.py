"""Writes and checks requirements.txt (what the app imports) and requirements-dev.txt (that, and what the checks need).

    python -m tools.lock             compile both from pyproject.toml; pins that still fit stay
    python -m tools.lock --upgrade   take the newest versions that fit
    python -m tools.lock --check     offline: do both still say what pyproject.toml asks for?

The first line of each file records a digest of the requirements it was compiled from.
"""

import argparse
import hashlib
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
RUN = ROOT / "requirements.txt"
TEST = ROOT / "requirements-dev.txt"

PIN = re.compile(
    r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>\S+)(?P<hashes>( \\\n    --hash=sha256:[0-9a-f]{64})+)$", re.M
)


def asked() -> dict[Path, list[str]]:
    """The requirements that each file answers, as pyproject.toml states them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    run: list[str] = project["project"]["dependencies"]
    return {RUN: run, TEST: [*run, *project["dependency-groups"]["dev"]]}


def header(requirements: list[str]) -> str:
    digest = hashlib.sha256("\n".join(sorted(requirements)).encode()).hexdigest()
    return f"# Generated from pyproject.toml by `make lock`; its requirements: sha256:{digest}\n"


def pins(text: str) -> dict[str, str]:
    """Name to version of every hashed pin in a lock file."""
    return {canonicalize_name(match["name"]): match["version"] for match in PIN.finditer(text)}


def compile_lock(path: Path, requirements: list[str], *, upgrade: bool, constraint: Path | None = None) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".in") as source:
        source.write("\n".join([*requirements, f"-c {constraint}" if constraint else ""]))
        source.flush()
        command = [sys.executable, "-m", "piptools", "compile", "--quiet", "--generate-hashes", "--allow-unsafe"]
        command += ["--strip-extras", "--no-header", "--no-annotate", "--no-emit-options", "--no-emit-index-url"]
        command += ["--no-emit-find-links", "--no-emit-trusted-host", *(["--upgrade"] if upgrade else [])]
        subprocess.run([*command, f"--output-file={path}", source.name], check=True, timeout=600)  # noqa: S603
    path.write_text(header(requirements) + path.read_text())


def unmet(requirements: list[str], pinned: dict[str, str]) -> Iterator[str]:
    """What the requirements, or anything they require in turn, ask for that the pins do not give.

    Reads the metadata of the installed packages, so it is true for this interpreter and platform.
    """
    queue = [Requirement(text) for text in requirements]
    seen: set[str] = set()
    while queue:
        requirement = queue.pop()
        if str(requirement) in seen:
            continue
        seen.add(str(requirement))
        version = pinned.get(canonicalize_name(requirement.name))
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            yield f"{requirement} is asked for, {version or 'nothing'} is pinned"
            continue
        for text in metadata.requires(requirement.name) or []:
            needed = Requirement(text)
            if needed.marker is None or any(needed.marker.evaluate({"extra": e}) for e in requirement.extras or {""}):
                queue.append(needed)


def complaints() -> Iterator[str]:
    for path, requirements in asked().items():
        text = path.read_text()
        pinned = pins(text)
        if not text.startswith(header(requirements)):
            yield f"{path.name} was compiled from other requirements than pyproject.toml now has"
        for line in PIN.sub("", text).splitlines():
            if line and not line.startswith("#"):
                yield f"{path.name} has a line that is not a pin with hashes: {line!r}"
        for problem in unmet(requirements, pinned):
            yield f"{path.name}: {problem}"
    run, test = pins(RUN.read_text()), pins(TEST.read_text())
    for name in sorted(run.keys()):
        if test.get(name) != run[name]:
            yield f"{name} is {run[name]} in {RUN.name} and {test.get(name)} in {TEST.name}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--upgrade", action="store_true")
    arguments = parser.parse_args()
    if not arguments.check:
        requirements = asked()
        compile_lock(RUN, requirements[RUN], upgrade=arguments.upgrade)
        compile_lock(TEST, requirements[TEST], upgrade=arguments.upgrade, constraint=RUN)
        return 0
    found = list(complaints())
    for complaint in found:
        print(complaint, file=sys.stderr)
    if found:
        print("Run `make lock` and commit what it writes.", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
