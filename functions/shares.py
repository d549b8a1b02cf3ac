"""`/v1/shares`: links to snapshots of conversations; `/v1/shared/{id}` is what anybody with the link sees."""

from typing import Any

import azure.functions as func

from functions._edge import Call, edge, json_response, limit_param, order_param, read_json
from functions._http import Request, Response
from functions._lists import page
from functions._once import once
from functions._operations import PAGED, Operation, text
from shared.sharing import service
from shared.sharing.records import ShareRecord
from shared.wire.answers import owners
from shared.wire.answers.common import Deleted, Page
from shared.wire.items import Schema

type Json = dict[str, Any]

blueprint = func.Blueprint()

CONVERSATION = text("conversation", "Only the links of this one.")


class CreateShare(Schema):
    conversation: str


@blueprint.route("v1/shares", methods=["POST"], auth_level=func.AuthLevel.ANONYMOUS)
@edge
@Operation(body=CreateShare, answer=owners.Share, is_idempotent_by_key=True, errors=(404, 422))
@once
async def create_share(request: Request, call: Call) -> Response:
    """Make a link to what a conversation shows now; what is said later is not in it."""
    body = CreateShare.model_validate(await read_json(request, call.app.settings.http.max_body))
    return json_response(render(await service.create_share(call.app, call.principal.owner, body.conversation)))


@blueprint.route("v1/shares", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
@edge
@Operation(answer=Page[owners.Share], query=(*PAGED, CONVERSATION))
async def list_shares(request: Request, call: Call) -> Response:
    """The links that work, of all conversations or one."""
    records, has_more = await service.list_shares(
        call.app,
        call.principal.owner,
        after=request.query_params.get("after") or None,
        limit=limit_param(request),
        order=order_param(request),
        conversation=request.query_params.get("conversation") or None,
    )
    return json_response(page([render(record) for record in records], has_more=has_more))


@blueprint.route("v1/shares/{share_id}", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
@edge
@Operation(answer=owners.Share)
async def retrieve_share(request: Request, call: Call) -> Response:
    """One link of the caller's."""
    return json_response(
        render(await service.get_share(call.app, call.principal.owner, request.path_params["share_id"]))
    )


@blueprint.route("v1/shares/{share_id}", methods=["DELETE"], auth_level=func.AuthLevel.ANONYMOUS)
@edge
@Operation(answer=Deleted)
async def revoke_share(request: Request, call: Call) -> Response:
    """Revoke a link: from now on it shows nothing."""
    id_ = request.path_params["share_id"]
    await service.revoke_share(call.app, call.principal.owner, id_)
    return json_response({"id": id_, "object": "share.deleted", "deleted": True})


@blueprint.route("v1/shared/{share_id}", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
@edge(public=True)
@Operation(answer=owners.SharedConversation)
async def retrieve_shared(request: Request, call: Call) -> Response:
    """What a link shows to anybody: who said what, and nothing of whose it is."""
    shown = await service.read_shared(call.app, request.path_params["share_id"])
    return json_response(shown, headers={"x-robots-tag": "noindex"})


def render(record: ShareRecord) -> Json:
    return {
        "id": record.id,
        "object": "share",
        "conversation": record.group,
        "title": record.title,
        "items": record.items,
        "created_at": int(record.created_at),
        "path": f"/v1/shared/{record.id}",
    }
