"""`/v1/conversations` and their items; the list of them is Companion's own."""

from typing import Annotated, Any

import azure.functions as func
from pydantic import Field

from functions._edge import Call, edge, include_param, json_response, limit_param, order_param, read_json
from functions._http import Request, Response
from functions._lists import page
from functions._operations import INCLUDE, PAGED, PAGED_UPWARDS, Operation
from shared.conversations import repository, service
from shared.conversations.records import ConversationRecord, TurnRecord
from shared.errors import NotFound
from shared.wire.answers.common import Deleted, Page
from shared.wire.answers.conversations import Conversation, Turn
from shared.wire.answers.items import Item
from shared.wire.items import InputItem, Schema
from shared.wire.responses import Metadata, visible_items

type Json = dict[str, Any]

blueprint = func.Blueprint()

MAX_ITEMS = 20


class CreateConversation(Schema):
    items: Annotated[list[InputItem], Field(max_length=MAX_ITEMS)] | None = None
    metadata: Metadata | None = None


class UpdateConversation(Schema):
    """`title` and `head` are Companion's own: rename, and switch to another branch."""

    metadata: Metadata | None = None
    title: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    head: str | None = None


class CreateItems(Schema):
    items: Annotated[list[InputItem], Field(min_length=1, max_length=MAX_ITEMS)]


@blueprint.route("v1/conversations", methods=["POST"], auth_level=func.AuthLevel.ANONYMOUS)
@edge
@Operation(body=CreateConversation, answer=Conversation, is_idempotent_by_key=True, errors=(404, 422))
async def create_conversation(request: Request, call: Call) -> Response:
    """Begin a conversation, empty or with items."""
    body = CreateConversation.model_validate(await read_json(request, call.app.settings.http.max_body))
    record = await service.create_conversation(
        call.app, call.principal.owner, metadata=body.metadata or {}, items=body.items
    )
    return json_response(render(record))


