"""`/v1/conversations` and their items; the list of them is Companion's own."""

from typing import Annotated, Any

import azure.functions as func
from pydantic import Field

from functions._edge import Call, edge, flag_param, include_param, json_response, limit_param, order_param, read_json
from functions._http import Request, Response
from functions._lists import page
from functions._operations import INCLUDE, PAGED, PAGED_UPWARDS, Operation, flag, text
from functions._send import sent_as
from shared.conversations import library, repository, service
from shared.conversations.records import ConversationRecord, TurnRecord
from shared.errors import InvalidRequest, NotFound
from shared.sharing.service import revoke_shares_of
from shared.wire.answers.common import Deleted, Page
from shared.wire.answers.conversations import Conversation, Turn
from shared.wire.answers.items import Item
from shared.wire.items import InputItem, Schema
from shared.wire.responses import Metadata, priced_usage, visible_items

type Json = dict[str, Any]

blueprint = func.Blueprint()

MAX_ITEMS = 20
MAX_QUERY = 200
QUERY = text("query", "Words that title or text must have.")
ARCHIVED = flag("archived", "Only those that are archived.")
PINNED = flag("pinned", "Only those that are pinned.")
PROJECT = text("project", "Only those of this project.")


def _id(request: Request) -> str:
    """The conversation the path names; official servers tell an id of another kind apart from an unknown one.

    Raises:
        InvalidRequest: it cannot be one.
    """
    id_: str = request.path_params["conversation_id"]
    if not id_.startswith("conv_"):
        raise InvalidRequest(
            f"Invalid 'conversation_id': {id_!r}. Expected an ID that begins with 'conv_'.",
            param="conversation_id",
            code="invalid_value",
        )
    return id_


def _sent(request: Request) -> service.Sent:
    sent = sent_as(request)
    return service.Sent(sent["send_key"], sent["body_hash"] if sent["send_key"] else None)


class CreateConversation(Schema):
    """`project` and `temporary` (in no list or search, gone a day after its last change) are Companion's own."""

    items: Annotated[list[InputItem], Field(max_length=MAX_ITEMS)] | None = None
    metadata: Metadata | None = None
    project: str | None = None
    temporary: bool | None = None


class UpdateConversation(Schema):
    """All but `metadata` are Companion's own: rename, switch to another branch, keep apart; "" leaves a project."""

    metadata: Metadata | None = None
    title: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    head: str | None = None
    archived: bool | None = None
    pinned: bool | None = None
    project: str | None = None


class CreateItems(Schema):
    items: Annotated[list[InputItem], Field(min_length=1, max_length=MAX_ITEMS)]


@blueprint.route("v1/conversations", methods=["POST"], auth_level=func.AuthLevel.ANONYMOUS)
@edge
@Operation(body=CreateConversation, answer=Conversation, is_idempotent_by_key=True, errors=(404, 422))
async def create_conversation(request: Request, call: Call) -> Response:
    """Begin a conversation, empty or with items."""
    body = CreateConversation.model_validate(await read_json(request, call.app.settings.http.max_body))
    record = await service.create_conversation(
        call.app,
        call.principal.owner,
        metadata=body.metadata or {},
        items=body.items,
        project=body.project,
        is_temporary=bool(body.temporary),
        sent=_sent(request),
    )
    return json_response(render(record))


