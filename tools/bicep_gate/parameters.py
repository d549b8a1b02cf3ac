"""Parameter files against main.bicep: every name exists, everything required is given."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from tools.bicep_gate.symbols import required
from tools.bicep_gate.syntax import Declaration, Problem, Template, line, literal, parse, text
from tools.bicep_gate.syntax import problems as syntax_problems


def problems(folder: Path, templates: Mapping[Path, Template]) -> Iterator[Problem]:
    for path in sorted(folder.glob("*.bicepparam")):
        yield from _bicepparam(path, templates)
    azd = folder / "main.parameters.json"
    if azd.is_file():
        yield from _azd(azd, templates.get(folder / "main.bicep"))


def _bicepparam(path: Path, templates: Mapping[Path, Template]) -> Iterator[Problem]:
    # The grammar knows templates only, where a parameter has a type; a variable has none, as here.
    file = parse(path, re.sub(rb"^param ", b"var   ", path.read_bytes(), flags=re.M))
    broken = list(syntax_problems(file))
    if broken:
        yield from broken
        return
    using = next((node for node in file.root.named_children if node.type == "using_statement"), None)
    wanted = literal(using.named_children[0]) if using is not None else None
    target = (path.parent / wanted).resolve() if wanted else None
    template = next((t for t in templates.values() if t.path.resolve() == target), None)
    if template is None:
        yield Problem(path, 1, "parameters", "must begin with `using` and a template here")
        return
    given = {declaration.name: line(declaration.node) for declaration in file.of("var")}
    yield from _compare(path, given, template, generated=False)


def _azd(path: Path, template: Template | None) -> Iterator[Problem]:
    source = path.read_text()
    if template is None:
        yield Problem(path, 1, "parameters", "there is no main.bicep beside it")
        return
    names: dict[str, object] = json.loads(source)["parameters"]
    lines = source.splitlines()
    given = {name: next(n for n, row in enumerate(lines, 1) if f'"{name}"' in row) for name in names}
    yield from _compare(path, given, template, generated=True)


def _compare(path: Path, given: Mapping[str, int], template: Template, *, generated: bool) -> Iterator[Problem]:
    known = {param.name: param for param in template.of("param")}
    for name, at in given.items():
        if name not in known:
            yield Problem(path, at, "parameters", f"{template.path.name} has no parameter {name!r}")
    for param in known.values():
        if required(param) and param.name not in given and not (generated and _azd_fills(param)):
            yield Problem(path, 1, "parameters", f"{param.name!r} is required and not given")


def _azd_fills(param: Declaration) -> bool:
    """azd makes up the value of a parameter whose metadata says so, once, and keeps it."""
    metadata = param.decorators.get("metadata")
    return metadata is not None and "type: 'generate'" in text(metadata)
