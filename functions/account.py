"""`/v1/me`: profile, use and limits, and the rights over one's data; `/v1/admin/usage` is the operator's view."""

import re
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, Literal

import azure.functions as func
from pydantic import Field

from functions._edge import Call, edge, json_response, limit_param, read_body, read_json
from functions._http import Request, Response
from functions._once import once
from functions._operations import LIMIT, Operation, text
from shared.adoption.service import adopt
from shared.errors import InvalidRequest, PermissionDenied
from shared.principal import Principal
from shared.privacy import service
from shared.privacy.records import DataJobRecord, ProfileRecord
from shared.storage.base import STATE, Due
from shared.usage import limits, meter
from shared.usage.records import Spent, UsageRecord
from shared.wire.answers import owners
from shared.wire.items import Schema

type Json = dict[str, Any]

blueprint = func.Blueprint()

MONTH = text("month", "`YYYY-MM`; by default this month.")


class UpdateProfile(Schema):
    """What is not sent stays; null takes it away."""

    name: Annotated[str, Field(max_length=200)] | None = None
    retention_days: Annotated[int, Field(ge=1, le=36_500)] | None = None


class Adopt(Schema):
    guest_token: Annotated[str, Field(min_length=1, max_length=2000)]


class Erase(Schema):
    confirm: Literal["erase everything"]


