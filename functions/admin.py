"""`/v1/admin/routes`: the operator's routes, changed without a deploy; `/traces`: the last turns of a local host."""

import base64
import hashlib
from html import escape
from typing import Any

import azure.functions as func

from functions._edge import Call, edge, json_response, read_body
from functions._http import Request, Response
from functions._operations import Operation
from shared.errors import InvalidRequest, NotFound, PermissionDenied
from shared.models.operator import delete_routes, find_routes, put_routes
from shared.models.routes import BadRoutes
from shared.settings import SettingsError
from shared.telemetry.signals import TurnSignal, signals
from shared.wire.answers.operation import Routes

type Json = dict[str, Any]

blueprint = func.Blueprint()

MOST_BYTES = 256 * 1024


@blueprint.route("v1/admin/routes", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
@edge(scope="admin")
@Operation(answer=Routes, errors=(403,))
async def retrieve_routes(request: Request, call: Call) -> Response:
    """The routes in force, and what each deployment did on this host: calls, failures, first token, tokens, cost."""
    del request
    _require_operator(call)
    return json_response(await _routes(call))


@blueprint.route("v1/admin/routes", methods=["PUT"], auth_level=func.AuthLevel.ANONYMOUS)
@edge(scope="admin")
@Operation(body=dict[str, Any], answer=Routes, errors=(403, 413))
async def replace_routes(request: Request, call: Call) -> Response:
    """Put routes in force: here at once, on every other host within a minute. JSON or YAML."""
    _require_operator(call)
    text = (await read_body(request, MOST_BYTES)).decode(errors="replace")
    try:
        await put_routes(call.app.store, text, by=call.principal.owner, now=call.app.clock.now())
        await call.app.models.refresh()
    except SettingsError as error:
        place = error.place if isinstance(error, BadRoutes) else None
        raise InvalidRequest(str(error), param=place, code="invalid_routes") from error
    return json_response(await _routes(call))


@blueprint.route("v1/admin/routes", methods=["DELETE"], auth_level=func.AuthLevel.ANONYMOUS)
@edge(scope="admin")
@Operation(answer=Routes, errors=(403,))
async def remove_routes(request: Request, call: Call) -> Response:
    """Back to the routes that the settings say."""
    del request
    _require_operator(call)
    await delete_routes(call.app.store)
    await call.app.models.refresh()
    return json_response(await _routes(call))


def _require_operator(call: Call) -> None:
    settings, owner = call.app.settings, call.principal.owner
    if owner in settings.operation.operators or owner == settings.caller.local_owner:
        return
    raise PermissionDenied("Only operators may do this; COMPANION_OPERATORS names them.")


async def _routes(call: Call) -> Json:
    record = await find_routes(call.app.store)
    return {
        "object": "routes",
        "host": call.app.host,
        "source": "stored" if record else "settings",
        "text": record.text if record else None,
        "changed_at": record.changed_at if record else None,
        "changed_by": record.changed_by if record else None,
        **call.app.models.figures(),
    }


# the local page

_STYLE = """
body{font:14px system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;color:#1c1c1c;background:#fff}
h1{font-size:1.2rem}h2{font:600 13px ui-monospace,monospace;margin:1.6rem 0 .2rem}p{margin:.1rem 0 .4rem;color:#555}
svg{display:block;width:100%}text{font:11px ui-monospace,monospace;fill:#1c1c1c}
.turn{fill:#d8d8d8}.context{fill:#8ab6d6}.accept{fill:#b49fd0}.call{fill:#7bbf8e}.failed{fill:#d9776c}.tool{fill:#e3b765}
@media(prefers-color-scheme:dark){body{background:#161616;color:#eee}p{color:#aaa}text{fill:#eee}.turn{fill:#444}}
"""
_DIGEST = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_HEADERS = {
    "content-security-policy": f"default-src 'none'; style-src 'sha256-{_DIGEST}'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "cache-control": "no-store",
}
_WIDTH = 1000
_ROW = 18


@blueprint.route("traces", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
@edge
@Operation(answer_media="text/html", tag="Admin")
async def local_traces(request: Request, call: Call) -> Response:
    """The last turns of this process as waterfalls; on the local server only."""
    del request
    if not call.app.settings.caller.local_owner or call.principal.owner != call.app.settings.caller.local_owner:
        raise NotFound("Invalid URL (GET /traces)", code="unknown_url")
    turns = "".join(_waterfall(turn) for turn in signals.recent()) or "<p>No turn yet: ask something.</p>"
    page = (
        "<!doctype html><html lang=en><meta charset=utf-8><title>Traces</title>"
        f"<style>{_STYLE}</style><h1>The last turns of this process</h1>{turns}</html>"
    )
    return Response(page, media_type="text/html; charset=utf-8", headers=_HEADERS)


def _waterfall(turn: TurnSignal) -> str:
    timings: Json = turn.trace.get("timings", {})
    answered = timings.get("total_ms", 0.0)
    total = max(1.0, answered + turn.commit_ms)
    rows = [("turn", turn.status, 0.0, total)]
    if "prepare_ms" in timings:
        rows.append(("context", "context", 0.0, timings["prepare_ms"]))
    if "accept_ms" in timings:
        rows.append(("accept", "accept", timings.get("prepare_ms", 0.0), timings["accept_ms"]))
    for made in turn.trace.get("calls", []):
        kind = "failed" if made.get("outcome") == "failed" or "skipped" in made else "call"
        said = made.get("error") or made.get("skipped") or made["reason"]
        rows.append((kind, f"{made['deployment']} ({said})", made["at_ms"], made["at_ms"] + made.get("ms", 0.0)))
    for tool in turn.trace.get("tools", []):
        rows.append(("failed" if tool["failed"] else "tool", tool["name"], tool["at_ms"], tool["at_ms"] + tool["ms"]))
    rows.append(("accept", "commit", answered, answered + turn.commit_ms))
    bars = "".join(_bar(place, row, total) for place, row in enumerate(rows))
    tokens = turn.usage.get("total_tokens", 0)
    first = f"{turn.first_token_ms:.0f} ms to the first token, " if turn.first_token_ms is not None else ""
    return (
        f"<h2>{escape(turn.response_id)}</h2><p>{escape(turn.model)} on {escape(turn.deployment or 'nothing')}: "
        f"{first}{total:.0f} ms in all, {tokens} tokens, ${turn.cost:.6f}, {turn.charge:.1f} RU, "
        f"attempt {turn.attempt}</p>"
        f'<svg viewBox="0 0 {_WIDTH} {_ROW * len(rows)}" role="img">{bars}</svg>'
    )


def _bar(place: int, row: tuple[str, str, float, float], total: float) -> str:
    kind, label, begin, end = row
    left = min(_WIDTH, begin / total * _WIDTH)
    width = max(2.0, min(_WIDTH - left, (end - begin) / total * _WIDTH))
    text = f"{label} {end - begin:.1f} ms"
    at = f'x="{left + 4:.1f}"' if left < _WIDTH * 0.7 else f'x="{left - 4:.1f}" text-anchor="end"'
    y = place * _ROW
    return (
        f'<rect class="{kind}" x="{left:.1f}" y="{y + 2}" width="{width:.1f}" height="{_ROW - 4}"></rect>'
        f'<text {at} y="{y + _ROW - 5}">{escape(text)}</text>'
    )
