"""`/v1/changes`: what changed since a token, deletions included, so that a client keeps a copy."""

from typing import Any

import azure.functions as func

from functions import conversations, feedback, projects
from functions._edge import Call, edge, json_response, limit_param
from functions._http import Request, Response
from functions._operations import LIMIT, Operation, text
from shared.conversations.records import ConversationRecord, Tombstone, TurnRecord
from shared.errors import InvalidRequest
from shared.projects.records import FeedbackRecord, ProjectRecord
from shared.storage.base import STATE, Document
from shared.wire.answers import owners

type Json = dict[str, Any]

blueprint = func.Blueprint()

SINCE = text("since", "The `token` of the changes before; empty: from the beginning.")


@blueprint.route("v1/changes", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
@edge
@Operation(answer=owners.Changes, query=(SINCE, LIMIT))
async def list_changes(request: Request, call: Call) -> Response:
    """Conversations, turns, projects and feedback that changed, oldest change first, each in its latest form.

    What was deleted comes as `deletion`. While `has_more`, go on with `token`; then ask again with it later. A token
    stays good on any host and in any region; after 30 days without one, begin again from the beginning.
    """
    since = request.query_params.get("since") or None
    if since is not None and len(since) > 4096:
        raise InvalidRequest("This token is not one of ours; start again without one.", param="since")
    changed = await call.app.store.changes(STATE, call.principal.owner, since=since, limit=limit_param(request))
    shown = [each for stored in changed.documents if (each := _render(stored.body)) is not None]
    return json_response({"object": "changes", "data": shown, "token": changed.token, "has_more": changed.has_more})


def _render(body: Document) -> Json | None:
    """None for what is no business of a client's copy: what is temporary, and the bookkeeping."""
    match body.get("kind"):
        case "tombstone":
            gone = Tombstone.model_validate(body)
            return _gone(gone.id.removeprefix("gone_"), gone.of, gone.deleted_at)
        case "conversation.deleted":
            header = ConversationRecord.model_validate(body)
            return _gone(header.id, "conversation", header.deleted_at or 0.0)
        case _ if "ttl" in body:
            return None
        case "conversation":
            return conversations.render(ConversationRecord.model_validate(body))
        case "turn":
            return conversations.render_turn(TurnRecord.model_validate(body))
        case "project":
            return projects.render(ProjectRecord.model_validate(body))
        case "feedback":
            return feedback.render(FeedbackRecord.model_validate(body))
        case _:
            return None


def _gone(id_: str, of: str, at: float) -> Json:
    return {"id": id_, "object": "deletion", "of": of, "deleted_at": int(at)}
