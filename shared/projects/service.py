"""What may happen to projects, and to feedback on responses."""

from typing import Any, Literal

from shared.app import App
from shared.conversations.deletion import leave_tombstone
from shared.conversations.records import header_sort
from shared.errors import NotFound
from shared.projects.records import FeedbackRecord, ProjectRecord
from shared.storage.base import STATE, AlreadyExists, Create, Document, Query, Upsert
from shared.storage.mutate import Change, mutate
from shared.turns.follow import get_turn


async def create_project(
    app: App, owner: str, *, name: str, instructions: str | None, metadata: dict[str, str]
) -> ProjectRecord:
    token, now = app.ids.token(), app.clock.now()
    record = ProjectRecord(
        id=f"proj_{token}",
        sort=header_sort(now, token),
        name=name,
        instructions=instructions,
        metadata=metadata,
        created_at=now,
        updated_at=now,
    )
    try:
        await app.store.batch(STATE, owner, [Create(record.document())])
    except AlreadyExists:  # an earlier try of this very request, whose answer was lost
        return await get_project(app, owner, record.id)
    return record


async def get_project(app: App, owner: str, id_: str, *, param: str = "project_id") -> ProjectRecord:
    """Raises `NotFound`: there is none, or it is somebody else's."""
    stored = await app.store.read(STATE, owner, id_)
    if stored is None or stored.body.get("kind") != "project":
        raise NotFound(f"Project with id {id_!r} not found.", param=param)
    return ProjectRecord.model_validate(stored.body)


async def list_projects(
    app: App, owner: str, *, after: str | None, limit: int, order: Literal["asc", "desc"]
) -> tuple[list[ProjectRecord], bool]:
    """By time of creation; `after` is a project's id."""
    sort = (await get_project(app, owner, after, param="after")).sort if after else None
    query = Query(kind="project", after=sort, order=order, limit=limit + 1)
    found = [ProjectRecord.model_validate(each.body) for each in await app.store.query(STATE, owner, query)]
    return found[:limit], len(found) > limit


async def update_project(app: App, owner: str, id_: str, **given: Any) -> ProjectRecord:
    """Change the fields given. Raises `NotFound`."""

    def apply(body: Document | None) -> Document:
        if body is None or body.get("kind") != "project":
            raise NotFound(f"Project with id {id_!r} not found.", param="project_id")
        changes = {**given, "updated_at": app.clock.now()}
        return ProjectRecord.model_validate(body).model_copy(update=changes).document()

    _, stored = await mutate(app.store, STATE, owner, [], [Change(id_, apply)])
    return ProjectRecord.model_validate(stored[0].body)


async def delete_project(app: App, owner: str, id_: str) -> None:
    """The project is gone; its conversations stay, outside of any. Raises `NotFound`."""
    await get_project(app, owner, id_)
    await leave_tombstone(app.store, owner, id_, "project", app.clock.now())


async def give_feedback(
    app: App, owner: str, response: str, *, rating: Literal["up", "down"], reasons: list[str], comment: str | None
) -> FeedbackRecord:
    """Say what one thinks of a response; again: instead of the last time. Raises `NotFound`: no such response."""
    turn = (await get_turn(app, owner, response, param="response")).record
    now = app.clock.now()
    record = FeedbackRecord(
        id=f"feedback_{turn.token}",
        group=turn.conversation or turn.id,
        sort=header_sort(now, turn.token),
        response=turn.id,
        rating=rating,
        reasons=reasons,
        comment=comment,
        created_at=now,
        ttl=turn.ttl,
    )
    await app.store.batch(STATE, owner, [Upsert(record.document())])
    return record


async def get_feedback(app: App, owner: str, id_: str, *, param: str = "feedback_id") -> FeedbackRecord:
    """Raises `NotFound`."""
    stored = await app.store.read(STATE, owner, id_)
    if stored is None or stored.body.get("kind") != "feedback":
        raise NotFound(f"Feedback with id {id_!r} not found.", param=param)
    return FeedbackRecord.model_validate(stored.body)


async def list_feedback(
    app: App, owner: str, *, after: str | None, limit: int, order: Literal["asc", "desc"]
) -> tuple[list[FeedbackRecord], bool]:
    """By time; `after` is an id."""
    sort = (await get_feedback(app, owner, after, param="after")).sort if after else None
    query = Query(kind="feedback", after=sort, order=order, limit=limit + 1)
    found = [FeedbackRecord.model_validate(each.body) for each in await app.store.query(STATE, owner, query)]
    return found[:limit], len(found) > limit


async def delete_feedback(app: App, owner: str, id_: str) -> None:
    """Raises `NotFound`."""
    record = await get_feedback(app, owner, id_)
    await leave_tombstone(app.store, owner, id_, "feedback", app.clock.now(), is_told=record.ttl is None)
