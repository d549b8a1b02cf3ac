"""Stored chat completions: turns of the older surface that their caller asked to keep (`store: true`).

They share one group, ordered by the time they were made, so that listing them is a query of one partition.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from shared.conversations.records import CHATS, TurnRecord, tombstone
from shared.conversations.repository import FoundTurn, find_turn, removal_of, turns
from shared.errors import NotFound
from shared.storage.base import EVENTS, STATE, Document, Missing, Store, Upsert
from shared.storage.mutate import Change, mutate

PREFIX = "chatcmpl-"


def completion_id(turn: TurnRecord) -> str:
    """`chatcmpl-<token>`: how the older surface names the turn `resp_<token>`."""
    return PREFIX + turn.token


async def get_chat(store: Store, owner: str, id_: str, *, param: str = "completion_id") -> FoundTurn:
    """A stored completion by its `chatcmpl-…` id.

    Raises:
        NotFound: there is none, it is somebody else's, it was not to be stored, or it came to nothing.
    """
    found = await find_turn(store, owner, _record_id(id_)) if id_.startswith(PREFIX) else None
    if found is None or not _is_shown(found.record):
        raise _no_chat(id_, param)
    return found


class ChatPage(NamedTuple):
    records: list[TurnRecord]
    has_more: bool


async def list_chats(
    store: Store,
    owner: str,
    *,
    after: str | None,
    limit: int,
    order: Literal["asc", "desc"],
    model: str | None,
    metadata: Mapping[str, str],
) -> ChatPage:
    """One page by time; `model` and `metadata` leave out what differs.

    Raises:
        NotFound: `after` is no stored completion.
    """
    place = (await get_chat(store, owner, after, param="after")).record.sort if after else None
    records: list[TurnRecord] = []
    while len(records) <= limit:
        page = await turns(store, owner, CHATS, after=place, order=order, limit=limit + 1)
        records += [
            turn
            for turn in page
            if _is_shown(turn)
            and model in (None, turn.params["model"])
            and metadata.items() <= turn.params["metadata"].items()
        ]
        if len(page) <= limit:
            break
        place = page[-1].sort
    return ChatPage(records[:limit], len(records) > limit)


async def update_chat(store: Store, owner: str, id_: str, *, metadata: dict[str, str]) -> TurnRecord:
    """Put other metadata in the place of a stored completion's.

    Raises:
        NotFound: there is no such completion.
    """

    def apply(body: Document | None) -> Document:
        turn = TurnRecord.model_validate(body) if body and body.get("kind") == "turn" else None
        if turn is None or not _is_shown(turn):
            raise _no_chat(id_)
        return turn.model_copy(update={"params": {**turn.params, "metadata": metadata}}).document()

    await get_chat(store, owner, id_)
    _, stored = await mutate(store, STATE, owner, [], [Change(_record_id(id_), apply)])
    return TurnRecord.model_validate(stored[0].body)


async def delete_chat(store: Store, owner: str, id_: str, *, now: float) -> None:
    """The record and its journal are gone: nothing builds on a chat completion.

    Raises:
        NotFound: there is no such completion.
    """
    found = await get_chat(store, owner, id_)
    try:
        gone = Upsert(tombstone(found.record.id, "turn", now))
        await store.batch(STATE, owner, [removal_of(found.record), gone])
    except Missing:
        raise _no_chat(id_) from None
    await store.erase(EVENTS, found.record.id)


def _is_shown(turn: TurnRecord) -> bool:
    """Whether there is a completion to show: none while it is made, and none of a turn that failed."""
    return turn.surface == "chat" and turn.is_stored and turn.status in ("completed", "incomplete")


def _record_id(id_: str) -> str:
    return f"resp_{id_.removeprefix(PREFIX)}"


def _no_chat(id_: str, param: str = "completion_id") -> NotFound:
    return NotFound(f"Chat completion with id {id_!r} not found.", param=param)
