"""The API's document: complete, valid, true; and the page made of it."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openapi_spec_validator import validate

from function_app import app
from functions._document import VERSION, build_document, path_of
from functions._operations import find_operation
from functions._reference import render_reference
from functions.not_found import Route, known_routes
from localhost.testing import ROOT
from tests.contract.documented import Documented, documented
from tests.contract.sdk import MODEL, Json, Server
from tests.processes import companion

app.get_functions()
ROUTES = known_routes()
METHODS = [(method, route) for route in ROUTES for method in sorted(route.methods)]
BUILT = build_document(ROUTES, is_open=False)


def named(method: str, route: Route) -> str:
    return f"{method} {path_of(route.template)}"


class TestComplete:
    @pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
    def test_every_route_says_what_it_is(self, route: Route) -> None:
        said = find_operation(route.name)

        assert said is not None, f"{route.module}.{route.name} needs an @Operation(…) under its @edge"
        assert route.doc, f"{route.module}.{route.name} needs a docstring: its first line is the summary"

    def test_every_method_of_every_route_is_an_operation(self) -> None:
        found = {f"{method.upper()} {path}" for method, path in Documented(BUILT).operations()}

        assert found == {named(method, route) for method, route in METHODS}

    def test_operations_have_names_of_their_own_and_known_tags(self) -> None:
        operations = list(Documented(BUILT).operations().values())
        names = [each["operationId"] for each in operations]

        assert len(set(names)) == len(names)
        assert {tag for each in operations for tag in each["tags"]} == {tag["name"] for tag in BUILT["tags"]}
        assert all(tag["description"] for tag in BUILT["tags"])

    def test_refusals_are_the_error_envelope(self) -> None:
        schemas = [
            content["schema"]
            for answer in BUILT["components"]["responses"].values()
            for content in answer["content"].values()
        ]

        assert schemas == [{"$ref": "#/components/schemas/Error"}] * len(schemas)

    def test_who_may_call_is_said(self) -> None:
        opened = build_document(ROUTES, is_open=True)
        public = {name for (_, name), each in Documented(BUILT).operations().items() if each.get("security") == []}

        assert (BUILT["security"], opened["security"]) == ([{"bearer": []}], [{"bearer": []}, {}])
        assert {"/healthz", "/openapi.json", "/reference"} <= public
        assert not any(name.startswith(("/v1/responses", "/v1/conversations")) for name in public)

    def test_streams_name_their_events(self) -> None:
        operations = Documented(BUILT).operations()
        answers = {key: each["responses"]["200"].get("content", {}) for key, each in operations.items()}
        streams = {
            key: content["text/event-stream"] for key, content in answers.items() if "text/event-stream" in content
        }

        assert set(streams) >= {
            ("post", "/v1/responses"),
            ("get", "/v1/responses/{response_id}"),
            ("post", "/v1/chat/completions"),
        }
        assert all("x-event-schema" in each for each in streams.values())

    def test_creating_requests_take_an_idempotency_key(self) -> None:
        operations = Documented(BUILT).operations()
        takes = {
            path
            for (_, path), each in operations.items()
            if any(parameter["name"] == "Idempotency-Key" for parameter in each.get("parameters", ()))
        }

        assert {"/v1/responses", "/v1/chat/completions", "/v1/conversations"} <= takes
        assert "/v1/conversations/{conversation_id}/items" in takes

    def test_what_is_not_offered_is_not_in_it(self) -> None:
        fields = BUILT["components"]["schemas"]["CreateResponse"]["properties"]

        assert {"input", "temperature"} <= fields.keys()
        assert not {"image", "moderation", "access_programs"} & fields.keys()

    def test_no_schema_is_named_after_the_files_it_is_in(self) -> None:
        assert [name for name in BUILT["components"]["schemas"] if "__" in name] == []

    def test_its_version_is_the_projects(self) -> None:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

        assert project["version"] == VERSION


class TestValid:
    @pytest.mark.parametrize("is_open", [False, True])
    def test_a_stock_validator_accepts_it(self, is_open: bool) -> None:
        document: Any = build_document(ROUTES, is_open=is_open)

        validate(document)

    def test_it_is_made_on_the_first_request_only(self) -> None:
        code = "import sys, function_app; function_app.app.get_functions(); print('functions._document' in sys.modules)"
        run = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
        )

        assert run.stdout.strip() == "False"


@pytest.fixture(scope="module", params=["starlette", "fastapi"])
def local(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The local owner's server, on either web extension: one of them has routes of such names itself."""
    folder: Path = tmp_path_factory.mktemp(request.param)
    with companion(folder, COMPANION_HTTP_EXTENSION=request.param) as url:
        yield url.removesuffix("/v1")


