"""`/v1/responses/{id}/trace`: why this answer."""

import azure.functions as func

from functions._edge import Call, edge, json_response
from functions._http import Request, Response
from functions._operations import Operation
from shared.turns.follow import get_turn
from shared.turns.trace import render_trace
from shared.wire.answers.operation import Trace

blueprint = func.Blueprint()


@blueprint.route("v1/responses/{response_id}/trace", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
@edge
@Operation(answer=Trace, tag="Responses")
async def retrieve_trace(request: Request, call: Call) -> Response:
    """Why this answer: deployment, tries, timings, tokens, money, request charge, parts of the context."""
    found = await get_turn(call.app, call.principal.owner, request.path_params["response_id"])
    return json_response(render_trace(found.record))
