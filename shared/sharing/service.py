"""Share links: a read-only snapshot of a conversation's shown branch for whoever has the link, until it is revoked.

The snapshot has what was said and nothing else: no ids, no owner, no metadata, no instructions, no tool calls.
"""

from contextlib import suppress
from typing import Any, Literal

import orjson

from shared.app import App
from shared.conversations.deletion import leave_tombstone
from shared.conversations.records import header_sort
from shared.conversations.service import get_conversation, list_items
from shared.errors import InvalidRequest, NotFound
from shared.sharing.records import ShareEntry, ShareRecord
from shared.storage.base import DIRECTORY, STATE, AlreadyExists, Create, Delete, Missing, Query

type Json = dict[str, Any]

MAX_ITEMS = 2000
_PAGE = 200


async def create_share(app: App, owner: str, conversation: str) -> ShareRecord:
    """A new link to what the conversation shows now.

    Raises:
        NotFound: there is no such conversation.
        InvalidRequest: it is temporary, empty, or too long.
    """
    header = (await get_conversation(app, owner, conversation, param="conversation")).record
    if header.is_temporary:
        raise InvalidRequest("A temporary conversation cannot be shared.", param="conversation")
    said = [shown for item in await _items(app, owner, conversation) if (shown := _shown(item))]
    if not said:
        raise InvalidRequest("There is nothing in this conversation to share.", param="conversation")
    token, now = app.ids.token(), app.clock.now()
    id_ = f"share_{token}"
    record = ShareRecord(
        id=id_,
        group=conversation,
        sort=header_sort(now, token),
        title=header.title,
        items=len(said),
        created_at=now,
    )
    snapshot = {
        "id": id_,
        "object": "shared_conversation",
        "title": header.title,
        "created_at": int(now),
        "items": said,
    }
    await app.blobs.put(owner, id_, orjson.dumps(snapshot), content_type="application/json")
    try:
        await app.store.batch(STATE, owner, [Create(record.document())])
    except AlreadyExists:  # an earlier try of this very request, which may not have come far
        record = await get_share(app, owner, id_)
    with suppress(AlreadyExists):
        await app.store.batch(DIRECTORY, id_, [Create(ShareEntry(id=id_, owner=owner).document())])
    try:
        await get_conversation(app, owner, conversation, param="conversation")
    except NotFound:
        await _withdraw(app, owner, record)
        raise
    return record


async def read_shared(app: App, id_: str) -> Json:
    """What a link shows to anybody. Raises `NotFound`: no such link, or no longer."""
    stored = await app.store.read(DIRECTORY, id_, id_) if _is_id(id_) else None
    blob = None
    if stored is not None and stored.body.get("kind") == "share_entry":
        blob = await app.blobs.get(stored.body["owner"], id_)
    if blob is None:
        raise NotFound(f"Share with id {id_!r} not found.", param="share_id")
    return orjson.loads(blob[0])


async def get_share(app: App, owner: str, id_: str, *, param: str = "share_id") -> ShareRecord:
    """Raises `NotFound`."""
    stored = await app.store.read(STATE, owner, id_)
    if stored is None or stored.body.get("kind") != "share":
        raise NotFound(f"Share with id {id_!r} not found.", param=param)
    return ShareRecord.model_validate(stored.body)


async def list_shares(
    app: App,
    owner: str,
    *,
    after: str | None = None,
    limit: int = 100,
    order: Literal["asc", "desc"] = "desc",
    conversation: str | None = None,
) -> tuple[list[ShareRecord], bool]:
    """By time; `after` is an id."""
    sort = (await get_share(app, owner, after, param="after")).sort if after else None
    query = Query(kind="share", group=conversation, after=sort, order=order, limit=limit + 1)
    found = [ShareRecord.model_validate(each.body) for each in await app.store.query(STATE, owner, query)]
    return found[:limit], len(found) > limit


async def revoke_share(app: App, owner: str, id_: str) -> None:
    """From now on the link shows nothing. Raises `NotFound`."""
    await get_share(app, owner, id_)
    await _close(app, owner, id_)
    await leave_tombstone(app.store, owner, id_, "share", app.clock.now())


async def _close(app: App, owner: str, id_: str) -> None:
    with suppress(Missing):  # an earlier try came so far
        await app.store.batch(DIRECTORY, id_, [Delete(id_)])
    await app.blobs.delete(owner, id_)


async def _withdraw(app: App, owner: str, share: ShareRecord) -> None:
    """A link whose conversation went while it was made, with the links that were there by then."""
    read, id_ = app.store.read, share.id
    entry = await read(DIRECTORY, id_, id_)
    if entry is not None and entry.body["owner"] != owner:
        return  # of a guest who signed in: it went along, and leads to the account's
    await _close(app, owner, id_)
    if await read(STATE, owner, share.group) or await read(STATE, owner, f"gone_{share.group}"):
        await leave_tombstone(app.store, owner, id_, "share", app.clock.now())
    else:  # erased: what told of it would be left of its owner
        with suppress(Missing):
            await app.store.batch(STATE, owner, [Delete(id_)])


async def revoke_shares_of(app: App, owner: str, conversation: str) -> None:
    """Every link to a conversation."""
    while found := (await list_shares(app, owner, conversation=conversation))[0]:
        for share in found:
            await revoke_share(app, owner, share.id)


def _is_id(id_: str) -> bool:
    token = id_.removeprefix("share_")
    return id_.startswith("share_") and len(token) == 32 and token.isascii() and token.isalnum()


async def _items(app: App, owner: str, conversation: str) -> list[Json]:
    items: list[Json] = []
    after, has_more = None, True
    while has_more:
        page, has_more = await list_items(app, owner, conversation, after=after, order="asc", limit=_PAGE)
        items += page
        after = page[-1]["id"] if page else None
        if len(items) > MAX_ITEMS:
            raise InvalidRequest(f"A conversation of more than {MAX_ITEMS} items cannot be shared.")
    return items


def _shown(item: Json) -> Json | None:
    """Role and text of what a person or the model said; None for everything else."""
    if item.get("type") != "message" or item["role"] not in ("user", "assistant"):
        return None
    texts = [
        part.get("text") or part.get("refusal") or ""
        for part in item["content"]
        if part.get("type") in ("input_text", "output_text", "refusal")
    ]
    text = "\n".join(filter(None, texts))
    return {"role": item["role"], "text": text} if text else None
