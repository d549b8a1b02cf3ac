"""Publishes prompts: writes shared/prompts/versions.json and the golden renderings of every sample.

    python -m tools.prompts                  add what is new; refuses to change what was published
    python -m tools.prompts --check          says what does not hold, writes nothing
    python -m tools.prompts --current NAME=VERSION   make another version the current one
    python -m tools.prompts --unpublish NAME=VERSION  forget a version that never left this machine

A prompt or partial that was published is not edited: copy it under the next version (or, a partial, another name).
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from shared.prompts.library import HERE, Prompt, PromptError, PromptLibrary, digest_of, environment, read_prompt

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "tests" / "unit" / "prompts" / "golden"

type Index = dict[str, dict[str, Any]]


def digests(folder: Path = HERE) -> dict[str, dict[str, str]]:
    """Name to version to hash, as the files are now."""
    found: dict[str, dict[str, str]] = {}
    for path in sorted((folder / "templates").glob("*.prompty"), key=lambda path: (path.stem, len(path.name))):
        name, version = path.name.removesuffix(".prompty").rsplit(".", 1)
        found.setdefault(name, {})[version] = digest_of(path, folder / "partials")
    return found


def complaints(folder: Path = HERE) -> Iterator[str]:
    """What does not hold between the files and versions.json."""
    known = PromptLibrary(folder).index
    now = digests(folder)
    for name, versions in now.items():
        for version, digest in versions.items():
            published = known.get(name, {}).get("versions", {}).get(version)
            if published is None:
                yield f"{name} version {version} is not published: run `python -m tools.prompts`."
            elif published != digest:
                yield f"{name} version {version} was changed: copy it to the next version and change that."
    for name, entry in known.items():
        gone = sorted(set(entry["versions"]) - set(now.get(name, {})))
        yield from (f"{name} version {version} was published and has no file any more." for version in gone)
        if entry["current"] not in entry["versions"]:
            yield f"the current version of {name}, {entry['current']}, does not exist."


def publish(folder: Path = HERE, *, current: dict[str, str] | None = None) -> Index:
    """versions.json with what is new in it; the first version of a name becomes its current one.

    Raises:
        PromptError: what should become current does not exist; nothing is written.
    """
    path = folder / "versions.json"
    known: Index = orjson.loads(path.read_bytes()) if path.exists() else {}
    for name, versions in digests(folder).items():
        entry = known.setdefault(name, {"current": next(iter(versions)), "versions": {}})
        entry["versions"] = {**versions, **entry["versions"]}
    for name, version in (current or {}).items():
        if version not in known.get(name, {}).get("versions", {}):
            raise PromptError(f"{name} has no version {version!r} that could become the current one.")
        known[name]["current"] = version
    path.write_bytes(orjson.dumps(known, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n")
    return known


def golden_text(prompt: Prompt, sample: str) -> str:
    """A sample as its golden file has it."""
    lines: list[str] = []
    for message in prompt.render(prompt.samples[sample]):
        content = message["content"]
        text = content if isinstance(content, str) else orjson.dumps(content, option=orjson.OPT_INDENT_2).decode()
        lines.append(f"[{message['role']}]\n{text}\n")
    return "\n".join(lines)


def every_prompt(folder: Path = HERE) -> Iterator[Prompt]:
    """All versions of all prompts, straight from their files."""
    templates = environment(folder)
    for path in sorted((folder / "templates").glob("*.prompty")):
        yield read_prompt(path, templates, digest=digest_of(path, folder / "partials"))


def write_golden() -> None:
    for prompt in every_prompt():
        for sample in prompt.samples:
            path = GOLDEN / f"{prompt.name}.{prompt.version}.{sample}.txt"
            if not path.exists():
                path.write_text(golden_text(prompt, sample))


def main() -> int:
    parser = argparse.ArgumentParser(prog="prompts", description="Publishes prompts.")
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("--current", metavar="NAME=VERSION", action="append", default=[])
    parser.add_argument("--unpublish", metavar="NAME=VERSION", action="append", default=[])
    arguments = parser.parse_args()
    if not arguments.check:
        try:
            _unpublish([chosen.partition("=")[::2] for chosen in arguments.unpublish])
            publish(current=dict(chosen.partition("=")[::2] for chosen in arguments.current))
        except PromptError as error:
            print(error, file=sys.stderr)
            return 1
        write_golden()
    found = list(complaints())
    for complaint in found:
        print(complaint, file=sys.stderr)
    return 1 if found else 0


def _unpublish(versions: list[tuple[str, str]]) -> None:
    path = HERE / "versions.json"
    if not versions:
        return
    known = orjson.loads(path.read_bytes())
    for name, version in versions:
        if version not in known.get(name, {}).get("versions", {}):
            raise PromptError(f"{name} has no version {version!r} that could be forgotten.")
        known[name]["versions"].pop(version)
        for golden in GOLDEN.glob(f"{name}.{version}.*.txt"):
            golden.unlink()
    path.write_bytes(orjson.dumps(known, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n")


if __name__ == "__main__":
    sys.exit(main())
