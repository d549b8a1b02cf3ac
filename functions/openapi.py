"""`/openapi.json` and `/reference`: what this server offers, for machines and for people."""

from functools import lru_cache

import azure.functions as func
import orjson

from functions._edge import Call, edge
from functions._http import Request, Response
from functions._operations import Operation
from functions.not_found import known_routes

blueprint = func.Blueprint()

_CACHED = {"cache-control": "no-cache"}


@blueprint.route("openapi.json", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
@edge(public=True)
@Operation(answer=dict[str, object])
async def read_openapi(request: Request, call: Call) -> Response:
    """The OpenAPI 3.1 document of everything that is served here."""
    del request
    return Response(_document(is_open=_is_open(call)), headers=_CACHED, media_type="application/json")


@blueprint.route("reference", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
@edge(public=True)
@Operation(answer_media="text/html")
async def read_reference(request: Request, call: Call) -> Response:
    """The same as a page to read."""
    del request
    page, policy = _page(is_open=_is_open(call))
    headers = {**_CACHED, "content-security-policy": policy}
    return Response(page, headers=headers, media_type="text/html")


def _is_open(call: Call) -> bool:
    caller = call.app.settings.caller
    return bool(caller.local_owner) and not caller.api_keys


# Made on the first request: a cold start must not pay for it.


@lru_cache
def _document(*, is_open: bool) -> bytes:
    from functions._document import build_document  # noqa: PLC0415

    return orjson.dumps(build_document(known_routes(), is_open=is_open))


@lru_cache
def _page(*, is_open: bool) -> tuple[bytes, str]:
    from functions._reference import render_reference  # noqa: PLC0415

    return render_reference(orjson.loads(_document(is_open=is_open)))
