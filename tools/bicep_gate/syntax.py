"""Bicep files into trees, and what each file declares."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

import tree_sitter
import tree_sitter_bicep
from tree_sitter import Node

type Kind = Literal["param", "var", "type", "func", "resource", "module", "output", "import"]

_DECLARATIONS: dict[str, Kind] = {
    "parameter_declaration": "param",
    "variable_declaration": "var",
    "type_declaration": "type",
    "user_defined_function": "func",
    "resource_declaration": "resource",
    "module_declaration": "module",
    "output_declaration": "output",
}


@dataclass(frozen=True, order=True)
class Problem:
    """One defect: where, which rule, and what to do about it.

    >>> str(Problem(Path("main.bicep"), 3, "unused", "param 'x' is never read"))
    "main.bicep:3: unused: param 'x' is never read"
    """

    path: Path
    line: int
    rule: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.rule}: {self.message}"


@dataclass(frozen=True)
class Declaration:
    """A named thing of a file. `body` is its value, for a resource or module the object inside `if` and `for`."""

    kind: Kind
    name: str
    node: Node
    body: Node | None
    decorators: dict[str, Node] = field(default_factory=dict[str, Node])
    """Name to call."""
    reference: str = ""
    """Of a resource its `type@version`, of a module or import the path."""
    existing: bool = False
    parent: str = ""
    """Of a resource nested in another's body: that one's name."""

    @property
    def line(self) -> int:
        return line(self.node)


@dataclass(frozen=True)
class Template:
    path: Path
    root: Node
    declarations: tuple[Declaration, ...]

    def of(self, *kinds: Kind) -> list[Declaration]:
        return [declaration for declaration in self.declarations if declaration.kind in kinds]

    def find(self, name: str) -> Declaration | None:
        return next((d for d in self.declarations if d.name == name and d.kind != "output"), None)

    def problem(self, node: Node, rule: str, message: str) -> Problem:
        return Problem(self.path, line(node), rule, message)


def line(node: Node) -> int:
    return node.start_point[0] + 1


def text(node: Node) -> str:
    return (node.text or b"").decode()


def literal(node: Node | None) -> str | None:
    """The value of a string without interpolation; None for anything else."""
    if node is None or node.type != "string":
        return None
    inner = node.named_children
    if any(child.type != "string_content" for child in inner):
        return None
    return "".join(text(child) for child in inner)


def walk(node: Node) -> Iterator[Node]:
    """The node and everything below it, in source order."""
    yield node
    for child in node.children:
        yield from walk(child)


def members(node: Node) -> dict[str, Node]:
    """Name to value of an object's properties; computed names are left out."""
    found: dict[str, Node] = {}
    for child in node.named_children:
        if child.type != "object_property" or len(child.named_children) != 2:
            continue
        key, value = child.named_children
        name = literal(key) if key.type == "string" else text(key)
        if name is not None:
            found[name] = value
    return found


def at(node: Node | None, *path: str) -> Node | None:
    """The value found by following property names from an object."""
    for name in path:
        if node is None or node.type != "object":
            return None
        node = members(node).get(name)
    return node


@cache
def _parser() -> tree_sitter.Parser:
    return tree_sitter.Parser(tree_sitter.Language(tree_sitter_bicep.language()))


def read(path: Path) -> Template:
    return parse(path, path.read_bytes())


def parse(path: Path, source: bytes) -> Template:
    root = _parser().parse(source).root_node
    return Template(path, root, tuple(_declarations(root)))


def problems(template: Template) -> Iterator[Problem]:
    """Where the file is no Bicep."""
    for node in walk(template.root):
        if node.is_error:
            yield template.problem(node, "syntax", f"cannot be read: {text(node)[:40]!r}")
        elif node.is_missing:
            yield template.problem(node, "syntax", f"{node.type} is missing")


def _declarations(root: Node) -> Iterator[Declaration]:
    decorators: dict[str, Node] = {}
    for node in root.named_children:
        if node.type == "decorators":
            decorators = dict(_decorators(node))
            continue
        if node.type == "comment":
            continue
        if node.type == "import_functionality":
            yield from _imports(node)
        elif node.type in _DECLARATIONS:
            yield from _declaration(node, decorators)
        decorators = {}


def _decorators(node: Node) -> Iterator[tuple[str, Node]]:
    for decorator in node.named_children:
        call = decorator.named_children[0]
        function = call.child_by_field_name("function") or call
        yield text(function).removeprefix("sys."), call


def _imports(node: Node) -> Iterator[Declaration]:
    """`import {a, b as c} from 'x'` declares a and c; `import * as t from 'x'` declares t."""
    path = literal(node.named_children[-1]) or ""
    children = node.children
    for index, child in enumerate(children):
        if child.type != "identifier" or (index + 1 < len(children) and children[index + 1].type == "as"):
            continue
        yield Declaration("import", text(child), child, None, reference=path)


def _declaration(node: Node, decorators: dict[str, Node]) -> Iterator[Declaration]:
    kind = _DECLARATIONS[node.type]
    named = [child for child in node.named_children if child.type != "comment"]
    name = text(node.child_by_field_name("name") or named[0])
    if kind not in {"resource", "module"}:
        value = named[-1] if len(named) > 1 and named[-1].type != "type" else None
        yield Declaration(kind, name, node, value, decorators)
        return
    body = _body(named[-1])
    existing = any(child.type == "existing" for child in node.children)
    yield Declaration(kind, name, node, body, decorators, reference=literal(named[1]) or "", existing=existing)
    yield from _nested(body, name)


def _body(node: Node) -> Node | None:
    """The object inside `if (…) {}`, `[for … : {}]` and their nesting."""
    while node.type in {"if_statement", "for_statement"}:
        node = node.named_children[-1]
    return node if node.type == "object" else None


def _nested(body: Node | None, parent: str) -> Iterator[Declaration]:
    for child in body.named_children if body else ():
        inner = child.named_children[0] if child.named_children else child
        if child.type == "object_property" and inner.type == "resource_declaration":
            for declaration in _declaration(inner, {}):
                yield Declaration(
                    "resource",
                    declaration.name,
                    declaration.node,
                    declaration.body,
                    reference=declaration.reference,
                    existing=declaration.existing,
                    parent=declaration.parent or parent,
                )
