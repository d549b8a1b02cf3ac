"""The OpenAPI 3.1 document, made from the routes, from what stands at their handlers, and from the schemas themselves.

Request bodies are described by the very pydantic classes that validate them, answers by the types in `wire/answers`.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, cast, override

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from functions._edge import PUBLIC
from functions._operations import JSON, Operation, Parameter, find_operation
from functions._routes import Template
from functions.not_found import Route
from shared.wire.answers.common import Error

type Json = dict[str, Any]

VERSION = "0.1.0"
DESCRIPTION = (
    "The backend of a personal AI. It speaks the OpenAI protocol with the state kept on the server: every OpenAI client"
    " is a client of it. What is Companion's own follows the same conventions."
)
SCHEMAS = "#/components/schemas/"
REQUEST_ID = {"x-request-id": {"$ref": "#/components/headers/RequestId"}}
UNKNOWN = Operation()
"""Of a function that nothing was said of; a test complains about each."""

_PLACEHOLDER = re.compile(r"\{\*{0,2}(\w+)[^{}]*\}")
_OWN = re.compile(r"^(?:shared__wire|functions)__(\w+)$")
_PAGE = re.compile(r"^Page_(\w+?)_+$")


def build_document(routes: Sequence[Route], *, is_open: bool) -> Json:
    """The whole document.

    Args:
        routes: what is served, the catch-all left out.
        is_open: callers need no key here (the local owner).
    """
    shapes, schemas = _schemas(routes)
    paths: dict[str, Json] = {}
    for route in sorted(routes, key=lambda route: (_tag(route), len(route.template.text), route.template.text)):
        path = paths.setdefault(path_of(route.template), {})
        for method in sorted(route.methods):
            path[method.lower()] = _operation(route, method, shapes)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Companion", "version": VERSION, "description": DESCRIPTION},
        "servers": [{"url": "/"}],
        "tags": _tags(routes),
        "security": [{"bearer": []}, {}] if is_open else [{"bearer": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            "headers": _HEADERS,
            "responses": _errors(shapes),
            "schemas": schemas,
        },
    }


def path_of(template: Template) -> str:
    """
    >>> path_of(Template.parse("v1/models/{*model}"))
    '/v1/models/{model}'
    """
    return "/" + _PLACEHOLDER.sub(r"{\1}", template.text.strip("/"))


# operations


def _operation(route: Route, method: str, shapes: Mapping[str, Json]) -> Json:
    said = find_operation(route.name) or UNKNOWN
    summary, _, rest = (route.doc or _spoken(route.name)).strip().partition("\n")
    operation: Json = {
        "operationId": route.name if method != "HEAD" or len(route.methods) == 1 else f"{route.name}_head",
        "tags": [_tag(route)],
        "summary": summary.strip(),
    }
    if rest.strip():
        operation["description"] = " ".join(rest.split())
    if route.name in PUBLIC:
        operation["security"] = []
    parameters = [*_path_parameters(route.template), *(_parameter(each) for each in _parameters(said))]
    if parameters:
        operation["parameters"] = parameters
    if said.body is not None:
        content = {said.body_media: {"schema": shapes[f"{route.name} body"]}}
        operation["requestBody"] = {"required": said.is_body_required, "content": content}
    operation["responses"] = _responses(route, method, said, shapes)
    return operation


def _path_parameters(template: Template) -> list[Json]:
    schema = {"type": "string", "minLength": 1}
    return [
        {"name": name, "in": "path", "required": True, "schema": schema, "description": _meaning(name)}
        for name in _PLACEHOLDER.findall(template.text)
    ]


def _meaning(name: str) -> str:
    thing = _spoken(name.removesuffix("_id")).lower()
    return f"Id of the {thing}." if name.endswith("_id") else f"The {thing}."


def _parameters(said: Operation) -> list[Parameter]:
    return [*said.query, *([IDEMPOTENCY_KEY] if said.is_idempotent_by_key else [])]


def _parameter(parameter: Parameter) -> Json:
    body: Json = {
        "name": parameter.name,
        "in": parameter.place,
        "schema": parameter.schema,
        "description": parameter.description,
    }
    return {**body, "style": parameter.style, "explode": True} if parameter.style else body


IDEMPOTENCY_KEY = Parameter(
    name="Idempotency-Key",
    place="header",
    schema={"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
    description="Any text, new for each new request: the same request sent again with it is answered as the first was.",
)


def _responses(route: Route, method: str, said: Operation, shapes: Mapping[str, Json]) -> Json:
    responses: Json = {str(said.status): _answer(route, method, said, shapes)}
    for status in said.also:
        content = {JSON: {"schema": shapes[f"{route.name} {status}"]}}
        responses[str(status)] = _without_content(method, _described(status, content))
    for status in sorted(_refusals(route, said)):
        responses.setdefault(
            str(status),
            _described(status, {}) if method == "HEAD" else {"$ref": f"#/components/responses/Error{status}"},
        )
    return dict(sorted(responses.items()))


def _answer(route: Route, method: str, said: Operation, shapes: Mapping[str, Json]) -> Json:
    content: Json = {}
    if said.answer is not None:
        content[said.answer_media] = {"schema": shapes[f"{route.name} answer"]}
    elif said.answer_media != JSON:
        content[said.answer_media] = {}
    if said.stream is not None:
        # A document of this version has no word for a stream; what the data of its events is stands beside it.
        events = shapes[f"{route.name} stream"]
        schema = {"description": "Server-sent events; `x-event-schema` says what the data of each is."}
        content["text/event-stream"] = {"schema": schema, "x-event-schema": events}
    return _without_content(method, _described(said.status, content))


def _described(status: int, content: Json) -> Json:
    body: Json = {"description": HTTPStatus(status).phrase, "headers": REQUEST_ID}
    return {**body, "content": content} if content else body


def _without_content(method: str, response: Json) -> Json:
    return {name: value for name, value in response.items() if name != "content" or method != "HEAD"}


def _refusals(route: Route, said: Operation) -> set[int]:
    """Statuses an operation of this kind may be refused with."""
    statuses = {500, *said.errors, *((400, 422) if said.is_idempotent_by_key else ())}
    if route.name not in PUBLIC:
        statuses |= {401, 403, 429, 503}
    if said.body is not None:
        statuses |= {400, 408, 413}
    if said.query:
        statuses |= {400}
    if any(parameter.name == "after" for parameter in said.query):
        statuses |= {404}
    if "{" in route.template.text:
        statuses |= {400, 404}
    return statuses


def _errors(shapes: Mapping[str, Json]) -> Json:
    statuses = (400, 401, 403, 404, 408, 409, 413, 422, 429, 500, 502, 503, 504)
    schema = shapes[_ERROR]
    return {f"Error{status}": _described(status, {JSON: {"schema": schema}}) for status in statuses}


_HEADERS: Json = {
    "RequestId": {
        "description": "Names this answer; quote it when something is wrong with it.",
        "required": True,
        "schema": {"type": "string"},
    }
}

# words


def _tag(route: Route) -> str:
    said = find_operation(route.name)
    return (said and said.tag) or _spoken(route.module.rpartition(".")[2])


def _spoken(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _tags(routes: Sequence[Route]) -> list[Json]:
    found: dict[str, str] = {}
    for route in routes:
        module = sys.modules.get(route.module)
        found.setdefault(_tag(route), ((module and module.__doc__) or "").strip().partition("\n")[0])
    return [{"name": name, "description": text} for name, text in sorted(found.items())]


# schemas

_ERROR = "error"


class _Schemas(GenerateJsonSchema):
    @override
    def tagged_union_schema(self, schema: core_schema.TaggedUnionSchema) -> JsonSchemaValue:
        """Where a function tells the kinds apart, a value may fit several of them as far as a schema can tell."""
        union = super().tagged_union_schema(schema)
        if "discriminator" not in union and "oneOf" in union:
            union["anyOf"] = union.pop("oneOf")
        return union


def _schemas(routes: Sequence[Route]) -> tuple[dict[str, Json], Json]:
    """The schema of every shape by `<function> <body, answer, stream or status>`, and those that they refer to."""
    shapes: dict[str, Any] = {_ERROR: Error}
    for route in routes:
        said = find_operation(route.name) or UNKNOWN
        named = {"body": said.body, "answer": said.answer, "stream": said.stream, **said.also}
        shapes |= {f"{route.name} {part}": shape for part, shape in named.items() if shape is not None}
    adapters = [(name, "validation", TypeAdapter(shape)) for name, shape in shapes.items()]
    found, rest = TypeAdapter.json_schemas(
        cast(Any, adapters), ref_template=f"{SCHEMAS}{{model}}", schema_generator=_Schemas
    )
    definitions: Json = rest.get("$defs", {})
    names = _plain_names(definitions)
    plain = _renamed(definitions, names)
    return (
        {key: _renamed(schema, names) for (key, _), schema in found.items()},
        {names[name]: plain[name] for name in sorted(plain, key=lambda name: names[name])},
    )


def _plain_names(definitions: Json) -> dict[str, str]:
    """Names of classes, as long as nothing else is called so; else with their module before them."""
    names: dict[str, str] = {}
    for name in definitions:
        own, page = _OWN.match(name), _PAGE.match(name)
        names[name] = own[1].replace("__", ".") if own else f"{page[1]}Page" if page else name
    return names


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    match value:
        case dict():
            return {key: _renamed(each, names) for key, each in cast(Json, value).items()}
        case list():
            return [_renamed(each, names) for each in cast(list[Any], value)]
        case str() if value.startswith(SCHEMAS):
            name = value.removeprefix(SCHEMAS)
            return SCHEMAS + names.get(name, name)
        case _:
            return value
