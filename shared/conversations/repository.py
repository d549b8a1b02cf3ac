"""How conversations and turns are stored and found; every query of theirs is here, and every one names an owner."""

from collections.abc import AsyncGenerator
from typing import Literal, NamedTuple

from shared.conversations.records import ConversationRecord, TurnRecord
from shared.storage.base import STATE, Delete, Operation, Query, Store, Stored, Upsert
from shared.storage.large import SPENT

PAGE = 40
"""Turns read at a time when walking a thread."""
SPENT_SECONDS = 86_400
"""How long the key of a deleted turn stays taken."""


class FoundTurn(NamedTuple):
    record: TurnRecord
    etag: str


class FoundConversation(NamedTuple):
    record: ConversationRecord
    stored: Stored


async def find_turn(store: Store, owner: str, id_: str) -> FoundTurn | None:
    stored = await store.read(STATE, owner, id_)
    if stored is None or stored.body.get("kind") != "turn":
        return None
    return FoundTurn(TurnRecord.model_validate(stored.body), stored.etag)


async def find_conversation(store: Store, owner: str, id_: str) -> FoundConversation | None:
    stored = await store.read(STATE, owner, id_)
    if stored is None or stored.body.get("kind") != "conversation":
        return None
    return FoundConversation(ConversationRecord.model_validate(stored.body), stored)


async def conversations(
    store: Store, owner: str, *, after: str | None, limit: int, order: Literal["asc", "desc"] = "desc"
) -> list[ConversationRecord]:
    """Headers by time of last change."""
    found = await store.query(STATE, owner, Query(kind="conversation", after=after, order=order, limit=limit))
    return [ConversationRecord.model_validate(stored.body) for stored in found]


async def turns(
    store: Store,
    owner: str,
    group: str,
    *,
    after: str | None = None,
    order: Literal["asc", "desc"] = "desc",
    limit: int = PAGE,
) -> list[TurnRecord]:
    """Turns of a thread, of every branch and fork, by depth."""
    found = await store.query(STATE, owner, Query(kind="turn", group=group, after=after, order=order, limit=limit))
    return [TurnRecord.model_validate(stored.body) for stored in found]


async def turns_of(
    store: Store, owner: str, id_: str, *, after: str | None, order: Literal["asc", "desc"], limit: int
) -> list[TurnRecord]:
    """Turns of a conversation, of every branch, by depth. Forks are in its thread, but no part of it."""
    found: list[TurnRecord] = []
    size = limit
    while len(found) < limit:
        page = await turns(store, owner, id_, after=after, order=order, limit=size)
        found += [turn for turn in page if turn.conversation == id_]
        if len(page) < size:
            break
        after = page[-1].sort
        size = max(limit, PAGE)  # a first page with forks in it is followed by whole ones
    return found[:limit]


def follow_path(newest: list[TurnRecord], head: str | None) -> tuple[list[TurnRecord], str | None]:
    """Of turns newest first, those on the way from `head` to the root, newest first; and which one is missing next."""
    path: list[TurnRecord] = []
    wanted = head
    for turn in newest:
        if turn.id == wanted:
            path.append(turn)
            wanted = turn.parent
    return path, wanted


async def walk_back(
    store: Store, owner: str, group: str, head: TurnRecord | None, *, limit: int = PAGE
) -> AsyncGenerator[TurnRecord]:
    """The turns from `head` to the root, newest first, read `limit` at a time as far as the caller goes."""
    if head is None:
        return
    yield head
    wanted, after = head.parent, head.sort
    while wanted is not None:
        page = await turns(store, owner, group, after=after, limit=limit)
        if not page:
            return
        limit = max(limit, PAGE)  # a first page that was not enough is followed by whole ones
        path, wanted = follow_path(page, wanted)
        for turn in path:
            yield turn
        after = page[-1].sort


def is_on_path(turn: TurnRecord, head: TurnRecord) -> bool:
    """Whether a conversation's turn lies between the root and `head`, told from the two alone."""
    if turn.conversation != head.conversation or turn.depth > head.depth:
        return False
    if turn.branch == head.branch:
        return True
    return any(turn.branch == branch and turn.depth <= depth for branch, depth in head.lineage)


def removal_of(record: TurnRecord) -> Operation:
    """A turn that was sent with a key leaves its id taken: a late retry of that send must not make it anew."""
    if record.send_key is None:
        return Delete(record.id)
    return Upsert({"id": record.id, "kind": SPENT, "ttl": SPENT_SECONDS})
