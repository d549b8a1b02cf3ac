"""Is the process up, and can it do its work."""

import asyncio
from collections.abc import Awaitable

import azure.functions as func

from functions._edge import Call, edge, json_response
from functions._http import Request, Response
from functions._operations import Operation
from shared.errors import AssistantError
from shared.wire.answers.health import Alive, Ready

blueprint = func.Blueprint()

PATIENCE = 5.0
"""Seconds a dependency may take to answer."""


@blueprint.route("healthz", methods=["GET", "HEAD"])
@edge(public=True)
@Operation(answer=Alive)
async def healthz(request: Request, call: Call) -> Response:
    """Live: this process answers."""
    return json_response({"status": "ok"})


@blueprint.route("readyz", methods=["GET", "HEAD"])
@edge(public=True)
@Operation(answer=Ready, also={503: Ready})
async def readyz(request: Request, call: Call) -> Response:
    """Ready: so do the store and the blobs; 503 when one of them does not."""
    app = call.app
    store, blobs = await asyncio.gather(_state(app.store.ping()), _state(app.blobs.ping()))
    is_ready = store == blobs == "ok"
    body = {"status": "ok" if is_ready else "unavailable", "checks": {"store": store, "blobs": blobs}}
    return json_response(body, 200 if is_ready else 503)


async def _state(ping: Awaitable[None]) -> str:
    try:
        await asyncio.wait_for(ping, PATIENCE)
    except (AssistantError, TimeoutError):
        return "unavailable"
    return "ok"
