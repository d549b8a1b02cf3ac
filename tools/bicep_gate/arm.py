"""ARM property names, read from the source of the azure-mgmt-* packages on PyPI.

Those packages are generated from the same specifications as the compiler's types. Two styles are read, without
importing anything: `rest_field(name="wireName")` with an annotation, and `_attribute_map` with dotted keys.
"""

import ast
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Scalar:
    """Any value that is no object: text, number, flag. `values`: the ones an enum knows."""

    values: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Anything:
    """Not checked further: a bag of names, or a type this reader does not know."""


@dataclass(frozen=True)
class ListOf:
    item: "Shape"


@dataclass(frozen=True)
class MapOf:
    item: "Shape"


@dataclass(frozen=True)
class Reference:
    """A class of the same package."""

    package: str
    name: str


@dataclass(frozen=True)
class Field:
    shape: "Shape"
    required: bool = False
    readonly: bool = False


@dataclass(frozen=True)
class Object:
    fields: dict[str, Field] = field(default_factory=dict[str, Field])
    kinds: dict[tuple[str, str], "Reference"] = field(default_factory=dict[tuple[str, str], "Reference"])
    """Of a polymorphic class: the class meant when that property has that value."""


type Shape = Scalar | Anything | ListOf | MapOf | Reference | Object

_SCALARS = frozenset({"str", "int", "float", "bool", "bytes", "iso-8601", "duration", "date", "time", "rfc-1123"})


def expand(reference: Reference) -> Object:
    """The fields of a class and of the classes it builds on, and which class each of its kinds is."""
    package = _package(reference.package)
    fields: dict[str, Field] = {}
    for name in reversed(list(package.ancestors(reference.name))):
        fields |= package.own(name)
    return Object(fields, package.kinds(reference.name))


def knows(package: str, class_name: str) -> bool:
    return class_name in _package(package).classes


def mentions(package: str, version: str) -> bool:
    """Whether the package speaks that API version anywhere."""
    folder = _folder(package)
    return any(f'"{version}"' in path.read_text() for path in folder.rglob("*.py") if "/aio/" not in path.as_posix())


def _folder(package: str) -> Path:
    spec = importlib.util.find_spec(f"azure.mgmt.{package}")
    if spec is None or not spec.submodule_search_locations:
        raise LookupError(f"azure.mgmt.{package} is not installed: add its package to the dev group")
    return Path(spec.submodule_search_locations[0])


