"""Small functions on the real edge, one for each thing that can happen to a request."""

import asyncio
import json
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import azure.functions as func
from azure_functions_runtime import http_v2  # pyright: ignore[reportMissingTypeStubs]

from functions import health, not_found
from functions._edge import Call, edge, json_response, override_app, read_json
from functions._http import Request, Response
from functions._sse import sse_response
from shared.errors import RateLimited, StorageUnavailable
from shared.settings import Settings

if TYPE_CHECKING:
    from shared.app import App

blueprint = func.Blueprint()
state: dict[str, Any] = {"closed": [], "ticks": [], "jobs": []}


class Pinged:
    async def ping(self) -> None:
        if state.get("is_down"):
            raise StorageUnavailable("down")


async def close() -> None:
    print("app closed", flush=True)  # noqa: T201 - what the test of the drain looks for


stub = SimpleNamespace(settings=Settings.read(), store=Pinged(), blobs=Pinged(), describe=list, close=close)
overriding = override_app(cast("App", stub))
overriding.__enter__()


@blueprint.route("state", methods=["GET"])
@edge(public=True)
async def read_state(request: Request, call: Call) -> Response:
    entries = cast(dict[str, Any], http_v2.http_coordinator._context_references)  # pyright: ignore
    return json_response({**state, "entries": len(entries) - 1})


@blueprint.route("down/{is_down:bool}", methods=["POST"])
@edge(public=True)
async def set_down(request: Request, call: Call) -> Response:
    state["is_down"] = request.path_params["is_down"] == "true"
    return json_response({})


@blueprint.route("me", methods=["GET"])
@edge
async def read_me(request: Request, call: Call) -> Response:
    return json_response({"owner": call.principal.owner, "request_id": call.request_id})


def where(name: str) -> Any:
    async def answer(request: Request, call: Call) -> Response:
        return json_response({"function": name, "params": request.path_params})

    answer.__name__ = name
    return edge(public=True)(answer)


for name, route in {
    "catch_all": "items/{*rest}",
    "by_name": "items/{name}",
    "by_number": "items/{number:int}",
    "special": "items/special",
    "page": "pages/{page?}",
    "mixed": "files/{stem}.{extension}",
    "reserved": "openapi.json",
}.items():
    blueprint.route(route, methods=["GET"])(where(name))


@blueprint.route("headers", methods=["GET"])
@edge(public=True)
async def read_headers(request: Request, call: Call) -> Response:
    return json_response(dict(request.headers))


@blueprint.route("trace", methods=["GET"])
async def read_trace(req: Request, context: func.Context) -> Response:
    return json_response({"parent": context.trace_context.trace_parent, "function": context.function_name})


@blueprint.route("body", methods=["POST"])
@edge(public=True)
async def read_body(request: Request, call: Call) -> Response:
    return json_response(await read_json(request, call.app.settings.http.max_body))


@blueprint.route("limited", methods=["GET"])
@edge(public=True)
async def limited(request: Request, call: Call) -> Response:
    raise RateLimited("Slow down.", retry_after=1.25, headers={"x-ratelimit-remaining-requests": "0"})


@blueprint.route("bug", methods=["GET"])
@edge(public=True)
async def bug(request: Request, call: Call) -> Response:
    raise RuntimeError("secret detail")


@blueprint.route("bug/outside", methods=["GET"])
async def bug_outside(req: Request) -> Response:
    """Without the edge: the extension itself must render it."""
    raise RuntimeError("secret detail")


@blueprint.route("nothing", methods=["GET"])
async def nothing(req: Request) -> Response:
    return cast(Response, None)


@blueprint.route("keyed", methods=["GET"], auth_level=func.AuthLevel.FUNCTION)
@edge(public=True)
async def keyed(request: Request, call: Call) -> Response:
    return json_response({})


@blueprint.route("admins", methods=["GET"], auth_level=func.AuthLevel.ADMIN)
@edge(public=True)
async def admins(request: Request, call: Call) -> Response:
    return json_response({})


async def events(name: str, count: int, gap: float, fails_at: int) -> AsyncGenerator[bytes]:
    try:
        for number in range(count):
            if number == fails_at:
                raise RateLimited("Slow down.") if name == "told" else RuntimeError("secret detail")
            yield b"data: %s\n\n" % json.dumps({"sequence_number": number}).encode()
            await asyncio.sleep(gap)
    finally:
        state["closed"].append(name)


@blueprint.route("stream/{name}", methods=["GET"])
@edge(public=True)
async def stream(request: Request, call: Call) -> Response:
    query = request.query_params
    source = events(
        request.path_params["name"], int(query.get("count", 3)), float(query.get("gap", 0)), int(query.get("fails", -1))
    )
    return sse_response(source, heartbeat=float(query.get("heartbeat", 15)), headers={"x-extra": "1"})


@blueprint.timer_trigger("timer", schedule="%TICK%", run_on_startup=False, use_monitor=True)
async def tick(timer: func.TimerRequest) -> None:
    state["ticks"].append(timer.past_due)


@cast(Any, blueprint).queue_trigger("message", queue_name="jobs", connection="AzureWebJobsStorage")
async def job(message: func.QueueMessage) -> None:
    body = message.get_body().decode()
    state["jobs"].append([body, message.id, message.dequeue_count])
    if body == "bad":
        raise RuntimeError("cannot")


app = not_found.RoutedApp(http_auth_level=func.AuthLevel.ANONYMOUS)
for each in (blueprint, health.blueprint, not_found.blueprint):
    app.register_functions(each)
