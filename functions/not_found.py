"""What no other function answers: 404, or 405 where the path is known, always with the error body."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, override

import azure.functions as func

from functions._edge import Call, edge
from functions._errors import MethodNotAllowed
from functions._http import Request, Response
from functions._index import keep
from functions._routes import Template
from shared.errors import NotFound

blueprint = func.Blueprint()

_NAME = "not_found"
_METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS")


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A function with an address."""

    template: Template
    methods: frozenset[str]
    name: str
    doc: str | None
    module: str


class RoutedApp(func.FunctionApp):
    """A function app that knows its routes once it is indexed."""

    def __init__(self, blueprints: Sequence[str] = (), **options: Any) -> None:
        super().__init__(**options)
        self._blueprints = blueprints

    @override
    def get_functions(self) -> list[Any]:
        self.functions_bindings = None  # asked a second time, the SDK would find every name taken
        functions: list[Any] = super().get_functions()
        _routes[:] = _routes_of(functions)
        if self._blueprints:
            keep(functions, self._blueprints)
        return functions


_routes: list[Route] = []


def known_routes() -> tuple[Route, ...]:
    """Every route of this app but the one below, its module imported; empty before the app is indexed."""
    for module in dict.fromkeys(route.module for route in _routes):
        import_module(module)
    return tuple(_routes)


def _routes_of(functions: Sequence[Any]) -> list[Route]:
    return [
        _route(function)
        for function in functions
        if function.get_function_name() != _NAME and getattr(function.get_trigger(), "route", None) is not None
    ]


def _route(function: Any) -> Route:
    trigger, run = function.get_trigger(), function.get_user_function()
    return Route(
        template=Template.parse(trigger.route),
        methods=frozenset(str(method) for method in trigger.methods or _METHODS),
        name=function.get_function_name(),
        doc=run.__doc__,
        module=run.__module__,
    )


@blueprint.route("{*path}", methods=_METHODS)
@edge(public=True)
async def not_found(request: Request, call: Call) -> Response:
    """The host has tried every other route."""
    path = str(request.path_params.get("path") or "")
    method = request.method
    allowed = {each for route in _routes if route.template.match(f"/{path}") is not None for each in route.methods}
    if method == "OPTIONS" and allowed and request.headers.get("origin") in call.app.settings.http.cors_origins:
        return Response(status_code=204, headers=_preflight(allowed))
    if allowed:
        headers = {"allow": ", ".join(sorted(allowed))}
        raise MethodNotAllowed(f"Method {method} is not allowed for /{path}.", headers=headers)
    raise NotFound(f"Invalid URL ({method} /{path})", code="unknown_url")


def _preflight(allowed: set[str]) -> dict[str, str]:
    """What a page of an allowed origin may send; the edge adds the origin itself."""
    return {
        "access-control-allow-methods": ", ".join(sorted(allowed)),
        "access-control-allow-headers": "*, authorization, content-type, idempotency-key",
        "access-control-max-age": "600",
    }