@blueprint.route("v1/conversations", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
@edge
@Operation(answer=Page[Conversation], query=PAGED)
async def list_conversations(request: Request, call: Call) -> Response:
    """Newest change first; `after` is a conversation's id."""
    limit, order, owner = limit_param(request), order_param(request), call.principal.owner
    after = request.query_params.get("after")
    sort = (await service.get_conversation(call.app, owner, after)).record.sort if after else None
    records = await repository.conversations(call.app.store, owner, after=sort, limit=limit + 1, order=order)
    return json_response(page([render(record) for record in records[:limit]], has_more=len(records) > limit))


@blueprint.route("v1/conversations/{conversation_id}", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
@edge
@Operation(answer=Conversation)
async def retrieve_conversation(request: Request, call: Call) -> Response:
    """A conversation, without its items."""
    found = await service.get_conversation(call.app, call.principal.owner, request.path_params["conversation_id"])
    return json_response(render(found.record))


@blueprint.route("v1/conversations/{conversation_id}", methods=["POST"], auth_level=func.AuthLevel.ANONYMOUS)
@edge
@Operation(body=UpdateConversation, answer=Conversation, errors=(409,))
async def update_conversation(request: Request, call: Call) -> Response:
    """Change the metadata, the title or the shown branch."""
    body = UpdateConversation.model_validate(await read_json(request, call.app.settings.http.max_body))
    record = await service.update_conversation(
        call.app,
        call.principal.owner,
        request.path_params["conversation_id"],
        metadata=body.metadata,
        title=body.title,
        head=body.head,
    )
    return json_response(render(record))


@blueprint.route("v1/conversations/{conversation_id}", methods=["DELETE"], auth_level=func.AuthLevel.ANONYMOUS)
@edge
@Operation(answer=Deleted)
async def delete_conversation(request: Request, call: Call) -> Response:
    """Delete a conversation; its responses stay."""
    id_ = request.path_params["conversation_id"]
    await service.delete_conversation(call.app, call.principal.owner, id_)
    return json_response({"id": id_, "object": "conversation.deleted", "deleted": True})


@blueprint.route("v1/conversations/{conversation_id}/items", methods=["POST"], auth_level=func.AuthLevel.ANONYMOUS)
@edge
@Operation(body=CreateItems, answer=Page[Item], query=(INCLUDE,), is_idempotent_by_key=True, errors=(409, 422))
async def create_items(request: Request, call: Call) -> Response:
    """Append items that nobody answers."""
    body = CreateItems.model_validate(await read_json(request, call.app.settings.http.max_body))
    id_ = request.path_params["conversation_id"]
    items = await service.add_items(call.app, call.principal.owner, id_, body.items)
    return json_response(page(visible_items(items, include_param(request)), has_more=False))


@blueprint.route("v1/conversations/{conversation_id}/items", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
@edge
@Operation(answer=Page[Item], query=(*PAGED, INCLUDE))
async def list_items(request: Request, call: Call) -> Response:
    """The items of the shown branch."""
    items, has_more = await service.list_items(
        call.app,
        call.principal.owner,
        request.path_params["conversation_id"],
        after=request.query_params.get("after") or None,
        order=order_param(request),
        limit=limit_param(request),
    )
    return json_response(page(visible_items(items, include_param(request)), has_more=has_more))


@blueprint.route(
    "v1/conversations/{conversation_id}/items/{item_id}", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS
)
@edge
@Operation(answer=Item, query=(INCLUDE,))
async def retrieve_item(request: Request, call: Call) -> Response:
    """One item."""
    owner = call.principal.owner
    header = (await service.get_conversation(call.app, owner, request.path_params["conversation_id"])).record
    _, item = await service.find_item(call.app, owner, header, request.path_params["item_id"])
    return json_response(visible_items([item], include_param(request))[0])


@blueprint.route(
    "v1/conversations/{conversation_id}/items/{item_id}", methods=["DELETE"], auth_level=func.AuthLevel.ANONYMOUS
)
@edge
@Operation(answer=Conversation)
async def delete_item(request: Request, call: Call) -> Response:
    """Take an item out of the conversation; the response it came from keeps it."""
    record = await service.remove_item(
        call.app, call.principal.owner, request.path_params["conversation_id"], request.path_params["item_id"]
    )
    return json_response(render(record))


@blueprint.route("v1/conversations/{conversation_id}/turns", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
@edge
@Operation(answer=Page[Turn], query=PAGED_UPWARDS)
async def list_turns(request: Request, call: Call) -> Response:
    """Companion's own: every turn of the conversation, of every branch, oldest first unless asked otherwise."""
    limit, order, owner = limit_param(request), order_param(request, default="asc"), call.principal.owner
    id_ = request.path_params["conversation_id"]
    await service.get_conversation(call.app, owner, id_)
    after = request.query_params.get("after")
    sort = None
    if after:
        found = await repository.find_turn(call.app.store, owner, after)
        if found is None or found.record.conversation != id_:
            raise NotFound(f"Turn with id {after!r} not found.", param="after")
        sort = found.record.sort
    records = await repository.turns(call.app.store, owner, id_, after=sort, order=order, limit=limit + 1)
    return json_response(page([render_turn(record) for record in records[:limit]], has_more=len(records) > limit))


def render(record: ConversationRecord) -> Json:
    """The conversation object; what is not OpenAI's comes last."""
    return {
        "id": record.id,
        "object": "conversation",
        "created_at": int(record.created_at),
        "metadata": record.metadata,
        "updated_at": int(record.updated_at),
        "title": record.title,
        "head": record.head,
        "running": record.running,
    }


def render_turn(record: TurnRecord) -> Json:
    """A turn as the tree of a conversation shows it: who answered whom, with what, at which cost."""
    removed = set(record.removed)
    return {
        "id": record.id,
        "object": "conversation.turn",
        "parent": record.parent,
        "status": record.status,
        "created_at": int(record.created_at),
        "completed_at": int(record.completed_at) if record.completed_at else None,
        "model": record.params.get("model"),
        "input": [item for item in record.input if item["id"] not in removed],
        "output": visible_items([item for item in record.output if item["id"] not in removed], []),
        "usage": record.usage,
        "error": record.error,
        "incomplete_details": {"reason": record.incomplete_reason} if record.incomplete_reason else None,
        "cost": record.cost,
        "first_token_ms": record.first_token_ms,
        "notes": record.notes,
    }
