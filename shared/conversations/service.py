"""What may happen to conversations and their items."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Literal

from shared.app import App
from shared.conversations.deletion import hide, restore
from shared.conversations.records import ConversationRecord, TurnRecord, header_sort, sort_key
from shared.conversations.repository import (
    FoundConversation,
    find_conversation,
    find_turn,
    is_on_path,
    turns,
    walk_back,
)
from shared.errors import InvalidRequest, NotFound, Unprocessable
from shared.ids import derived_token, turn_of
from shared.storage.base import STATE, AlreadyExists, Create, Document
from shared.storage.mutate import Change, mutate
from shared.turns.context import turn_items
from shared.turns.ledger import HeadMoved, busy, touched
from shared.turns.prepare import resolve_references
from shared.wire.items import InputItem, stored_items

type Json = dict[str, Any]

TEMPORARY_SECONDS = 86_400
"""How long a temporary conversation stays after its last change."""
LOOK_BACK = 1000
"""Turns searched for an item whose id does not say which turn it is in."""


@dataclass(frozen=True, slots=True)
class Sent:
    """How a request that makes something names itself: ids derive from the key, so it makes it once."""

    key: str | None = None
    body_hash: str | None = None

    def token(self, app: App, owner: str, *what: str) -> str:
        return derived_token(owner, self.key, "conversation", *what) if self.key else app.ids.token()

    def same[R: ConversationRecord | TurnRecord](self, record: R) -> R:
        """What an earlier request with this key made.

        Raises:
            Unprocessable: that was another request.
        """
        if record.body_hash != self.body_hash:
            raise Unprocessable(
                "This Idempotency-Key was used for another request; use a new key for a new request.",
                code="idempotency_key_reused",
            )
        return record


UNNAMED = Sent()


async def get_conversation(app: App, owner: str, id_: str, *, param: str = "conversation_id") -> FoundConversation:
    """A conversation's header.

    Raises:
        NotFound: there is none, or it is somebody else's.
    """
    found = await find_conversation(app.store, owner, id_)
    if found is None:
        raise NotFound(f"Conversation with id {id_!r} not found.", param=param)
    return found


async def create_conversation(
    app: App,
    owner: str,
    *,
    metadata: dict[str, str],
    items: str | list[InputItem] | None,
    project: str | None = None,
    is_temporary: bool = False,
    sent: Sent = UNNAMED,
) -> ConversationRecord:
    """A new conversation, with its first items if there are any; where `sent` names it, made once.

    Raises:
        NotFound: there is no such project, or no such item to refer to.
        Unprocessable: the idempotency key was used for another body.
    """
    if project is not None:
        await _check_project(app, owner, project)
    now, token, turn_token = app.clock.now(), sent.token(app, owner), sent.token(app, owner, "items")
    header = ConversationRecord(
        id=f"conv_{token}",
        sort=header_sort(now, token),
        created_at=now,
        updated_at=now,
        metadata=metadata,
        project=project,
        ttl=TEMPORARY_SECONDS if is_temporary else None,
        body_hash=sent.body_hash,
    )
    operations: list[Create] = []
    if items:
        given = await resolve_references(app, owner, stored_items(items, turn_token, param="items"), param="items")
        turn = _added(header, given, parent=None, now=now, token=turn_token)
        header = header.model_copy(update={"head": turn.id})
        operations.append(Create(turn.document()))
    try:
        await app.store.batch(STATE, owner, [Create(header.document()), *operations])
    except AlreadyExists:
        return sent.same((await get_conversation(app, owner, header.id)).record)
    return header


async def update_conversation(
    app: App,
    owner: str,
    id_: str,
    *,
    metadata: dict[str, str] | None = None,
    title: str | None = None,
    head: str | None = None,
    archived: bool | None = None,
    pinned: bool | None = None,
    project: str | None = None,
) -> ConversationRecord:
    """Change what a client may change of a header; None leaves a field as it is, "" takes it out of its project.

    Raises:
        NotFound: there is no such conversation.
        InvalidRequest: the new head is not a turn of it.
    """
    if head is not None:
        found = await find_turn(app.store, owner, head)
        if found is None or found.record.conversation != id_ or not found.record.is_final:
            raise InvalidRequest(
                f"Response with id {head!r} is not a finished part of this conversation.", param="head"
            )
    if project:
        await _check_project(app, owner, project)
    wanted = {"metadata": metadata, "title": title, "head": head, "archived": archived, "pinned": pinned}
    given: dict[str, object] = {name: value for name, value in wanted.items() if value is not None}
    if project is not None:
        given["project"] = project or None

    def apply(body: Document | None) -> Document:
        header = _existing(body, id_)
        if head is not None and header.running is not None:
            raise busy(header)
        is_rewound = header.is_rewound or head not in (None, header.head)
        return touched(header, app.clock.now(), **given, is_rewound=is_rewound).document()

    _, stored = await mutate(app.store, STATE, owner, [], [Change(id_, apply)])
    return ConversationRecord.model_validate(stored[0].body)


async def delete_conversation(app: App, owner: str, id_: str) -> None:
    """The conversation is gone, but can be restored for some days; its responses stay as long."""
    await hide(app.store, app.clock, owner, id_, undo_days=app.settings.data.undo_days)


async def restore_conversation(app: App, owner: str, id_: str) -> ConversationRecord:
    """Bring a deleted conversation back.

    Raises:
        NotFound: it was not deleted, or too long ago.
    """
    return await restore(app.store, app.clock, owner, id_)


async def add_items(app: App, owner: str, id_: str, new: list[InputItem], *, sent: Sent = UNNAMED) -> list[Json]:
    """Append items by hand, as a turn that nobody answers; where `sent` names it, once.

    Raises:
        InvalidRequest: an item is in the conversation already.
        NotFound: there is no such item to refer to.
        Conflict: a response is being made in it.
        Unprocessable: the idempotency key was used for another body.
    """
    token = sent.token(app, owner, "items")
    header: ConversationRecord | None = None
    for _ in range(4):
        known = await find_turn(app.store, owner, f"resp_{token}") if sent.key else None
        if known is not None:
            return sent.same(known.record).input
        items = await resolve_references(app, owner, stored_items(new, token, param="items"), param="items")
        found = await get_conversation(app, owner, id_)
        header = found.record
        if header.running is not None:
            raise busy(header)
        parent = await find_turn(app.store, owner, header.head) if header.head else None
        await _refuse_known(app, owner, header, [item for item in items if turn_of(item["id"]) != token])
        now, before = app.clock.now(), parent.record if parent else None
        turn = _added(header, items, parent=before, now=now, token=token, body_hash=sent.body_hash)
        try:
            await mutate(
                app.store,
                STATE,
                owner,
                [Create(turn.document())],
                [Change(id_, _moving(header, turn, now), known=found.stored, is_known=True)],
            )
        except (HeadMoved, AlreadyExists):  # a twin may have been faster: then it is found
            continue
        return turn.input
    assert header is not None
    raise busy(header)


async def remove_item(app: App, owner: str, id_: str, item_id: str) -> ConversationRecord:
    """Take an item out of a conversation; the response it came from keeps it."""
    header = (await get_conversation(app, owner, id_)).record
    turn, _ = await get_item(app, owner, header, item_id)

    def apply(body: Document | None) -> Document:
        if body is None:
            raise _no_item(item_id)
        record = TurnRecord.model_validate(body)
        return record.model_copy(update={"removed": [*record.removed, item_id]}).document()

    def touch(body: Document | None) -> Document:
        return touched(_existing(body, id_), app.clock.now()).document()

    _, stored = await mutate(app.store, STATE, owner, [], [Change(turn.id, apply), Change(id_, touch)])
    return ConversationRecord.model_validate(stored[1].body)


async def get_item(
    app: App, owner: str, header: ConversationRecord, item_id: str, *, param: str = "item_id"
) -> tuple[TurnRecord, Json]:
    """An item of the conversation and the turn it belongs to; a point read where its id names the turn.

    Raises:
        NotFound: it is not in this conversation.
    """
    token = turn_of(item_id)
    named = await find_turn(app.store, owner, f"resp_{token}") if token else None
    if named is not None and named.record.conversation == header.id:
        item = _item_of(named.record, item_id)
        if item is not None:
            return named.record, item
    head = await find_turn(app.store, owner, header.head) if header.head else None
    seen = 0
    async for turn in walk_back(app.store, owner, header.id, head.record if head else None):
        item = _item_of(turn, item_id)
        if item is not None:
            return turn, item
        seen += 1
        if seen >= LOOK_BACK:
            break
    raise _no_item(item_id, param)


async def list_items(
    app: App, owner: str, id_: str, *, after: str | None, order: Literal["asc", "desc"], limit: int
) -> tuple[list[Json], bool]:
    """One page of the conversation's shown branch.

    Returns:
        The items, and whether there are more.

    Raises:
        NotFound: no such conversation, or `after` is not an item of it.
    """
    header = (await get_conversation(app, owner, id_)).record
    if header.head is None:
        if after is not None:
            raise _no_item(after, "after")
        return [], False
    start = (await get_item(app, owner, header, after, param="after"))[0] if after is not None else None
    walk = _newest_first(app, owner, header, start) if order == "desc" else _oldest_first(app, owner, header, start)
    page: list[Json] = []
    is_behind = after is None
    async for item in walk:
        if is_behind:
            page.append(item)
            if len(page) > limit:
                break
        elif item["id"] == after:
            is_behind = True
    return page[:limit], len(page) > limit


async def _newest_first(
    app: App, owner: str, header: ConversationRecord, start: TurnRecord | None
) -> AsyncIterator[Json]:
    if start is None and header.head is not None:
        found = await find_turn(app.store, owner, header.head)
        start = found.record if found else None
    async for turn in walk_back(app.store, owner, header.id, start):
        for item in reversed(_shown(turn)):
            yield item


async def _oldest_first(
    app: App, owner: str, header: ConversationRecord, start: TurnRecord | None
) -> AsyncIterator[Json]:
    found = await find_turn(app.store, owner, header.head or "")
    if found is None:
        return
    if start is not None:
        for item in _shown(start):
            yield item
    after = start.sort if start else None
    while page := await turns(app.store, owner, header.id, after=after, order="asc"):
        for turn in page:
            if is_on_path(turn, found.record):
                for item in _shown(turn):
                    yield item
        after = page[-1].sort


def _shown(turn: TurnRecord) -> list[Json]:
    """What a turn shows in its conversation: nothing while it runs, nothing when it failed."""
    return turn_items(turn) if turn.is_final and turn.status != "failed" else []


def _item_of(turn: TurnRecord, item_id: str) -> Json | None:
    return next((item for item in _shown(turn) if item["id"] == item_id), None)


def _no_item(item_id: str, param: str = "item_id") -> NotFound:
    return NotFound(f"Item with id {item_id!r} not found.", param=param)


async def _check_project(app: App, owner: str, id_: str) -> None:
    stored = await app.store.read(STATE, owner, id_)
    if stored is None or stored.body.get("kind") != "project":
        raise NotFound(f"Project with id {id_!r} not found.", param="project")


def _existing(body: Document | None, id_: str) -> ConversationRecord:
    if body is None or body.get("kind") != "conversation":
        raise NotFound(f"Conversation with id {id_!r} not found.", param="conversation_id")
    return ConversationRecord.model_validate(body)


def _added(
    header: ConversationRecord,
    items: list[Json],
    *,
    parent: TurnRecord | None,
    now: float,
    token: str,
    body_hash: str | None = None,
) -> TurnRecord:
    depth, branch, lineage = 0, token, list[tuple[str, int]]()
    if parent is not None:
        depth, branch, lineage = parent.depth + 1, parent.branch, parent.lineage
        if header.is_rewound:
            branch, lineage = token, [*lineage, (parent.branch, parent.depth)]
    return TurnRecord(
        id=f"resp_{token}",
        group=header.id,
        sort=sort_key(depth, token),
        depth=depth,
        parent=parent.id if parent else None,
        conversation=header.id,
        branch=branch,
        lineage=lineage,
        surface="items",
        is_stored=False,
        status="completed",
        created_at=now,
        completed_at=now,
        input=items,
        body_hash=body_hash,
        ttl=header.ttl,
    )


def _moving(expected: ConversationRecord, turn: TurnRecord, now: float) -> Any:
    def apply(body: Document | None) -> Document:
        header = _existing(body, expected.id)
        if header.running is not None:
            raise busy(header)
        if header.head != expected.head:
            raise HeadMoved
        return touched(header, now, head=turn.id, is_rewound=False).document()

    return apply


async def _refuse_known(app: App, owner: str, header: ConversationRecord, items: list[Json]) -> None:
    """An item the client numbered itself must be new to the conversation."""
    for item in items:
        try:
            await get_item(app, owner, header, item["id"])
        except NotFound:
            continue
        raise InvalidRequest(f"Item already in conversation: {item['id']!r}.", param="items")