class _Package:
    def __init__(self, name: str) -> None:
        self.name = name
        self.classes: dict[str, ast.ClassDef] = {}
        self.enums: dict[str, frozenset[str]] = {}
        for path in sorted((_folder(name) / "models").glob("_*.py")):
            if path.name in {"__init__.py", "_patch.py"}:
                continue
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.ClassDef):
                    self._add(node)
        self._children: dict[str, list[str]] = {}
        for class_ in self.classes.values():
            for base in _bases(class_):
                self._children.setdefault(base, []).append(class_.name)
        self._own: dict[str, dict[str, Field]] = {}

    def _add(self, node: ast.ClassDef) -> None:
        if "Enum" in _bases(node):
            values = (
                s.value.value for s in node.body if isinstance(s, ast.Assign) and isinstance(s.value, ast.Constant)
            )
            self.enums[node.name] = frozenset(str(value) for value in values)
        else:
            self.classes[node.name] = node

    def ancestors(self, name: str) -> Iterator[str]:
        """The class itself first."""
        class_ = self.classes.get(name)
        if class_ is None:
            return
        yield name
        for base in _bases(class_):
            if base != name:  # `class Resource(_common.Resource)`
                yield from self.ancestors(base)

    def kinds(self, name: str) -> dict[tuple[str, str], Reference]:
        class_ = self.classes.get(name)
        if class_ is None:
            return {}
        if old := _tables(class_).get("_subtype_map"):
            keys = {attribute: entry["key"] for attribute, entry in _tables(class_)["_attribute_map"].items()}
            return {
                (keys[attribute].replace(r"\.", "."), value): Reference(self.name, child)
                for attribute, children in old.items()
                for value, child in children.items()
            }
        wires = [wire for base in self.ancestors(name) for wire in self._discriminators(self.classes[base])]
        found: dict[tuple[str, str], Reference] = {}
        for child in self._children.get(name, ()):
            value = next((_string(k.value) for k in self.classes[child].keywords if k.arg == "discriminator"), None)
            found |= {(wire, value): Reference(self.name, child) for wire in wires if value is not None}
        return found

    def _discriminators(self, class_: ast.ClassDef) -> Iterator[str]:
        for statement in class_.body:
            call = statement.value if isinstance(statement, ast.AnnAssign) else None
            if isinstance(call, ast.Call) and _called(call) == "rest_discriminator":
                wire = next((_string(k.value) for k in call.keywords if k.arg == "name"), None)
                target = statement.target if isinstance(statement, ast.AnnAssign) else None
                yield wire or (target.id if isinstance(target, ast.Name) else "")

    def own(self, name: str) -> dict[str, Field]:
        if name not in self._own:
            class_ = self.classes[name]
            self._own[name] = dict(self._rest_fields(class_)) or self._attribute_map(class_)
        return self._own[name]

    def _rest_fields(self, class_: ast.ClassDef) -> Iterator[tuple[str, Field]]:
        for statement in class_.body:
            if not (isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)):
                continue
            call = statement.value
            if not isinstance(call, ast.Call) or _called(call) not in {"rest_field", "rest_discriminator"}:
                continue
            options = {k.arg: k.value for k in call.keywords}
            wire = _string(options.get("name")) or statement.target.id
            visibility = options.get("visibility")
            readonly = isinstance(visibility, ast.List) and [_string(v) for v in visibility.elts] == ["read"]
            shape, optional = self._annotation(statement.annotation)
            yield wire, Field(shape, not optional and not readonly and _called(call) == "rest_field", readonly)

    def _annotation(self, node: ast.expr) -> tuple[Shape, bool]:
        """The shape, and whether None is allowed."""
        match node:
            case ast.Subscript(value=ast.Name(id="Optional"), slice=inner):
                return self._annotation(inner)[0], True
            case ast.Subscript(value=ast.Name(id="Union"), slice=ast.Tuple(elts=parts)):
                return self._union(parts), False
            case ast.Subscript(value=ast.Name(id="list" | "List"), slice=inner):
                return ListOf(self._annotation(inner)[0]), False
            case ast.Subscript(value=ast.Name(id="dict" | "Dict"), slice=ast.Tuple(elts=[_, inner])):
                return MapOf(self._annotation(inner)[0]), False
            case ast.Subscript(value=ast.Name(id="Literal")):
                return Scalar(), False
            case ast.Constant(value=str(quoted)):
                return self._named(quoted.split(".")[-1]), False
            case ast.Name(id=name):
                return (Scalar() if name in _SCALARS else Anything()), False
            case ast.Attribute(attr="datetime" | "date" | "timedelta" | "time"):
                return Scalar(), False
            case _:
                return Anything(), False

    def _union(self, parts: list[ast.expr]) -> Shape:
        for part in parts:
            shape = self._annotation(part)[0]
            if not isinstance(shape, Scalar) or shape.values:
                return shape
        return Scalar()

    def _named(self, name: str) -> Shape:
        if name in self.enums:
            return Scalar(self.enums[name])
        return Reference(self.name, name) if name in self.classes else Anything()

    def _attribute_map(self, class_: ast.ClassDef) -> dict[str, Field]:
        tables = _tables(class_)
        root = Object()
        for attribute, entry in tables.get("_attribute_map", {}).items():
            rules = tables.get("_validation", {}).get(attribute, {})
            leaf = Field(self._old_style(entry["type"]), bool(rules.get("required")), bool(rules.get("readonly")))
            if not entry["key"]:
                continue  # the bag of additional properties
            *path, name = entry["key"].replace(r"\.", "\0").split(".")
            target = root
            for part in path:
                inner = target.fields.setdefault(part, Field(Object())).shape
                if not isinstance(inner, Object):
                    raise TypeError(f"{class_.name}.{attribute}: {part!r} is a value and a parent")
                target = inner
            target.fields[name.replace("\0", ".")] = leaf
        return root.fields

    def _old_style(self, type_: str) -> Shape:
        if type_.startswith("["):
            return ListOf(self._old_style(type_[1:-1]))
        if type_.startswith("{"):
            return MapOf(self._old_style(type_[1:-1]))
        return Scalar() if type_ in _SCALARS else self._named(type_)


@cache
def _package(name: str) -> _Package:
    return _Package(name)


def _tables(class_: ast.ClassDef) -> dict[str, Any]:
    """`_attribute_map`, `_validation` and `_subtype_map` of a class of the old style, as written."""
    return {
        statement.targets[0].id: ast.literal_eval(statement.value)
        for statement in class_.body
        if isinstance(statement, ast.Assign)
        and isinstance(statement.targets[0], ast.Name)
        and statement.targets[0].id in {"_attribute_map", "_validation", "_subtype_map"}
    }


def _bases(class_: ast.ClassDef) -> list[str]:
    """Those of the same package: `Sku`, `_models.Sku`; not `_serialization.Model`, which shares a name with one."""
    local = [base.id for base in class_.bases if isinstance(base, ast.Name)]
    return local + [
        base.attr
        for base in class_.bases
        if isinstance(base, ast.Attribute) and isinstance(base.value, ast.Name) and base.value.id == "_models"
    ]


def _called(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _string(node: ast.expr | None) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None
