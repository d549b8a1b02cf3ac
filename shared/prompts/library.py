"""Prompts as files: Prompty (YAML front matter, Jinja2 body), one file a version, known by the hash of its content.

templates/NAME.VERSION.prompty   what is rendered; a published version never changes
partials/*.md                    what several prompts share; part of the hash of each that includes it
versions.json                    each version's hash, and which one is current (written by `python -m tools.prompts`)

>>> PromptLibrary().find("pmpt_translate").render({"language": "German", "text": "Hello"})[1]["content"]
'Hello'
"""

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, create_model

from shared.errors import InvalidRequest

if TYPE_CHECKING:
    from jinja2 import Environment, Template

type Json = dict[str, Any]
type Role = Literal["system", "developer", "user", "assistant"]

HERE = Path(__file__).parent
ID_PREFIX = "pmpt_"

# Patterns, compiled on first use: an app without prompts does not pay for them.
_ROLE = r"(?m)^(system|developer|user|assistant):[ \t]*\n"
_INCLUDE = r"""{%-?\s*include\s+["']([\w.-]+)["']"""
_FRONT = r"(?ms)\A---\n(.*?)^---\n(.*)\Z"
_PART = "\0(\\w+)\0"
_PARTS = {"image": "input_image", "file": "input_file"}
_TYPES: dict[str, Any] = {
    "string": str,
    "integer": int,
    "number": float,
    "boolean": bool,
    "array": list[str],
    "object": dict[str, Any],
    "image": dict[str, Any],
    "file": dict[str, Any],
}
_LIMITS = {
    "pattern": "pattern",
    "minLength": "min_length",
    "maxLength": "max_length",
    "minimum": "ge",
    "maximum": "le",
}


class PromptError(ValueError):
    """A prompt file cannot be used; the message names it."""


