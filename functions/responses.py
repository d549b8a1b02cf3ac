"""`/v1/responses`: create (plain, streamed), retrieve, resume, cancel, delete, input items, token count."""

from collections.abc import AsyncIterator

import azure.functions as func

from functions._edge import (
    Call,
    edge,
    flag_param,
    include_param,
    json_response,
    limit_param,
    order_param,
    read_json,
    starting_after_param,
)
from functions._http import Request, Response
from functions._lists import page
from functions._operations import INCLUDE, PAGED, STARTING_AFTER, STREAM, Operation
from functions._send import sent_as
from functions._sse import sse_response
from shared.errors import InvalidRequest, NotFound
from shared.turns.begin import begin_turn
from shared.turns.cancel import cancel_turn, delete_turn
from shared.turns.compaction import compact
from shared.turns.events import Batch
from shared.turns.follow import finished, follow, follow_live, get_turn
from shared.turns.prepare import TurnRequest, count_input
from shared.wire.answers.common import Deleted, Page
from shared.wire.answers.events import ResponseStreamEvent
from shared.wire.answers.items import Item
from shared.wire.answers.responses import CompactedResponse, InputTokens, ResponseObject
from shared.wire.responses import CountInput, CreateResponse, refuse_unsupported, render_response, visible_items

blueprint = func.Blueprint()


@blueprint.route("v1/responses", methods=["POST"], auth_level=func.AuthLevel.ANONYMOUS)
@edge(is_shed=True)
@Operation(
    body=CreateResponse,
    answer=ResponseObject,
    stream=ResponseStreamEvent,
    is_idempotent_by_key=True,
    errors=(404, 409, 422, 502, 504),
)
async def create_response(request: Request, call: Call) -> Response:
    """Ask for an answer, at once, as a stream, or in the background."""
    create = await _read(request, call)
    refuse_unsupported(create)
    live = await begin_turn(call.app, call.principal, TurnRequest(create=create, **sent_as(request)), call.ticket)
    if create.stream:
        return _stream(call, follow_live(call.app, call.principal.owner, live), headers=live.take_headers())
    if create.background:
        return json_response(render_response(live.record), headers=live.headers)
    record = await finished(call.app, call.principal.owner, live)
    if record.status == "failed" and live.error is not None:
        live.error.headers |= live.headers
        raise live.error
    return json_response(render_response(record), headers=live.headers)


@blueprint.route("v1/responses/{response_id}", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
@edge
@Operation(answer=ResponseObject, stream=ResponseStreamEvent, query=(INCLUDE, STREAM, STARTING_AFTER))
async def retrieve_response(request: Request, call: Call) -> Response:
    """A stored response; with `stream=true` its events, from the first or behind `starting_after` to the last."""
    response_id = request.path_params["response_id"]
    after = starting_after_param(request)
    if flag_param(request, "include_obfuscation"):
        raise InvalidRequest("Streams are not obfuscated here; leave it out.", param="include_obfuscation")
    if flag_param(request, "stream"):
        await get_turn(call.app, call.principal.owner, response_id)
        return _stream(call, follow(call.app, call.principal.owner, response_id, after=-1 if after is None else after))
    if after is not None:
        raise InvalidRequest("'starting_after' needs 'stream=true'.", param="starting_after")
    record = (await get_turn(call.app, call.principal.owner, response_id)).record
    included = [*record.include, *include_param(request)]
    return json_response(render_response(record.model_copy(update={"include": included})))


@blueprint.route("v1/responses/{response_id}/cancel", methods=["POST"], auth_level=func.AuthLevel.ANONYMOUS)
@edge
@Operation(answer=ResponseObject, errors=(409,))
async def cancel_response(request: Request, call: Call) -> Response:
    """End a running response, keeping what was shown; one that has ended is answered as it is."""
    record = await cancel_turn(call.app, call.principal.owner, request.path_params["response_id"])
    return json_response(render_response(record))


@blueprint.route("v1/responses/{response_id}", methods=["DELETE"], auth_level=func.AuthLevel.ANONYMOUS)
@edge
@Operation(answer=Deleted, errors=(409,))
async def delete_response(request: Request, call: Call) -> Response:
    """Delete a response; what was built on it stays."""
    response_id = request.path_params["response_id"]
    await delete_turn(call.app, call.principal.owner, response_id)
    return json_response({"id": response_id, "object": "response", "deleted": True})


@blueprint.route("v1/responses/{response_id}/input_items", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
@edge
@Operation(answer=Page[Item], query=(*PAGED, INCLUDE))
async def list_input_items(request: Request, call: Call) -> Response:
    """What the response was asked, as items."""
    limit, order = limit_param(request), order_param(request)
    record = (await get_turn(call.app, call.principal.owner, request.path_params["response_id"])).record
    items = record.input if order == "asc" else record.input[::-1]
    after = request.query_params.get("after")
    if after:
        places = [place for place, item in enumerate(items) if item["id"] == after]
        if not places:
            raise NotFound(f"Item with id {after!r} not found.", param="after")
        items = items[places[0] + 1 :]
    shown = visible_items(items[:limit], [*record.include, *include_param(request)])
    return json_response(page(shown, has_more=len(items) > limit))


@blueprint.route("v1/responses/input_tokens", methods=["POST"], auth_level=func.AuthLevel.ANONYMOUS)
@edge
@Operation(body=CountInput, answer=InputTokens, errors=(404, 409))
async def count_input_tokens(request: Request, call: Call) -> Response:
    """How many tokens a request would send to the model."""
    create = CountInput.model_validate(await read_json(request, call.app.settings.http.max_body))
    refuse_unsupported(create)
    tokens = await count_input(call.app, call.principal, TurnRequest(create=create))
    return json_response({"object": "response.input_tokens", "input_tokens": tokens})


@blueprint.route("v1/responses/compact", methods=["POST"], auth_level=func.AuthLevel.ANONYMOUS)
@edge
@Operation(body=CreateResponse, answer=CompactedResponse, errors=(404, 409, 502, 504))
async def compact_response(request: Request, call: Call) -> Response:
    """A context in fewer words, to be sent instead of it; nothing is stored."""
    create = await _read(request, call)
    refuse_unsupported(create)
    return json_response(await compact(call.app, call.principal, TurnRequest(create=create)))


async def _read(request: Request, call: Call) -> CreateResponse:
    return CreateResponse.model_validate(await read_json(request, call.app.settings.http.max_body))


def _stream(call: Call, batches: AsyncIterator[Batch], headers: dict[str, str] | None = None) -> Response:
    return sse_response(_encoded(batches), heartbeat=call.app.settings.http.heartbeat, headers=headers)


async def _encoded(batches: AsyncIterator[Batch]) -> AsyncIterator[bytes]:
    async for batch in batches:
        yield batch.data
