"""`/v1/projects`: conversations that belong together."""

from typing import Annotated, Any

import azure.functions as func
from pydantic import Field

from functions._edge import Call, edge, json_response, limit_param, order_param, read_json
from functions._http import Request, Response
from functions._lists import page
from functions._once import once
from functions._operations import PAGED, Operation
from shared.projects import service
from shared.projects.records import ProjectRecord
from shared.wire.answers import owners
from shared.wire.answers.common import Deleted, Page
from shared.wire.items import Schema
from shared.wire.responses import Metadata

type Json = dict[str, Any]

blueprint = func.Blueprint()

type Name = Annotated[str, Field(min_length=1, max_length=200)]
type Instructions = Annotated[str, Field(max_length=20_000)]


class CreateProject(Schema):
    name: Name
    instructions: Instructions | None = None
    metadata: Metadata | None = None


class UpdateProject(Schema):
    name: Name | None = None
    instructions: Instructions | None = None
    metadata: Metadata | None = None


@blueprint.route("v1/projects", methods=["POST"], auth_level=func.AuthLevel.ANONYMOUS)
@edge
@Operation(body=CreateProject, answer=owners.Project, is_idempotent_by_key=True, errors=(422,))
@once
async def create_project(request: Request, call: Call) -> Response:
    """Begin a project; conversations enter it by their `project`."""
    body = CreateProject.model_validate(await read_json(request, call.app.settings.http.max_body))
    record = await service.create_project(
        call.app, call.principal.owner, name=body.name, instructions=body.instructions, metadata=body.metadata or {}
    )
    return json_response(render(record))


@blueprint.route("v1/projects", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
@edge
@Operation(answer=Page[owners.Project], query=PAGED)
async def list_projects(request: Request, call: Call) -> Response:
    """By time of creation."""
    records, has_more = await service.list_projects(
        call.app,
        call.principal.owner,
        after=request.query_params.get("after") or None,
        limit=limit_param(request),
        order=order_param(request),
    )
    return json_response(page([render(record) for record in records], has_more=has_more))


@blueprint.route("v1/projects/{project_id}", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
@edge
@Operation(answer=owners.Project)
async def retrieve_project(request: Request, call: Call) -> Response:
    """One project."""
    return json_response(
        render(await service.get_project(call.app, call.principal.owner, request.path_params["project_id"]))
    )


@blueprint.route("v1/projects/{project_id}", methods=["POST"], auth_level=func.AuthLevel.ANONYMOUS)
@edge
@Operation(body=UpdateProject, answer=owners.Project)
async def update_project(request: Request, call: Call) -> Response:
    """Change name, instructions or metadata; what is not sent stays."""
    body = UpdateProject.model_validate(await read_json(request, call.app.settings.http.max_body))
    given = {name: getattr(body, name) for name in body.model_fields_set if name != "name" or body.name is not None}
    if "metadata" in given:
        given["metadata"] = given["metadata"] or {}
    id_ = request.path_params["project_id"]
    return json_response(render(await service.update_project(call.app, call.principal.owner, id_, **given)))


@blueprint.route("v1/projects/{project_id}", methods=["DELETE"], auth_level=func.AuthLevel.ANONYMOUS)
@edge
@Operation(answer=Deleted)
async def delete_project(request: Request, call: Call) -> Response:
    """Delete a project; its conversations stay."""
    id_ = request.path_params["project_id"]
    await service.delete_project(call.app, call.principal.owner, id_)
    return json_response({"id": id_, "object": "project.deleted", "deleted": True})


def render(record: ProjectRecord) -> Json:
    return {
        "id": record.id,
        "object": "project",
        "name": record.name,
        "instructions": record.instructions,
        "metadata": record.metadata,
        "created_at": int(record.created_at),
        "updated_at": int(record.updated_at),
    }
