"""`/v1/moderations`."""

import azure.functions as func

from functions._edge import Call, edge, json_response, read_json
from functions._http import Request, Response
from functions._operations import Operation
from shared.wire.moderations import CreateModeration, Moderation, contents_of, render_moderation

blueprint = func.Blueprint()


@blueprint.route("v1/moderations", methods=["POST"], auth_level=func.AuthLevel.ANONYMOUS)
@edge
@Operation(body=CreateModeration, answer=Moderation, errors=(502, 504))
async def create_moderation(request: Request, call: Call) -> Response:
    """Whether a text or an image is harmful, and how: a score for each of the thirteen categories."""
    body = await read_json(request, call.app.settings.http.max_body)
    asked = CreateModeration.model_validate(body)
    moderator = call.app.moderator
    judgements = await moderator.judge(contents_of(asked))
    return json_response(render_moderation(call.app.ids.token(), moderator.model, judgements))