@blueprint.route("v1/conversations", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
@edge
@Operation(answer=Page[Conversation], query=(*PAGED, QUERY, ARCHIVED, PINNED, PROJECT))
async def list_conversations(request: Request, call: Call) -> Response:
    """Newest change first; `after` is a conversation's id. Archived and temporary ones are left out.

    With `query`: those whose title or text has every word of it, titles first, each with its `match`. One request looks
    at 200 conversations and 400 turns at most; when `has_more` says that there are others, go on behind `next_after`.
    """
    limit, order, owner = limit_param(request), order_param(request), call.principal.owner
    after = request.query_params.get("after")
    sort = (await service.get_conversation(call.app, owner, after, param="after")).record.sort if after else None
    query = request.query_params.get("query", "").strip()
    filters = _filters(request, is_search=bool(query))
    if query:
        found = await library.search(call.app.store, owner, query[:MAX_QUERY], after=sort, limit=limit, filters=filters)
        hits = [render(hit.header) | {"match": _match(hit)} for hit in found.hits]
        return json_response(page(hits, has_more=found.goes_on is not None) | {"next_after": found.goes_on})
    records, has_more = await library.listed(
        call.app.store, owner, after=sort, limit=limit, order=order, filters=filters
    )
    return json_response(page([render(record) for record in records], has_more=has_more))


def _filters(request: Request, *, is_search: bool) -> library.Filters:
    """Without a word about it, a list leaves out what is archived and a search does not."""
    asked = {
        name: flag_param(request, name) if request.query_params.get(name) else None for name in ("archived", "pinned")
    }
    archived = asked["archived"]
    return library.Filters(
        archived=False if archived is None and not is_search else archived,
        pinned=asked["pinned"],
        project=request.query_params.get("project") or None,
    )


def _match(hit: library.Hit) -> Json:
    return {"in": hit.place, "response": hit.response, "snippet": hit.snippet}


@blueprint.route("v1/conversations/{conversation_id}/restore", methods=["POST"], auth_level=func.AuthLevel.ANONYMOUS)
@edge
@Operation(answer=Conversation)
async def restore_conversation(request: Request, call: Call) -> Response:
    """Bring a deleted conversation back, for some days after its deletion (COMPANION_UNDO_DAYS)."""
    id_ = _id(request)
    return json_response(render(await service.restore_conversation(call.app, call.principal.owner, id_)))


@blueprint.route("v1/conversations/{conversation_id}", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
@edge
@Operation(answer=Conversation)
async def retrieve_conversation(request: Request, call: Call) -> Response:
    """A conversation, without its items."""
    found = await service.get_conversation(call.app, call.principal.owner, _id(request))
    return json_response(render(found.record))


@blueprint.route("v1/conversations/{conversation_id}", methods=["POST"], auth_level=func.AuthLevel.ANONYMOUS)
@edge
@Operation(body=UpdateConversation, answer=Conversation, errors=(409,))
async def update_conversation(request: Request, call: Call) -> Response:
    """Change the metadata, the title or the shown branch."""
    body = UpdateConversation.model_validate(await read_json(request, call.app.settings.http.max_body))
    if not body.model_fields_set:
        raise InvalidRequest(
            "Missing required parameter: 'metadata'.", param="metadata", code="missing_required_parameter"
        )
    record = await service.update_conversation(
        call.app,
        call.principal.owner,
        _id(request),
        metadata=body.metadata or {} if "metadata" in body.model_fields_set else None,
        title=body.title,
        head=body.head,
        archived=body.archived,
        pinned=body.pinned,
        project=body.project,
    )
    return json_response(render(record))


@blueprint.route("v1/conversations/{conversation_id}", methods=["DELETE"], auth_level=func.AuthLevel.ANONYMOUS)
@edge
@Operation(answer=Deleted)
async def delete_conversation(request: Request, call: Call) -> Response:
    """Delete a conversation and its share links; it can be restored for some days, then its responses go too."""
    id_ = _id(request)
    await service.delete_conversation(call.app, call.principal.owner, id_)
    await revoke_shares_of(call.app, call.principal.owner, id_)
    return json_response({"id": id_, "object": "conversation.deleted", "deleted": True})


@blueprint.route("v1/conversations/{conversation_id}/items", methods=["POST"], auth_level=func.AuthLevel.ANONYMOUS)
@edge
@Operation(body=CreateItems, answer=Page[Item], query=(INCLUDE,), is_idempotent_by_key=True, errors=(409, 422))
async def create_items(request: Request, call: Call) -> Response:
    """Append items that nobody answers."""
    body = CreateItems.model_validate(await read_json(request, call.app.settings.http.max_body))
    id_ = _id(request)
    items = await service.add_items(call.app, call.principal.owner, id_, body.items, sent=_sent(request))
    return json_response(page(visible_items(items, include_param(request)), has_more=False))


@blueprint.route("v1/conversations/{conversation_id}/items", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
@edge
@Operation(answer=Page[Item], query=(*PAGED, INCLUDE))
async def list_items(request: Request, call: Call) -> Response:
    """The items of the shown branch."""
    items, has_more = await service.list_items(
        call.app,
        call.principal.owner,
        _id(request),
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
    header = (await service.get_conversation(call.app, owner, _id(request))).record
    _, item = await service.get_item(call.app, owner, header, request.path_params["item_id"])
    return json_response(visible_items([item], include_param(request))[0])


@blueprint.route(
    "v1/conversations/{conversation_id}/items/{item_id}", methods=["DELETE"], auth_level=func.AuthLevel.ANONYMOUS
)
@edge
@Operation(answer=Conversation)
async def delete_item(request: Request, call: Call) -> Response:
    """Take an item out of the conversation; the response it came from keeps it."""
    record = await service.remove_item(call.app, call.principal.owner, _id(request), request.path_params["item_id"])
    return json_response(render(record))


@blueprint.route("v1/conversations/{conversation_id}/turns", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
@edge
@Operation(answer=Page[Turn], query=PAGED_UPWARDS)
async def list_turns(request: Request, call: Call) -> Response:
    """Companion's own: every turn of the conversation, of every branch, oldest first unless asked otherwise."""
    limit, order, owner = limit_param(request), order_param(request, default="asc"), call.principal.owner
    id_ = _id(request)
    await service.get_conversation(call.app, owner, id_)
    after = request.query_params.get("after")
    sort = None
    if after:
        found = await repository.find_turn(call.app.store, owner, after)
        if found is None or found.record.conversation != id_:
            raise NotFound(f"Turn with id {after!r} not found.", param="after")
        sort = found.record.sort
    records = await repository.turns_of(call.app.store, owner, id_, after=sort, order=order, limit=limit + 1)
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
        "archived": record.archived,
        "pinned": record.pinned,
        "project": record.project,
        "temporary": record.is_temporary,
    }


def render_turn(record: TurnRecord) -> Json:
    """A turn as the tree of a conversation shows it: who answered whom, with what, at which cost."""
    removed = set(record.removed)
    return {
        "id": record.id,
        "object": "conversation.turn",
        "conversation": record.conversation,
        "parent": record.parent,
        "status": record.status,
        "created_at": int(record.created_at),
        "created_at_ms": int(record.created_at * 1000),
        "completed_at": int(record.completed_at) if record.completed_at else None,
        "model": record.params.get("model"),
        "input": [item for item in record.input if item["id"] not in removed],
        "output": visible_items([item for item in record.output if item["id"] not in removed], []),
        "usage": priced_usage(record.usage, record.cost),
        "error": record.error,
        "incomplete_details": {"reason": record.incomplete_reason} if record.incomplete_reason else None,
        "cost": record.cost,
        "first_token_ms": record.first_token_ms,
        "duration_ms": round((record.completed_at - record.created_at) * 1000, 1) if record.completed_at else None,
        "notes": record.notes,
    }