class _Inputs(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One version of a prompt, ready to render."""

    name: str
    version: str
    digest: str
    """SHA-256 of the file and of every partial it includes, hexadecimal."""
    description: str
    defaults: Json
    """Fields of a Responses request that hold unless the caller says otherwise: `model`, `temperature`, …"""
    inputs: type[BaseModel]
    parts: frozenset[str]
    """Inputs that are images or files, not text."""
    samples: dict[str, Json]
    sections: "tuple[tuple[Role, Template], ...]"

    @property
    def label(self) -> str:
        """Name, version and the first half of the hash: what is recorded on a turn."""
        return f"{self.name}@{self.version}:{self.digest[:12]}"

    def render(self, variables: Json | None = None) -> list[Json]:
        """Messages, `{"role": …, "content": …}`; content is a list of parts where an image or a file is among them.

        Equal variables give equal bytes.

        Raises:
            InvalidRequest: a variable is unknown, missing or of the wrong kind; `param` is `prompt.variables.NAME`.
        """
        values = self._validated(variables or {})
        marks = {name: f"\0{name}\0" for name in self.parts}
        texts = {name: _without_marks(value) for name, value in values.items() if name not in self.parts}
        messages: list[Json] = []
        for role, template in self.sections:
            text = template.render(texts | {name: mark for name, mark in marks.items() if values[name] is not None})
            content = _content(text, values) if self.parts else text
            if content:
                messages.append({"role": role, "content": content})
        return messages

    def text(self, variables: Json | None = None) -> str:
        """The same as one text, for prompts that are instructions alone."""
        return "\n\n".join(str(message["content"]) for message in self.render(variables))

    def _validated(self, variables: Json) -> Json:
        given = {name: _plain(value) if name not in self.parts else value for name, value in variables.items()}
        try:
            values = self.inputs.model_validate(given)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            name = str(first["loc"][0]) if first["loc"] else ""
            raise InvalidRequest(
                f"Invalid variable {name!r} of prompt {self.name!r}: {_why(first['type'], first['msg'])}",
                param=f"prompt.variables.{name}",
                code="invalid_prompt_variable",
            ) from None
        return {name: getattr(values, name) for name in self.inputs.model_fields}


def _why(kind: str, message: str) -> str:
    match kind:
        case "extra_forbidden":
            return "the prompt has no such variable."
        case "missing":
            return "it is required."
        case "dict_type":
            return "expected an object."
        case _:
            said = message.removeprefix("Value error, ").replace("Input should be", "expected").replace(" valid ", " ")
            return f"{said[0].lower()}{said[1:]}."


def _plain(value: Any) -> Any:
    """A variable may come as an `input_text` part."""
    if isinstance(value, dict) and cast(Json, value).get("type") == "input_text":
        return cast(Json, value).get("text")
    return cast(object, value)


def _without_marks(value: Any) -> Any:
    """No text can pretend to be a part."""
    if isinstance(value, str):
        return value.replace("\0", "")
    if isinstance(value, list):
        return [_without_marks(entry) for entry in cast(list[Any], value)]
    return value


def _content(text: str, values: Json) -> str | list[Json]:
    pieces = re.split(_PART, text)
    if len(pieces) == 1:
        return text
    content: list[Json] = []
    for place, piece in enumerate(pieces):
        if place % 2:
            content.append(values[piece])
        elif piece.strip("\n"):
            content.append({"type": "input_text", "text": piece.strip("\n")})
    return content


class PromptLibrary:
    """The prompts of a folder. Nothing is read before the first use, and each file once."""

    def __init__(self, folder: Path = HERE) -> None:
        self._folder = folder
        self._prompts: dict[tuple[str, str], Prompt] = {}

    @cached_property
    def index(self) -> dict[str, Json]:
        """What versions.json says: name to `{"current": version, "versions": {version: hash}}`."""
        return orjson.loads((self._folder / "versions.json").read_bytes())

    def find(self, name: str, version: str | None = None) -> Prompt:
        """By name, with or without `pmpt_`; the current version unless one is named.

        Raises:
            InvalidRequest: there is no such prompt (`prompt.id`) or version (`prompt.version`).
        """
        plain = name.removeprefix(ID_PREFIX)
        entry = self.index.get(plain)
        if entry is None:
            raise InvalidRequest(f"Prompt with id {name!r} not found.", param="prompt.id", code="prompt_not_found")
        version = version or str(entry["current"])
        digest = entry["versions"].get(version)
        if digest is None:
            known = ", ".join(entry["versions"])
            raise InvalidRequest(
                f"Prompt {name!r} has no version {version!r}; it has {known}.",
                param="prompt.version",
                code="prompt_version_not_found",
            )
        found = self._prompts.get((plain, version))
        if found is None:
            path = self._folder / "templates" / f"{plain}.{version}.prompty"
            found = self._prompts[plain, version] = read_prompt(path, self._environment, digest=digest)
        return found

    def has(self, name: str, version: str) -> bool:
        return version in self.index.get(name, {}).get("versions", {})

    @cached_property
    def _environment(self) -> "Environment":
        return environment(self._folder)


def environment(folder: Path) -> "Environment":
    """Sandboxed: a template reaches its inputs and the partials, nothing of Python; an unknown name is an error."""
    # Imported on first use: an app without prompts does not pay for it.
    from jinja2 import FileSystemLoader, StrictUndefined  # noqa: PLC0415
    from jinja2.sandbox import ImmutableSandboxedEnvironment  # noqa: PLC0415

    return ImmutableSandboxedEnvironment(
        loader=FileSystemLoader(folder / "partials"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
        autoescape=False,
    )


def read_prompt(path: Path, templates: "Environment", *, digest: str) -> Prompt:
    """Raises `PromptError` naming the file."""
    import yaml  # noqa: PLC0415 - see `environment`

    parsed = re.match(_FRONT, path.read_text())
    if parsed is None:
        raise PromptError(f"{path.name} has no front matter")
    front: Json = yaml.safe_load(parsed[1])
    name, version = path.name.removesuffix(".prompty").rsplit(".", 1)
    if front.get("name") != name or str(front.get("version")) != version:
        raise PromptError(f"{path.name} must say name: {name} and version: {version!r}")
    model: Json = front.get("model") or {}
    declared: dict[str, Json] = front.get("inputs") or {}
    samples: dict[str, Json] = front.get("samples") or {}
    if "sample" in front:
        samples = {"sample": front["sample"], **samples}
    # Roles are split before rendering: a variable that says "system:" stays what it is.
    pieces = re.split(_ROLE, parsed[2])
    if pieces[0].strip() or len(pieces) < 3:
        raise PromptError(f"{path.name} must begin with a role, as in `system:`")
    texts: Any = zip(pieces[1::2], pieces[2::2], strict=True)
    sections: list[tuple[Role, Template]] = [(role, templates.from_string(text.strip("\n"))) for role, text in texts]
    return Prompt(
        name=name,
        version=version,
        digest=digest,
        description=str(front.get("description") or ""),
        defaults={**({"model": model["id"]} if model.get("id") else {}), **(model.get("parameters") or {})},
        inputs=_inputs_of(name, declared),
        parts=frozenset(key for key, spec in declared.items() if spec.get("type") in _PARTS),
        samples=samples,
        sections=tuple(sections),
    )


def _inputs_of(name: str, declared: dict[str, Json]) -> type[BaseModel]:
    fields: dict[str, Any] = {}
    for key, spec in declared.items():
        kind = spec.get("type", "string")
        of: Any = Literal[*spec["enum"]] if "enum" in spec else _TYPES[kind]
        limits = {ours: spec[theirs] for theirs, ours in _LIMITS.items() if theirs in spec}
        if kind in _PARTS:
            limits = {}
            of = _part_of(_PARTS[kind])
        default = spec["default"] if "default" in spec else ... if spec.get("required", True) else None
        is_open = default is None
        fields[key] = (of | None if is_open else of, Field(default, description=spec.get("description"), **limits))
    return create_model(f"{name}_inputs", __base__=_Inputs, **fields)


def _part_of(kind: str) -> Any:
    def check(part: Json) -> Json:
        if part.get("type") != kind:
            raise ValueError(f"expected a part of type {kind!r}")
        return part

    return Annotated[dict[str, Any], AfterValidator(check)]


def digest_of(path: Path, partials: Path) -> str:
    """Of a prompt file and everything it includes, line ends aside."""
    digest = hashlib.sha256()
    waiting, seen = [path], set[Path]()
    while waiting:
        file = waiting.pop(0)
        if file in seen:
            continue
        seen.add(file)
        text = file.read_text().replace("\r\n", "\n")
        digest.update(f"{file.name}\0{text}\0".encode())
        waiting += [partials / name for name in re.findall(_INCLUDE, text)]
    return digest.hexdigest()
