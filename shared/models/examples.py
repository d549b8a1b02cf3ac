"""A value that fits a JSON schema: the same for the same schema, so that tests can rely on it."""

from typing import Any, cast

from shared.models.base import Json

DEEPEST = 6
"""Nesting at which optional parts are left out, so that recursive schemas end."""

_FORMATS = {
    "date": "2026-01-01",
    "date-time": "2026-01-01T12:00:00Z",
    "time": "12:00:00Z",
    "duration": "PT1H",
    "email": "someone@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


MOST_VALUES = 10_000
"""In one instance; schemas that refer to themselves in many places would grow without end."""
LONGEST = 10_000
MOST_ITEMS = 100


class BadSchema(ValueError):
    """It is not a JSON schema, or asks for more than is reasonable."""


def example_of(schema: Json, text: str = "example") -> Any:
    """An instance of a schema; its free strings are `text`. Patterns are not followed.

    Raises:
        BadSchema: there is none.
    """
    try:
        return _Maker(schema, text).value(schema, 0)
    except (AttributeError, ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as exc:
        raise BadSchema(f"no instance can be made of it ({exc})") from None


class _Maker:
    def __init__(self, root: Json, text: str) -> None:
        self._root = root
        self._text = text
        self._left = MOST_VALUES

    def value(self, schema: Json, depth: int) -> Any:
        self._left -= 1
        if self._left < 0:
            raise ValueError("it is too large")
        if cast(Any, schema) is True:
            return None
        schema = self._resolved(schema)
        for name in ("const", "default"):
            if name in schema:
                return schema[name]
        for name in ("enum", "examples"):
            if schema.get(name):
                return schema[name][0]
        for name in ("anyOf", "oneOf"):
            if schema.get(name):
                return self._first(schema[name], depth)
        match _type_of(schema):
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, depth)
            case "string":
                return self._string(schema)
            case "integer":
                return int(_number(schema))
            case "number":
                return _number(schema)
            case "boolean":
                return True
            case _:
                return None

    def _resolved(self, schema: Json) -> Json:
        """Follow `$ref` inside the document, and fold `allOf` into one schema."""
        for _ in range(DEEPEST):
            reference: str | None = schema.get("$ref")
            if reference is None:
                break
            found: Any = self._root
            for name in reference.removeprefix("#").split("/")[1:]:
                found = found[name.replace("~1", "/").replace("~0", "~")]
            schema = found
        parts: list[Json] = schema.get("allOf") or []
        for part in parts:
            other = self._resolved(part)
            properties = {**schema.get("properties", {}), **other.get("properties", {})}
            required = [*schema.get("required", []), *other.get("required", [])]
            schema = {**schema, **other, "properties": properties, "required": required}
        return schema

    def _first(self, choices: list[Json], depth: int) -> Any:
        """The first choice that ends: deep down, one that is not a structure."""
        flat = [choice for choice in choices if _type_of(self._resolved(choice)) not in ("object", "array")]
        return self.value(flat[0] if depth >= DEEPEST and flat else choices[0], depth)

    def _object(self, schema: Json, depth: int) -> Json:
        required = schema.get("required", [])
        return {
            name: self.value(part, depth + 1)
            for name, part in cast(dict[str, Json], schema.get("properties", {})).items()
            if depth < DEEPEST or (name in required and depth < 2 * DEEPEST)
        }

    def _array(self, schema: Json, depth: int) -> list[Any]:
        least: int = min(schema.get("minItems", 0), MOST_ITEMS)
        count = max(least, 1 if depth < DEEPEST and schema.get("maxItems", 1) else 0)
        items: Json = schema.get("items") or {"type": "string"}
        return [self.value(items, depth + 1) for _ in range(count)]

    def _string(self, schema: Json) -> str:
        text = _FORMATS.get(schema.get("format", ""), self._text)
        least: int = min(schema.get("minLength", 0), LONGEST)
        return text.ljust(least, ".")[: schema.get("maxLength")]


def _type_of(schema: Json) -> str:
    type_: Any = schema.get("type")
    if isinstance(type_, list):
        return next((name for name in cast(list[str], type_) if name != "null"), "null")
    if type_ is None and "properties" in schema:
        return "object"
    return type_ or "null"


def _number(schema: Json) -> float | int:
    """1, or the nearest number the bounds allow."""
    number: float | int = 1
    step: float | int = schema.get("multipleOf", 1)
    if "minimum" in schema:
        number = max(number, schema["minimum"])
    if "exclusiveMinimum" in schema:
        number = max(number, schema["exclusiveMinimum"] + step)
    if "maximum" in schema:
        number = min(number, schema["maximum"])
    if "exclusiveMaximum" in schema:
        number = min(number, schema["exclusiveMaximum"] - step)
    return -(-number // step) * step if "multipleOf" in schema else number
