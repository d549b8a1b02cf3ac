"""`/v1/chat/completions`: the older surface, translated onto the same turn; and the completions that were stored."""

import re
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import azure.functions as func
import orjson

from functions._edge import Call, edge, json_response, limit_param, order_param, read_json
from functions._http import Request, Response
from functions._lists import page
from functions._operations import PAGED_UPWARDS, Operation, Parameter, text
from functions._send import sent_as
from functions._sse import sse_response
from shared.conversations.chats import delete_chat, get_chat, list_chats, update_chat
from shared.conversations.records import TurnRecord
from shared.errors import AssistantError, Conflict, ModelUnavailable, NotFound, UpstreamError
from shared.turns.begin import begin_turn
from shared.turns.follow import finished, follow_live
from shared.turns.live import LiveTurn
from shared.turns.prepare import TurnRequest
from shared.wire.answers.chat import ChatCompletion, ChatCompletionChunk, StoredChatCompletion, StoredChatMessage
from shared.wire.answers.common import Deleted, Page
from shared.wire.chat import (
    CreateChatCompletion,
    UpdateChatCompletion,
    create_response,
    in_chat_words,
    prediction,
    refuse_unsupported,
)
from shared.wire.chat_messages import stored_messages
from shared.wire.chat_output import Chunks, render_completion, render_stored

blueprint = func.Blueprint()

type Json = dict[str, Any]

MODEL = text("model", "Only completions of this model.")
METADATA = Parameter(
    name="metadata",
    style="deepObject",
    schema={"type": "object", "additionalProperties": {"type": "string"}},
    description="Only completions with these values: `metadata[key]=value`.",
)

_METADATA = re.compile(r"metadata\[(.+)\]")


@blueprint.route("v1/chat/completions", methods=["POST"], auth_level=func.AuthLevel.ANONYMOUS)
@edge(is_shed=True)
@Operation(
    body=CreateChatCompletion,
    answer=ChatCompletion,
    stream=ChatCompletionChunk,
    is_idempotent_by_key=True,
    errors=(404, 409, 422, 502, 504),
)
async def create_chat_completion(request: Request, call: Call) -> Response:
    """Ask for an answer in the older protocol; the whole history comes with each request."""
    body = CreateChatCompletion.model_validate(await read_json(request, call.app.settings.http.max_body))
    refuse_unsupported(body)
    try:
        live = await begin_turn(call.app, call.principal, _turn_request(request, body), call.ticket)
    except AssistantError as error:
        raise in_chat_words(error) from None
    if body.stream:
        options = body.stream_options
        chunks = Chunks(
            live.record,
            include_usage=bool(options and options.include_usage),
            include_obfuscation=bool(options and options.include_obfuscation),
        )
        return sse_response(
            _frames(call, live, chunks),
            heartbeat=call.app.settings.http.heartbeat,
            headers=live.take_headers(),
            on_error=_error_frame,
        )
    record = await finished(call.app, call.principal.owner, live)
    if record.status not in ("completed", "incomplete"):
        failure = _failure(live, record.status, record.error)
        failure.headers |= live.headers
        raise failure
    return json_response(render_completion(record), headers=live.headers)


