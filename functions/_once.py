"""What a handler of a request that makes something is wrapped in, so that its `Idempotency-Key` is honoured.

@blueprint.route("v1/projects", methods=["POST"], auth_level=func.AuthLevel.ANONYMOUS)
@edge
@Operation(body=CreateProject, answer=owners.Project, is_idempotent_by_key=True, errors=(422,))
@once
async def create_project(request: Request, call: Call) -> Response:

The ids that `call.app` gives then derive from the key: what is made twice by two tries is the same thing.
"""

import contextlib
import functools
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import orjson

from functions._edge import Call, read_body
from functions._http import Request, Response
from functions._send import key_of

if TYPE_CHECKING:
    from shared.app import App

type Handler = Callable[[Request, Call], Awaitable[Response]]


def once(handler: Handler, *, outlives_erasure: bool = False) -> Handler:
    """See the module; `outlives_erasure`: also when the owner's data, and so the answer, were erased in between."""

    @functools.wraps(handler)
    async def run(request: Request, call: Call) -> Response:
        key = key_of(request)
        if key is None:
            return await handler(request, call)
        from shared.answers.service import answered_once  # noqa: PLC0415 - few requests of few routes need it

        body = await read_body(request, call.app.settings.http.max_body)
        request._body = body  # pyright: ignore[reportPrivateUsage]

        async def make(app: "App") -> bytes:
            return bytes((await handler(request, replace(call, app=app))).body)

        answer = await answered_once(
            call.app, call.principal.owner, key, _digest(request, body), make, outlives_erasure=outlives_erasure
        )
        return Response(answer, media_type="application/json")

    return run


def _digest(request: Request, body: bytes) -> str:
    """Of what the request asks, however its JSON is written."""
    with contextlib.suppress(orjson.JSONDecodeError):
        body = orjson.dumps(orjson.loads(body), option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(request.url.path.encode() + b"\n" + body).hexdigest()[:32]
