from typing import Any

import pytest

from shared.models.base import Json
from shared.models.examples import DEEPEST, BadSchema, example_of

TREE: Json = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "left": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
            },
            "required": ["name", "left", "children"],
        }
    },
    "$ref": "#/$defs/node",
}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "string"}, "hint"),
        ({"type": "string", "enum": ["red", "blue"]}, "red"),
        ({"const": 7}, 7),
        ({"type": "string", "format": "date"}, "2026-01-01"),
        ({"type": "string", "minLength": 6}, "hint.."),
        ({"type": "string", "maxLength": 2}, "hi"),
        ({"type": ["null", "integer"]}, 1),
        ({"type": "integer", "minimum": 18}, 18),
        ({"type": "integer", "exclusiveMinimum": 18}, 19),
        ({"type": "integer", "multipleOf": 5}, 5),
        ({"type": "number", "maximum": -2}, -2),
        ({"type": "boolean"}, True),
        ({"type": "null"}, None),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 2}, [1, 1]),
        ({"type": "array", "items": {"type": "integer"}, "maxItems": 0}, []),
        ({"properties": {"a": {"type": "integer"}}}, {"a": 1}),
        ({"anyOf": [{"type": "null"}, {"type": "string"}]}, None),
        (
            {"allOf": [{"properties": {"a": {"type": "integer"}}}, {"properties": {"b": {"type": "boolean"}}}]},
            {"a": 1, "b": True},
        ),
        ({"$ref": "#/$defs/x", "$defs": {"x": {"type": "integer"}}}, 1),
    ],
)
def test_a_schema_has_an_instance(schema: Json, expected: Any) -> None:
    assert example_of(schema, "hint") == expected


def test_a_recursive_schema_ends() -> None:
    value = example_of(TREE, "leaf")

    depth = 0
    while value is not None:
        value, depth = value["left"], depth + 1
    assert 0 < depth <= DEEPEST + 1


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": 5}},
        {"properties": [1]},
        {"$ref": "#/nowhere"},
        {"enum": 5},
        {"type": "integer", "minimum": "x"},
        {"$defs": {"a": {"properties": {str(n): {"$ref": "#/$defs/a"} for n in range(20)}}}, "$ref": "#/$defs/a"},
    ],
)
def test_of_what_is_no_schema_there_is_no_instance(schema: Json) -> None:
    with pytest.raises(BadSchema):
        example_of(schema)


def test_lengths_are_kept_within_reason() -> None:
    schema = {"type": "array", "minItems": 10**12, "items": {"type": "string", "minLength": 10**12}}

    assert len(example_of(schema)) == 100
    assert len(example_of(schema)[0]) == 10_000


def test_a_schema_may_say_that_anything_goes() -> None:
    assert example_of({"type": "object", "properties": {"a": True}}) == {"a": None}
