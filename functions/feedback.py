"""`/v1/feedback`: what the owner thought of responses."""

from typing import Annotated, Any, Literal

import azure.functions as func
from pydantic import Field

from functions._edge import Call, edge, json_response, limit_param, order_param, read_json
from functions._http import Request, Response
from functions._lists import page
from functions._once import once
from functions._operations import PAGED, Operation
from shared.projects import service
from shared.projects.records import FeedbackRecord
from shared.wire.answers import owners
from shared.wire.answers.common import Deleted, Page
from shared.wire.items import Schema

type Json = dict[str, Any]

blueprint = func.Blueprint()


class CreateFeedback(Schema):
    response: str
    rating: Literal["up", "down"]
    reasons: Annotated[list[Annotated[str, Field(min_length=1, max_length=64)]], Field(max_length=16)] = Field(
        default=[]
    )
    comment: Annotated[str, Field(max_length=4000)] | None = None


@blueprint.route("v1/feedback", methods=["POST"], auth_level=func.AuthLevel.ANONYMOUS)
@edge
@Operation(body=CreateFeedback, answer=owners.Feedback, is_idempotent_by_key=True, errors=(404, 422))
@once
async def give_feedback(request: Request, call: Call) -> Response:
    """Say what one thinks of a response; again: instead of the last time."""
    body = CreateFeedback.model_validate(await read_json(request, call.app.settings.http.max_body))
    record = await service.give_feedback(
        call.app,
        call.principal.owner,
        body.response,
        rating=body.rating,
        reasons=body.reasons,
        comment=body.comment,
    )
    return json_response(render(record))


@blueprint.route("v1/feedback", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
@edge
@Operation(answer=Page[owners.Feedback], query=PAGED)
async def list_feedback(request: Request, call: Call) -> Response:
    """By time."""
    records, has_more = await service.list_feedback(
        call.app,
        call.principal.owner,
        after=request.query_params.get("after") or None,
        limit=limit_param(request),
        order=order_param(request),
    )
    return json_response(page([render(record) for record in records], has_more=has_more))


@blueprint.route("v1/feedback/{feedback_id}", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
@edge
@Operation(answer=owners.Feedback)
async def retrieve_feedback(request: Request, call: Call) -> Response:
    """One of them."""
    return json_response(
        render(await service.get_feedback(call.app, call.principal.owner, request.path_params["feedback_id"]))
    )


@blueprint.route("v1/feedback/{feedback_id}", methods=["DELETE"], auth_level=func.AuthLevel.ANONYMOUS)
@edge
@Operation(answer=Deleted)
async def delete_feedback(request: Request, call: Call) -> Response:
    """Take it back."""
    id_ = request.path_params["feedback_id"]
    await service.delete_feedback(call.app, call.principal.owner, id_)
    return json_response({"id": id_, "object": "feedback.deleted", "deleted": True})


def render(record: FeedbackRecord) -> Json:
    return {
        "id": record.id,
        "object": "feedback",
        "response": record.response,
        "rating": record.rating,
        "reasons": record.reasons,
        "comment": record.comment,
        "created_at": int(record.created_at),
    }
