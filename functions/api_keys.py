"""`/v1/api_keys`: keys for scripts and other tools; and `/v1/guests`."""

import time
from typing import Annotated, Any, Literal

import azure.functions as func
from pydantic import Field

from functions._edge import Call, edge, json_response, read_json
from functions._http import Request, Response
from functions._lists import page
from functions._once import once
from functions._operations import Operation
from shared.errors import NotFound, PermissionDenied, RateLimited
from shared.identity import guests, keys
from shared.identity.records import ApiKeyRecord
from shared.wire.answers import owners
from shared.wire.answers.common import Deleted, Page
from shared.wire.items import Schema

type Json = dict[str, Any]

blueprint = func.Blueprint()

GUESTS_PER_MINUTE = 60
"""That one host lets in."""


class CreateApiKey(Schema):
    name: Annotated[str, Field(min_length=1, max_length=100)]
    scopes: Annotated[list[Literal["chat", "read", "admin"]], Field(min_length=1, max_length=3)] = Field(
        default=["chat", "read"]
    )
    expires_at: Annotated[int, Field(ge=0, le=99_999_999_999)] | None = None
    """Unix seconds; null: never."""


@blueprint.route("v1/api_keys", methods=["POST"], auth_level=func.AuthLevel.ANONYMOUS)
@edge(scope="admin")
@Operation(body=CreateApiKey, answer=owners.ApiKey, is_idempotent_by_key=True, errors=(422,))
@once
async def create_api_key(request: Request, call: Call) -> Response:
    """Make a key. Its `key` is shown in this answer and never again."""
    body = CreateApiKey.model_validate(await read_json(request, call.app.settings.http.max_body))
    _refuse_guest(call)
    record, key = await keys.create_key(
        call.app.store,
        call.app.clock,
        call.principal,
        token=call.app.ids.token(),
        name=body.name,
        scopes=sorted(set(body.scopes)),
        expires_at=body.expires_at,
    )
    return json_response(_render(record) | {"key": key})


@blueprint.route("v1/api_keys", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
@edge(scope="admin")
@Operation(answer=Page[owners.ApiKey])
async def list_api_keys(request: Request, call: Call) -> Response:
    """Every key that works, newest first."""
    del request
    records = await keys.list_keys(call.app.store, call.principal.owner)
    return json_response(page([_render(record) for record in records], has_more=False))


@blueprint.route("v1/api_keys/{key_id}", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
@edge(scope="admin")
@Operation(answer=owners.ApiKey)
async def retrieve_api_key(request: Request, call: Call) -> Response:
    """One key, without its secret."""
    return json_response(
        _render(await keys.get_key(call.app.store, call.principal.owner, request.path_params["key_id"]))
    )


@blueprint.route("v1/api_keys/{key_id}", methods=["DELETE"], auth_level=func.AuthLevel.ANONYMOUS)
@edge(scope="admin")
@Operation(answer=Deleted)
async def revoke_api_key(request: Request, call: Call) -> Response:
    """Revoke a key: from now on it is unknown."""
    id_ = request.path_params["key_id"]
    await keys.revoke_key(call.app.store, call.principal.owner, id_)
    return json_response({"id": id_, "object": "api_key.deleted", "deleted": True})


@blueprint.route("v1/guests", methods=["POST"], auth_level=func.AuthLevel.ANONYMOUS)
@edge(public=True)
@Operation(answer=owners.Guest, errors=(404, 429))
async def create_guest(request: Request, call: Call) -> Response:
    """Begin without signing in, where the operator allows it. `POST /v1/me/adopt` makes the data an account's."""
    del request
    caller = call.app.settings.caller
    if not caller.guests:
        raise NotFound("Guests are not let in here.", code="guests_off")
    _count_guest()
    token, guest = guests.issue(caller.guest_secret, call.app.ids.token(), now=call.app.clock.now())
    return json_response({"object": "guest", "token": token, "expires_at": guest.expires_at})


_let_in: list[float] = []


def _count_guest() -> None:
    now = time.monotonic()
    _let_in[:] = [at for at in _let_in if at > now - 60]
    if len(_let_in) >= GUESTS_PER_MINUTE:
        raise RateLimited("Too many new guests just now; try again.", retry_after=60 - (now - _let_in[0]))
    _let_in.append(now)


def _refuse_guest(call: Call) -> None:
    if call.principal.is_guest:
        raise PermissionDenied("Guests have no keys; sign in first.")


def _render(record: ApiKeyRecord) -> Json:
    return {
        "id": record.id,
        "object": "api_key",
        "name": record.name,
        "scopes": record.scopes,
        "hint": record.hint,
        "created_at": int(record.created_at),
        "expires_at": int(record.expires_at) if record.expires_at else None,
    }
