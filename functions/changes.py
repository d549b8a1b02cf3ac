"""`/v1/changes`: what changed since a token, deletions included, so that a client keeps a copy."""

from typing import Any

import azure.functions as func

from functions import account, conversations, feedback, projects, shares
from functions._edge import Call, edge, json_response, limit_param
from functions._http import Request, Response
from functions._operations import LIMIT, Operation, text
from shared.conversations.records import ConversationRecord, Tombstone, TurnRecord
from shared.principal import Principal
from shared.privacy.records import ProfileRecord
from shared.projects.records import FeedbackRecord, ProjectRecord
from shared.sharing.records import ShareRecord
from shared.storage.base import Document
from shared.sync.service import changes_since
from shared.wire.answers import owners

type Json = dict[str, Any]

blueprint = func.Blueprint()

SINCE = text("since", "The `token` of the changes before; empty: from the beginning.")


@blueprint.route("v1/changes", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
@edge
@Operation(answer=owners.Changes, query=(SINCE, LIMIT))
async def list_changes(request: Request, call: Call) -> Response:
    """Conversations, turns, projects, shares, feedback and the profile that changed, oldest change first, each in its
    latest form.

    What was deleted comes as `deletion`. A deleted conversation may be restored: then it comes again, but not its turns
    (`conversation` says whose they are), so keep those until they come as `deletion` themselves. While `has_more`, go
    on with `token`; then ask again with it later. A token stays good on any host and in any region, for 30 days. After
    that, or when everything was erased, it is refused (`token_expired`): forget your copy and begin again without one.
    """
    since = request.query_params.get("since") or None
    changed = await changes_since(call.app, call.principal.owner, since=since, limit=limit_param(request))
    shown = [each for stored in changed.documents if (each := render(stored.body, call.principal)) is not None]
    return json_response({"object": "changes", "data": shown, "token": changed.token, "has_more": changed.has_more})


def render(body: Document, caller: Principal) -> Json | None:
    """None for what is no business of a client's copy: what is temporary, and the bookkeeping."""
    match body.get("kind"):
        case "tombstone":
            gone = Tombstone.model_validate(body)
            return _gone(gone.id.removeprefix("gone_"), gone.of, gone.deleted_at) if gone.is_told else None
        case "conversation.deleted" if "ttl" in body:
            return None
        case "conversation.deleted":
            header = ConversationRecord.model_validate(body)
            return _gone(header.id, "conversation", header.deleted_at or 0.0)
        case _ if "ttl" in body:
            return None
        case "conversation":
            return conversations.render(ConversationRecord.model_validate(body))
        case "turn":
            turn = TurnRecord.model_validate(body)
            # Deleted, and kept for what was built on it alone: its tombstone tells that it is gone.
            is_deleted = turn.conversation is None and not turn.is_stored
            return None if is_deleted else conversations.render_turn(turn)
        case "project":
            return projects.render(ProjectRecord.model_validate(body))
        case "feedback":
            return feedback.render(FeedbackRecord.model_validate(body))
        case "share":
            return shares.render(ShareRecord.model_validate(body))
        case "profile":
            return account.render_profile(ProfileRecord.model_validate(body), caller)
        case _:
            return None


def _gone(id_: str, of: str, at: float) -> Json:
    return {"id": id_, "object": "deletion", "of": of, "deleted_at": int(at)}
