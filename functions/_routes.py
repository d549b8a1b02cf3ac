"""Route templates as the Functions host reads them: `v1/files/{id}`, `{id:int}`, `{page?}`, `{*path}`."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote

_PARAMETER = re.compile(r"\{(\*{0,2})(\w+)((?::[^{}]+)?)(?:=([^{}]*))?(\?)?\}")
_CONSTRAINT = re.compile(r":(\w+)(?:\(([^)]*)\))?")

_PATTERNS = {
    "int": r"[+-]?\d{1,10}",
    "long": r"[+-]?\d{1,19}",
    "guid": r"\{?[0-9a-fA-F]{8}-?(?:[0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}\}?",
    "bool": r"(?i:true|false)",
    "alpha": r"[A-Za-z]*",
    "float": r"[+-]?\d+(?:\.\d+)?",
    "double": r"[+-]?\d+(?:\.\d+)?",
    "decimal": r"[+-]?\d+(?:\.\d+)?",
}


@dataclass(frozen=True, slots=True)
class Template:
    """One route.

    >>> Template.parse("v1/files/{id}/content").match("/v1/files/file-1/content")
    {'id': 'file-1'}
    """

    text: str
    rank: tuple[tuple[int, ...], str]
    """Lower goes first: per segment, literal before constrained parameter before parameter before catch-all."""
    _pattern: re.Pattern[str]
    _checks: tuple[tuple[str, Callable[[str], bool]], ...]
    _defaults: tuple[tuple[str, str], ...]

    @classmethod
    def parse(cls, text: str) -> "Template":
        segments = [_Segment.parse(part) for part in text.strip("/").split("/") if part]
        return cls(
            text=text,
            rank=(tuple(segment.digit for segment in segments), text),
            _pattern=re.compile("".join(segment.pattern for segment in segments), re.IGNORECASE),
            _checks=tuple(check for segment in segments for check in segment.checks),
            _defaults=tuple(default for segment in segments for default in segment.defaults),
        )

    def match(self, path: str) -> dict[str, str] | None:
        """The route's values, decoded, or None. `path` is as sent: still percent-encoded."""
        path = path.rstrip("/")
        found = self._pattern.fullmatch(path)
        if found is None:
            return None
        values = dict(self._defaults)
        values |= {name: _decode(value) for name, value in found.groupdict().items() if value}
        if any(name in values and not check(values[name]) for name, check in self._checks):
            return None
        return values


@dataclass(frozen=True, slots=True)
class _Segment:
    pattern: str
    digit: int
    checks: list[tuple[str, Callable[[str], bool]]]
    defaults: list[tuple[str, str]]

    @classmethod
    def parse(cls, text: str) -> "_Segment":
        parameters = list(_PARAMETER.finditer(text))
        if not parameters:
            return cls("/" + re.escape(text), 1, [], [])
        if len(parameters) == 1 and parameters[0].group() == text:
            return cls._of_parameter(parameters[0])
        pattern = "/" + _PARAMETER.sub(lambda found: f"(?P<{found[2]}>[^/]+?)", _escaped_around(text))
        return cls(pattern, 2, [check for found in parameters for check in _checks(found)], [])

    @classmethod
    def _of_parameter(cls, found: re.Match[str]) -> "_Segment":
        stars, name, constraints, default, optional = found.groups()
        checks = _checks(found)
        defaults = [] if default is None else [(name, default)]
        digit = (5 if stars else 3) - bool(constraints)
        if stars:
            return cls(f"(?:/(?P<{name}>.*))?", digit, checks, defaults)
        if optional or defaults:
            return cls(f"(?:/(?P<{name}>[^/]+))?", digit, checks, defaults)
        return cls(f"/(?P<{name}>[^/]+)", digit, checks, defaults)


def _escaped_around(text: str) -> str:
    """A mixed segment such as `{name}.{extension}` with only its literal parts escaped."""
    return "".join(part if part.startswith("{") else re.escape(part) for part in re.split(r"(\{[^{}]*\})", text))


def _checks(found: re.Match[str]) -> list[tuple[str, Callable[[str], bool]]]:
    return [(found[2], _check(kind, argument)) for kind, argument in _CONSTRAINT.findall(found[3])]


def _check(kind: str, argument: str) -> Callable[[str], bool]:
    if kind in _PATTERNS:
        known = re.compile(_PATTERNS[kind])
        return lambda value: known.fullmatch(value) is not None
    if kind == "regex":
        given = re.compile(argument, re.IGNORECASE)
        return lambda value: given.search(value) is not None
    low, _, high = argument.partition(",")
    match kind:
        case "length":
            return lambda value: int(low) <= len(value) <= int(high or low)
        case "minlength":
            return lambda value: len(value) >= int(low)
        case "maxlength":
            return lambda value: len(value) <= int(low)
        case "min":
            return lambda value: _number(value) >= int(low)
        case "max":
            return lambda value: _number(value) <= int(low)
        case "range":
            return lambda value: int(low) <= _number(value) <= int(high)
        case _:
            raise ValueError(f"unknown route constraint {kind!r}")


def _number(value: str) -> float:
    try:
        return int(value)
    except ValueError:
        return float("nan")


def _decode(value: str) -> str:
    """As ASP.NET does: everything but an encoded slash."""
    if "%" not in value:
        return value
    return "%2F".join(unquote(part) for part in re.split("%2[Ff]", value))