@blueprint.route("v1/me", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
@edge
@Operation(answer=owners.Profile)
async def retrieve_profile(request: Request, call: Call) -> Response:
    """Who the caller is here."""
    del request
    return json_response(render_profile(await service.read_profile(call.app, call.principal.owner), call.principal))


@blueprint.route("v1/me", methods=["POST"], auth_level=func.AuthLevel.ANONYMOUS)
@edge(scope="admin")
@Operation(body=UpdateProfile, answer=owners.Profile)
async def update_profile(request: Request, call: Call) -> Response:
    """Change name or retention policy."""
    body = UpdateProfile.model_validate(await read_json(request, call.app.settings.http.max_body))
    given = {name: getattr(body, name) for name in body.model_fields_set}
    record = await service.update_profile(call.app, call.principal.owner, **given)
    return json_response(render_profile(record, call.principal))


@blueprint.route("v1/me/usage", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
@edge
@Operation(answer=owners.OwnUsage, query=(MONTH,))
async def retrieve_usage(request: Request, call: Call) -> Response:
    """A month's use by day and model, in tokens and US dollars, and what is left."""
    now = call.app.clock.now()
    id_ = _month(request, now)
    stored = await call.app.store.read(STATE, call.principal.owner, id_)
    record = UsageRecord.model_validate(stored.body) if stored else meter.fresh(id_)
    return json_response(_usage(call, record, now))


@blueprint.route("v1/admin/usage", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
@edge(scope="admin")
@Operation(answer=owners.AllUsage, query=(MONTH, LIMIT, text("after", "The owner that the page before ended with.")))
async def list_usage(request: Request, call: Call) -> Response:
    """For operators: a month's use by owner, dearest first."""
    caller = call.app.settings
    if call.principal.owner not in caller.operation.operators | {caller.caller.local_owner or "\0"}:
        raise PermissionDenied("This is for operators (COMPANION_OPERATORS).")
    limit = limit_param(request)
    id_ = _month(request, call.app.clock.now())
    found = [due for due in await _all_usage(call, id_) if due.stored.body["id"] == id_]
    totals = [(due.partition, limits.totals(UsageRecord.model_validate(due.stored.body))) for due in found]
    totals.sort(key=lambda pair: (-pair[1].cost, -pair[1].output_tokens, pair[0]))
    after = request.query_params.get("after")
    if after:
        places = [place for place, (owner, _) in enumerate(totals, start=1) if owner == after]
        if not places:
            raise InvalidRequest(f"Owner {after!r} used nothing in this month.", param="after", code="invalid_value")
        totals = totals[places[0] :]
    data = [{"owner": owner, **asdict(total)} for owner, total in totals[:limit]]
    return json_response({"object": "list", "month": id_[6:], "data": data, "has_more": len(totals) > limit})


async def _all_usage(call: Call, id_: str) -> list[Due]:
    """The records of this month and of those after it."""
    limit, before = 1000, meter.fresh(id_).due + 1
    while len(found := await call.app.store.due(STATE, "usage", before=before, limit=limit)) == limit:
        limit *= 4
    return found


@blueprint.route("v1/me/adopt", methods=["POST"], auth_level=func.AuthLevel.ANONYMOUS)
@edge(scope="admin")
@Operation(body=Adopt, answer=owners.Adoption, errors=(409,))
async def adopt_guest(request: Request, call: Call) -> Response:
    """Signed in: everything that a guest token stands for becomes the caller's, running responses included."""
    body = Adopt.model_validate(await read_json(request, call.app.settings.http.max_body))
    moved = await adopt(call.app, call.principal, body.guest_token)
    return json_response({"object": "adoption", "adopted": True, "moved": moved})


@blueprint.route("v1/me/export", methods=["POST"], auth_level=func.AuthLevel.ANONYMOUS)
@edge(scope="admin")
@Operation(answer=owners.DataJob, is_idempotent_by_key=True, errors=(422,))
@once
async def export_data(request: Request, call: Call) -> Response:
    """Begin to make a zip of everything of the caller's."""
    del request
    return json_response(_render_job(await service.start_export(call.app, call.principal.owner)))


@blueprint.route("v1/me/import", methods=["POST"], auth_level=func.AuthLevel.ANONYMOUS)
@edge(scope="admin")
@Operation(
    body=bytes,
    body_media="application/octet-stream",
    answer=owners.DataJob,
    is_idempotent_by_key=True,
    errors=(422,),
)
@once
async def import_data(request: Request, call: Call) -> Response:
    """Begin to import a zip: an export of Companion's, of ChatGPT's or of Claude's (or their `conversations.json`)."""
    data = await read_body(request, call.app.settings.http.max_body)
    if not data:
        raise InvalidRequest("The request body is empty; it must be the file to import.", code="invalid_archive")
    return json_response(_render_job(await service.start_import(call.app, call.principal.owner, data)))


@blueprint.route("v1/me/erase", methods=["POST"], auth_level=func.AuthLevel.ANONYMOUS)
@edge(scope="admin")
@Operation(body=Erase, answer=owners.DataJob, is_idempotent_by_key=True, errors=(422,))
@partial(once, outlives_erasure=True)
async def erase_data(request: Request, call: Call) -> Response:
    """Begin to erase everything of the caller's. It cannot be undone. The job that is answered is the receipt."""
    Erase.model_validate(await read_json(request, call.app.settings.http.max_body))
    return json_response(_render_job(await service.start_erase(call.app, call.principal.owner)))


@blueprint.route("v1/me/data_jobs/{job_id}", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
@edge(scope="admin")
@Operation(answer=owners.DataJob)
async def retrieve_data_job(request: Request, call: Call) -> Response:
    """How far an export, import or erasure is."""
    job = await service.get_job(call.app, call.principal.owner, request.path_params["job_id"])
    return json_response(_render_job(job))


@blueprint.route("v1/me/data_jobs/{job_id}/content", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
@edge(scope="admin")
@Operation(answer_media="application/zip", errors=(409,))
async def retrieve_export(request: Request, call: Call) -> Response:
    """The zip of a finished export; kept a week."""
    id_ = request.path_params["job_id"]
    data = await service.read_export(call.app, call.principal.owner, id_)
    disposition = {"content-disposition": f'attachment; filename="{id_}.zip"'}
    return Response(data, media_type="application/zip", headers=disposition)


def render_profile(record: ProfileRecord, caller: Principal) -> Json:
    return {
        "id": caller.owner,
        "object": "profile",
        "is_guest": caller.is_guest,
        "plan": caller.plan,
        "name": record.name,
        "retention_days": record.retention_days,
    }


def _render_job(job: DataJobRecord) -> Json:
    return {
        "id": job.id,
        "object": "data_job",
        "type": job.type,
        "status": job.status,
        "created_at": int(job.created_at),
        "completed_at": int(job.completed_at) if job.completed_at else None,
        "counts": job.counts,
        "error": job.error,
    }


def _usage(call: Call, record: UsageRecord, now: float) -> Json:
    plan = call.app.settings.usage.limits_of(call.principal.plan)
    held, today = limits.held(record, now), limits.spent_on(record, limits.day_of(now))
    total = limits.totals(record)
    return {
        "object": "usage",
        "month": record.id[6:],
        "days": [
            {"date": day, "models": [_spent(spent) | {"model": model} for model, spent in sorted(models.items())]}
            for day, models in sorted(record.days.items())
        ],
        "total": _spent(total),
        "reserved": held,
        "limits": {
            "requests_per_minute": plan.requests_per_minute,
            "tokens_per_minute": plan.tokens_per_minute,
            "concurrent_turns": plan.concurrent_turns,
            "usd_per_day": plan.usd_per_day,
            "usd_per_month": plan.usd_per_month,
        },
        "remaining_today": None if plan.usd_per_day is None else max(0.0, plan.usd_per_day - today - held),
        "remaining_this_month": (
            None if plan.usd_per_month is None else max(0.0, plan.usd_per_month - total.cost - held)
        ),
    }


def _spent(spent: Spent) -> Json:
    return asdict(spent)


def _month(request: Request, now: float) -> str:
    month = request.query_params.get("month") or f"{datetime.fromtimestamp(now, UTC):%Y-%m}"
    if not re.fullmatch(r"(19[7-9]|2[0-9]{2})[0-9]-(0[1-9]|1[0-2])", month):
        raise InvalidRequest(f"Invalid 'month': {month!r}. Expected YYYY-MM.", param="month", code="invalid_value")
    return f"usage_{month}"