@blueprint.route("v1/chat/completions", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
@edge
@Operation(answer=Page[StoredChatCompletion], query=(*PAGED_UPWARDS, MODEL, METADATA))
async def list_chat_completions(request: Request, call: Call) -> Response:
    """Oldest first; `model` and `metadata[key]=value` leave out what differs."""
    query = request.query_params
    filters = {match[1]: value for name, value in query.items() if (match := _METADATA.fullmatch(name))}
    found = await list_chats(
        call.app.store,
        call.principal.owner,
        after=query.get("after"),
        limit=limit_param(request),
        order=order_param(request, default="asc"),
        model=query.get("model"),
        metadata=filters,
    )
    return json_response(page([render_stored(record) for record in found.records], has_more=found.has_more))


@blueprint.route("v1/chat/completions/{completion_id}", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
@edge
@Operation(answer=StoredChatCompletion)
async def retrieve_chat_completion(request: Request, call: Call) -> Response:
    """A stored completion."""
    return json_response(render_stored(await _stored(request, call)))


@blueprint.route("v1/chat/completions/{completion_id}", methods=["POST"], auth_level=func.AuthLevel.ANONYMOUS)
@edge
@Operation(body=UpdateChatCompletion, answer=StoredChatCompletion)
async def update_chat_completion(request: Request, call: Call) -> Response:
    """Put other metadata in the place of a stored completion's."""
    body = UpdateChatCompletion.model_validate(await read_json(request, call.app.settings.http.max_body))
    id_ = request.path_params["completion_id"]
    record = await update_chat(call.app.store, call.principal.owner, id_, metadata=body.metadata or {})
    return json_response(render_stored(record))


@blueprint.route("v1/chat/completions/{completion_id}", methods=["DELETE"], auth_level=func.AuthLevel.ANONYMOUS)
@edge
@Operation(answer=Deleted)
async def delete_chat_completion(request: Request, call: Call) -> Response:
    """Delete a stored completion."""
    id_ = request.path_params["completion_id"]
    await delete_chat(call.app.store, call.principal.owner, id_, now=call.app.clock.now())
    return json_response({"id": id_, "object": "chat.completion.deleted", "deleted": True})


@blueprint.route("v1/chat/completions/{completion_id}/messages", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
@edge
@Operation(answer=Page[StoredChatMessage], query=PAGED_UPWARDS)
async def list_chat_messages(request: Request, call: Call) -> Response:
    """What the completion answered, oldest first."""
    limit, order = limit_param(request), order_param(request, default="asc")
    record = await _stored(request, call)
    messages = stored_messages(record.input, request.path_params["completion_id"])
    if order == "desc":
        messages.reverse()
    after = request.query_params.get("after")
    if after:
        places = [place for place, message in enumerate(messages) if message["id"] == after]
        if not places:
            raise NotFound(f"Message with id {after!r} not found.", param="after")
        messages = messages[places[0] + 1 :]
    return json_response(page(messages[:limit], has_more=len(messages) > limit))


async def _stored(request: Request, call: Call) -> TurnRecord:
    return (await get_chat(call.app.store, call.principal.owner, request.path_params["completion_id"])).record


def _turn_request(request: Request, body: CreateChatCompletion) -> TurnRequest:
    return TurnRequest(
        create=create_response(body),
        surface="chat",
        stop=body.stops,
        seed=body.seed,
        logit_bias=body.logit_bias,
        prediction=prediction(body),
        is_legacy=body.is_legacy,
        **sent_as(request),
    )


async def _frames(call: Call, live: LiveTurn, chunks: Chunks) -> AsyncIterator[bytes]:
    """The turn's events as frames of this surface.

    Nothing is said before the model says something, so that its refusal can still be a status: clients retry on that.

    Raises:
        AssistantError: the turn failed; a later frame, or the status if this is the first.
    """
    last: Json = {}
    async with aclosing(follow_live(call.app, call.principal.owner, live)) as batches:
        async for batch in batches:
            events = batch.events
            last = events[-1]
            chunks.learn(live.record)
            said = [chunk for event in events for chunk in chunks.feed(event)]
            if said:
                yield b"".join([b"data: %b\n\n" % orjson.dumps(chunk) for chunk in said])
            if chunks.is_over:
                return
    ended: Json = last["response"] if last.get("type") == "response.failed" else {}
    raise _failure(live, ended.get("status"), ended.get("error"))


def _error_frame(error: AssistantError, _: int) -> bytes:
    """What the official clients raise on."""
    return b"data: %b\n\n" % orjson.dumps(error.body())


def _failure(live: LiveTurn, status: str | None, error: Json | None) -> AssistantError:
    """Why there is no completion to show: as it was raised here, else as the turn's record tells it."""
    if live.error is not None:
        return in_chat_words(live.error)
    if status == "cancelled":
        return Conflict("This chat completion was cancelled.", code="cancelled", headers={"x-should-retry": "false"})
    if error is not None:
        return UpstreamError(error["message"], code=error["code"])
    return ModelUnavailable("The answer was interrupted; send the request again.", retry_after=1)