class TestServed:
    def test_it_is_what_was_built_from_the_same_routes(self, server: Server) -> None:
        assert documented(server.url).document == BUILT

    def test_nobody_is_asked_who_they_are(self, server: Server) -> None:
        response = httpx.get(f"{server.url.removesuffix('/v1')}/openapi.json")

        assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
        assert response.headers["x-request-id"]

    def test_both_extensions_serve_document_and_page(self, local: str) -> None:
        document, page = httpx.get(f"{local}/openapi.json"), httpx.get(f"{local}/reference")

        assert document.json()["security"] == [{"bearer": []}, {}]
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script" not in policy
        for name in ("docs", "redoc"):
            assert httpx.get(f"{local}/{name}").json()["error"]["code"] == "unknown_url"


class TestReference:
    PAGE, POLICY = (each if isinstance(each, str) else each.decode() for each in render_reference(BUILT))

    def test_every_operation_and_schema_is_on_it(self) -> None:
        names = [
            each["operationId"] for (method, _), each in Documented(BUILT).operations().items() if method != "head"
        ]

        assert [name for name in names if f'<section id="{name}">' not in self.PAGE] == []
        assert [name for name in BUILT["components"]["schemas"] if f'id="schema-{name}"' not in self.PAGE] == []

    def test_links_lead_somewhere(self) -> None:
        targets = {part.partition('"')[0] for part in self.PAGE.split('href="#')[1:]}

        assert [target for target in targets if f'id="{target}"' not in self.PAGE] == []

    def test_it_needs_nothing_from_elsewhere(self) -> None:
        assert not any(word in self.PAGE for word in ("<script", "<link", "<img", "@import", "url(", "style="))


class TestChecks:
    """The check that the conformance suites put every answer to does find what is wrong."""

    @pytest.fixture
    def model(self, server: Server) -> httpx.Response:
        return server.send("GET", f"/models/{MODEL}")

    def changed(self, response: httpx.Response, body: Json, *, status: int = 200) -> httpx.Response:
        return httpx.Response(status, json=body, request=response.request)

    @pytest.mark.parametrize("change", [{"unheard_of": 1}, {"created": "now"}, {"id": None}])
    def test_another_field_or_type(self, model: httpx.Response, change: Json) -> None:
        with pytest.raises(AssertionError, match="GET /v1/models/companion 200"):
            Documented(BUILT).check(self.changed(model, {**model.json(), **change}))

    def test_a_missing_field(self, model: httpx.Response) -> None:
        body = {name: value for name, value in model.json().items() if name != "owned_by"}

        with pytest.raises(AssertionError, match="owned_by"):
            Documented(BUILT).check(self.changed(model, body))

    def test_another_status(self, model: httpx.Response) -> None:
        with pytest.raises(AssertionError, match="not documented"):
            Documented(BUILT).check(self.changed(model, model.json(), status=418))

    def test_another_event(self, server: Server) -> None:
        stream = server.send("POST", "/responses", {"model": MODEL, "input": "Hi", "stream": True})
        headers = {"content-type": "text/event-stream"}
        broken = stream.content.replace(b'"output_index"', b'"output_place"')

        with pytest.raises(AssertionError, match="POST /v1/responses 200"):
            Documented(BUILT).check(httpx.Response(200, content=broken, headers=headers, request=stream.request))


def test_a_stock_fuzzer_finds_nothing_that_the_document_does_not_say(tmp_path: Path) -> None:
    """The protocol's own resources, answers held against their schemas; `tests/security` drives the whole surface."""
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    options = ["--checks", f"{checks},response_headers_conformance", "--phases", "fuzzing", "--max-examples", "10"]
    options += ["--include-path-regex", "^/v1/(responses|conversations|chat|models|embeddings)", "--max-time", "20"]
    options += ["--seed", "1", "--generation-database", "none", "--no-shrink", "--no-color", "--warnings", "off"]
    program = Path(sys.executable).parent / "st"
    with companion(tmp_path, COMPANION_OFFLINE_DELAY="0", COMPANION_TITLES="off") as url:
        command = [str(program), "run", f"{url.removesuffix('/v1')}/openapi.json", "--continue-on-failure", *options]
        run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=90, check=False)
    tested = re.search(r"(\d+) generated", run.stdout)

    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    assert tested is not None
    assert int(tested[1]) > 20  # a hundred and more where nothing else is running
