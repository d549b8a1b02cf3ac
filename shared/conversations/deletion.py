"""Deleting a conversation: hidden at once, restorable for some days, then gone with its turns and their journals."""

import asyncio
from contextlib import suppress

from shared.clock import Clock
from shared.conversations.records import DELETED, ConversationRecord, TurnRecord, tombstone
from shared.conversations.repository import find_turn, turns
from shared.errors import NotFound
from shared.storage.base import EVENTS, STATE, Delete, Document, Missing, Query, Replace, Stale, Store, Upsert
from shared.storage.mutate import Change, mutate

_BATCH = 90
_WAIT = 3600.0
"""Seconds until a purge that met a running turn is tried again."""


async def hide(store: Store, clock: Clock, owner: str, id_: str, *, undo_days: float) -> None:
    """Delete, so that `restore` can bring it back for so many days; with none, it is purged now.

    Raises:
        NotFound: there is no such conversation.
    """
    now = clock.now()

    def apply(body: Document | None) -> Document:
        if body is None or body.get("kind") != "conversation":
            raise _missing(id_)
        changes = {"kind": DELETED, "deleted_at": now, "due": now + undo_days * 86_400}
        return ConversationRecord.model_validate(body).model_copy(update=changes).document()

    await mutate(store, STATE, owner, [], [Change(id_, apply)])
    if not undo_days:
        await purge(store, clock, owner, id_)


async def restore(store: Store, clock: Clock, owner: str, id_: str) -> ConversationRecord:
    """Bring a deleted conversation back, as it was.

    Raises:
        NotFound: it was not deleted, or is gone for good.
    """
    stored = await store.read(STATE, owner, id_)
    running = stored.body.get("running") if stored else None
    ended = await _ended(store, owner, running)

    def show(body: Document | None) -> Document:
        if body is None or body.get("kind") != DELETED or body.get("purged_at") is not None:
            raise _missing(id_)
        header = ConversationRecord.model_validate(body)
        changes: Document = {"kind": "conversation", "deleted_at": None, "due": None}
        return header.model_copy(update=changes | (ended if header.running == running else {})).document()

    def let_go(body: Document | None) -> Document:
        if body is None or body.get("kind") != "conversation":
            raise _missing(id_)
        header = ConversationRecord.model_validate(body)
        return header.model_copy(update=ended if header.running == running else {}).document()

    _, (shown,) = await mutate(store, STATE, owner, [], [Change(id_, show)])
    # One that ended since it was looked at did not find the conversation, and would hold it for ever.
    if shown.body.get("running") == running and (ended := await _ended(store, owner, running)):
        _, (shown,) = await mutate(store, STATE, owner, [], [Change(id_, let_go)])
    return ConversationRecord.model_validate(shown.body)


async def _ended(store: Store, owner: str, running: str | None) -> Document:
    """What the end of this turn changes in the header that it holds; nothing while it runs."""
    turn = await find_turn(store, owner, running) if running else None
    if running is None or (turn is not None and not turn.record.is_final):
        return {}
    if turn is None or turn.record.status == "failed":
        return {"running": None}
    return {"running": None, "head": running, "is_rewound": False}


async def purge(store: Store, clock: Clock, owner: str, id_: str) -> bool:
    """Remove a hidden conversation with everything that is part of it. Safe to repeat, and to break off.

    Forks (`previous_response_id`) are no part of it, and stay (docs/adr/0004). So does, out of reach of its id, what
    they go on from: as with a response that is deleted while others are built on it.

    Returns:
        False when a response is still being made in it: try again later.
    """

    def seal(body: Document | None) -> Document:
        if body is None or body.get("kind") != DELETED:
            raise _missing(id_)
        return ConversationRecord.model_validate(body).model_copy(update={"purged_at": clock.now()}).document()

    try:
        _, (sealed,) = await mutate(store, STATE, owner, [], [Change(id_, seal)])
    except NotFound:
        return True  # purged by another, or restored meanwhile
    after: str | None = None
    needed = set[str | None]()
    now, is_told = clock.now(), "ttl" not in sealed.body
    while page := await turns(store, owner, id_, after=after, limit=_BATCH):
        if any(turn.conversation == id_ and not turn.is_final for turn in page):
            with suppress(Stale, Missing):
                await store.batch(STATE, owner, [Replace({**sealed.body, "due": clock.now() + _WAIT}, sealed.etag)])
            return False
        for turn in page:  # deepest first: a fork comes before what it goes on from
            if turn.id in needed or (turn.conversation != id_ and turn.is_stored):
                needed.add(turn.parent)
        own = [turn for turn in page if turn.conversation == id_]
        kept = [turn.id for turn in own if turn.id in needed]
        gone = [turn.id for turn in own if turn.id not in needed]
        await _leave_to_forks(store, owner, kept, now=now, is_told=is_told)
        await remove_turns(store, owner, gone, now=now, is_told=is_told)
        after = page[-1].sort
    while found := await store.query(STATE, owner, Query(kind="feedback", group=id_, limit=_BATCH)):
        await remove(store, owner, [each.body["id"] for each in found], "feedback", now=now, is_told=is_told)
    try:
        end = tombstone(id_, "conversation", now, is_told=is_told)
        await store.batch(STATE, owner, [Delete(id_, sealed.etag), Upsert(end)])
    except (Stale, Missing):
        return False
    return True


async def _leave_to_forks(store: Store, owner: str, ids: list[str], *, now: float, is_told: bool) -> None:
    """Turns of a conversation that is purged, on which forks are built: no longer its part, no longer responses."""

    def leave(body: Document | None) -> Document:
        if body is None or body.get("kind") != "turn":
            raise NotFound("It is gone already.")
        changes: Document = {"conversation": None, "is_stored": False}
        return TurnRecord.model_validate(body).model_copy(update=changes).document()

    async def change(id_: str) -> None:
        gone = Upsert(tombstone(id_, "turn", now, is_told=is_told))
        with suppress(NotFound):
            await mutate(store, STATE, owner, [gone], [Change(id_, leave)])

    await asyncio.gather(*(store.erase(EVENTS, id_) for id_ in ids))
    await asyncio.gather(*map(change, ids))


async def remove_turns(store: Store, owner: str, ids: list[str], *, now: float, is_told: bool = True) -> None:
    """Turns and their journals; the journals first, which nothing else would lead to."""
    await asyncio.gather(*(store.erase(EVENTS, id_) for id_ in ids))
    await remove(store, owner, ids, "turn", now=now, is_told=is_told)


async def remove(store: Store, owner: str, ids: list[str], of: str, *, now: float, is_told: bool = True) -> None:
    """Delete what is there of these records, all of one kind, and leave their tombstones."""
    for start in range(0, len(ids), _BATCH // 2):
        some = ids[start : start + _BATCH // 2]
        gone = [Upsert(tombstone(id_, of, now, is_told=is_told)) for id_ in some]
        try:
            await store.batch(STATE, owner, [*(Delete(id_) for id_ in some), *gone])
        except Missing:
            for id_ in some:
                await leave_tombstone(store, owner, id_, of, now, is_told=is_told)


async def leave_tombstone(store: Store, owner: str, id_: str, of: str, now: float, *, is_told: bool = True) -> None:
    """Delete a record so that whoever synchronises hears of it. Safe to repeat."""
    try:
        await store.batch(STATE, owner, [Delete(id_), Upsert(tombstone(id_, of, now, is_told=is_told))])
    except Missing:
        return


def _missing(id_: str) -> NotFound:
    return NotFound(f"Conversation with id {id_!r} not found.", param="conversation_id")
