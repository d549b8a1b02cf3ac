"""What no other function answers: 404, or 405 where the path is known, always with the error body."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, override

import azure.functions as func

from functions._edge import Call, edge
from functions._errors import MethodNotAllowed
from functions._http import Request, Response
from functions._routes import Template
from shared.errors import NotFound

blueprint = func.Blueprint()

_NAME = "not_found"
_METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS")


@dataclass(frozen=True, slots=True)
class Route:
    template: Template
    methods: frozenset[str]


class RoutedApp(func.FunctionApp):
    """A function app that knows its routes once it is indexed."""

    @override
    def get_functions(self) -> list[Any]:
        functions: list[Any] = super().get_functions()
        _routes[:] = _routes_of(functions)
        return functions


_routes: list[Route] = []


def _routes_of(functions: Sequence[Any]) -> list[Route]:
    triggers = [function.get_trigger() for function in functions if function.get_function_name() != _NAME]
    return [
        Route(Template.parse(trigger.route), frozenset(str(method) for method in trigger.methods or _METHODS))
        for trigger in triggers
        if getattr(trigger, "route", None) is not None
    ]


@blueprint.route("{*path}", methods=_METHODS)
@edge(public=True)
async def not_found(request: Request, call: Call) -> Response:
    """The host has tried every other route."""
    path = str(request.path_params.get("path") or "")
    method = request.method
    allowed = {each for route in _routes if route.template.match(f"/{path}") is not None for each in route.methods}
    if allowed:
        headers = {"allow": ", ".join(sorted(allowed))}
        raise MethodNotAllowed(f"Method {method} is not allowed for /{path}.", headers=headers)
    raise NotFound(f"Invalid URL ({method} /{path})", code="unknown_url")
