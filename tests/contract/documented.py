"""Real answers, held against the API's document: more strictly than it says, for nothing may be there that it hides."""

import re
from functools import lru_cache
from typing import Any, cast

import httpx
import jsonschema_rs
import orjson

type Json = dict[str, Any]

_METHODS = ("get", "post", "put", "patch", "delete", "head")


class Documented:
    """The document of a server."""

    def __init__(self, document: Json) -> None:
        self.document = document
        self._components: Json = _strict(document["components"])
        paths: dict[str, Json] = document["paths"]
        self._routes = [
            (re.compile("/" + "/".join(_segment(part) for part in path.strip("/").split("/"))), methods)
            for path, methods in sorted(paths.items(), key=lambda pair: (pair[0].count("{"), -len(pair[0])))
        ]
        self._validators: dict[bytes, jsonschema_rs.Draft202012Validator] = {}

    def operations(self) -> dict[tuple[str, str], Json]:
        """Every operation by method and path."""
        return {
            (method, path): operation
            for path, methods in self.document["paths"].items()
            for method, operation in methods.items()
            if method in _METHODS
        }

    def check(self, response: httpx.Response) -> None:
        """Complain about an answer that is not as documented; one of an unknown route is nobody's."""
        request = response.request
        operation = self._operation(request.method.lower(), request.url.path)
        if operation is None:
            assert response.status_code in (404, 405), response.text
            return
        where = f"{request.method} {request.url.path} {response.status_code}"
        answers: Json = operation["responses"]
        assert str(response.status_code) in answers, f"{where} is not documented: {response.text}"
        answer = self._resolved(answers[str(response.status_code)])
        if request.method == "HEAD" or not answer.get("content"):
            assert not response.content, f"{where} has a body"
            return
        media = response.headers["content-type"].partition(";")[0]
        assert media in answer["content"], f"{where} answers {media}"
        self._check_body(where, media, answer["content"][media], response.content)

    def _check_body(self, where: str, media: str, content: Json, body: bytes) -> None:
        if media == "text/event-stream":
            for event in _events(body):
                self.check_value(content["x-event-schema"], event, where)
        elif media == "application/json":
            self.check_value(content["schema"], orjson.loads(body), where)

    def check_value(self, schema: Json, value: object, where: str) -> None:
        key = orjson.dumps(schema)
        if key not in self._validators:
            whole: Json = {**_strict(schema), "components": self._components}
            self._validators[key] = jsonschema_rs.Draft202012Validator(whole)
        errors = [f"{list(error.instance_path)}: {error.message}" for error in self._validators[key].iter_errors(value)]
        assert not errors, f"{where}: {errors[0][:2000]}"

    def _operation(self, method: str, path: str) -> Json | None:
        return next((each[method] for route, each in self._routes if method in each and route.fullmatch(path)), None)

    def _resolved(self, answer: Json) -> Json:
        if "$ref" not in answer:
            return answer
        return self.document["components"]["responses"][answer["$ref"].rpartition("/")[2]]


@lru_cache
def documented(url: str) -> Documented:
    """What the server at this address says of itself; `url` up to and including /v1."""
    response = httpx.get(f"{url.removesuffix('/v1')}/openapi.json", timeout=30)
    assert response.status_code == 200, response.text
    return Documented(response.json())


def _segment(part: str) -> str:
    return "[^/]+" if part.startswith("{") and part != "{model}" else ".+" if part == "{model}" else re.escape(part)


def _events(body: bytes) -> list[Json]:
    frames = body.decode().split("\n\n")
    data = [line[6:] for frame in frames for line in frame.split("\n") if line.startswith("data: ")]
    return [orjson.loads(each) for each in data if each != "[DONE]"]


def _strict(schema: Any) -> Any:
    """The same, with no other fields than those named."""
    if isinstance(schema, list):
        return [_strict(each) for each in cast(list[Any], schema)]
    if not isinstance(schema, dict):
        return schema
    strict: Json = {name: _strict(value) for name, value in cast(Json, schema).items()}
    if "properties" in strict and strict.get("type") == "object":
        strict.setdefault("additionalProperties", False)
    return strict
