"""Builds what is deployed: dist/app, which azd deploys as it is, and dist/companion.zip, the same for the pipeline.

    python -m tools.package [--out DIR]

The package holds only what runs, and its dependencies as wheels for the cloud's Linux, whatever machine builds it.
Its bytecode is compiled beforehand and never checked against the source: the package is read-only where it runs, so
bytecode that Python thinks stale would be compiled anew at every start, which costs four times the import. For the same
reason the build runs on the exact Python the cloud runs. The same input gives the same bytes.
"""

import argparse
import compileall
import py_compile
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PYTHON = (3, 13)
RUNS = ("function_app.py", "host.json", "requirements.txt", "functions", "shared", "web/dist")
"""Everything of the repository that the deployed app reads; `web/dist` where it has been built."""
PACKAGES = ".python_packages/lib/site-packages"
"""Where the Functions host looks for dependencies."""
DEPLOYED = "/home/site/wwwroot"
"""Where the package is mounted: tracebacks name this path, not the builder's."""
PLATFORMS = ("manylinux2014_x86_64", "manylinux_2_17_x86_64", "manylinux_2_28_x86_64", "manylinux_2_34_x86_64")
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The date of every entry: that of a build would make each zip another one."""

IGNORE = """\
# Without this file azd would leave __pycache__ out.
local.settings.json
"""


class CannotBuild(Exception):
    """The package would not run; the message says why."""


def build(out: Path) -> Path:
    """Make `out`/app and `out`/companion.zip; returns the zip.

    Raises:
        CannotBuild: wrong Python, or a dependency without a wheel.
    """
    if sys.version_info[:2] != PYTHON:
        raise CannotBuild(f"The cloud runs Python {PYTHON[0]}.{PYTHON[1]}; this is {sys.version.split()[0]}.")
    app = out / "app"
    shutil.rmtree(app, ignore_errors=True)
    app.mkdir(parents=True)
    copy_source(app)
    install_dependencies(app)
    compile_bytecode(app)
    write_index(app)
    (app / ".funcignore").write_text(IGNORE)
    archive = out / "companion.zip"
    write_zip(app, archive)
    return archive


def copy_source(app: Path) -> None:
    for name in RUNS:
        source, target = ROOT / name, app / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        elif source.is_file():
            shutil.copyfile(source, target)


def install_dependencies(app: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--no-compile"]
    command += ["--only-binary=:all:", "--implementation=cp", f"--python-version={PYTHON[0]}.{PYTHON[1]}"]
    command += [f"--platform={platform}" for platform in PLATFORMS]
    command += [
        "--disable-pip-version-check",
        f"--target={app / PACKAGES}",
        f"--requirement={ROOT / 'requirements.txt'}",
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=900)  # noqa: S603
    if done.returncode:
        raise CannotBuild(f"pip could not install the dependencies:\n{done.stderr.strip()}")
    shutil.rmtree(app / PACKAGES / "bin", ignore_errors=True)


def compile_bytecode(app: Path) -> None:
    """Raises `CannotBuild` when our own code does not compile; a dependency may carry templates that do not."""
    _compile(app, PACKAGES)
    for name, depth in ((".", 0), ("functions", 20), ("shared", 20)):
        if not _compile(app, name, depth):
            raise CannotBuild(f"{name} does not compile")


def write_index(app: Path) -> None:
    """What functions there are, as the first import would note it: a deployed folder is only to be read."""
    import function_app  # noqa: PLC0415 - the app, only for this
    from functions._index import keep  # noqa: PLC0415

    keep(function_app.app.get_functions(), function_app.BLUEPRINTS, folder=app / "functions" / "__pycache__")


def _compile(app: Path, name: str, depth: int = 20) -> bool:
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    return bool(
        compileall.compile_dir(
            app / name,
            maxlevels=depth,
            stripdir=app,
            prependdir=DEPLOYED,
            force=True,
            quiet=2,
            invalidation_mode=mode,
        )
    )


def write_zip(app: Path, archive: Path) -> None:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as target:
        for path in files(app):
            entry = zipfile.ZipInfo(path.relative_to(app).as_posix(), EPOCH)
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            target.writestr(entry, path.read_bytes())


def files(app: Path) -> Iterator[Path]:
    """What goes into the zip, in an order that does not depend on the file system."""
    return (path for path in sorted(app.rglob("*")) if path.is_file() and path.name != ".funcignore")


def main() -> int:
    parser = argparse.ArgumentParser(prog="package", description="Builds what is deployed.")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder to build in (default: dist)")
    began = time.perf_counter()
    try:
        archive = build(parser.parse_args().out)
    except CannotBuild as exc:
        print(exc, file=sys.stderr)
        return 2
    unpacked = sum(path.stat().st_size for path in files(archive.parent / "app"))
    print(
        f"{archive}: {archive.stat().st_size / 1e6:.1f} MB, unpacked {unpacked / 1e6:.1f} MB, "
        f"in {time.perf_counter() - began:.0f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
