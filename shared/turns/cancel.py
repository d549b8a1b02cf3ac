"""Ending a turn early, from any host; and deleting a response."""

from contextlib import suppress

from shared.app import App
from shared.conversations.deletion import leave_tombstone
from shared.conversations.records import TurnRecord, tombstone
from shared.conversations.repository import find_turn, removal_of, turns
from shared.errors import Conflict, NotFound
from shared.models.base import Usage
from shared.storage.base import STATE, Document, Missing, Upsert
from shared.storage.mutate import Change, mutate
from shared.turns.context import estimate_tokens
from shared.turns.follow import get_turn
from shared.turns.journal import Fenced, scrub
from shared.turns.ledger import TurnTaken
from shared.turns.run import estimated_usage, usage_body
from shared.turns.takeover import Claimed, claim

_TRIES = 10


async def cancel_turn(app: App, owner: str, response_id: str) -> TurnRecord:
    """End a running turn `cancelled`, keeping what was shown; a final one is returned as it is.

    Raises:
        NotFound: there is no such response.
    """
    live = app.live.find(owner, response_id)
    if live is None or not live.record.is_response:
        await get_turn(app, owner, response_id)
    return await end_turn(app, owner, response_id)


async def end_turn(app: App, owner: str, response_id: str) -> TurnRecord:
    """The same for a turn of any surface, be it to be retrieved or not.

    Raises:
        NotFound: there is no such turn.
    """
    for _ in range(_TRIES):
        live = app.live.find(owner, response_id)
        if live is not None:
            live.cancel()
            record = await live.finished()
            if record.is_final:
                return record
        found = await find_turn(app.store, owner, response_id)
        if found is None:
            raise NotFound(f"Response with id {response_id!r} not found.", param="response_id")
        if found.record.is_final:
            return found.record
        claimed = await claim(app, owner, found, note=None)
        if claimed is None:
            continue
        try:
            return await _end(app, owner, claimed)
        except (TurnTaken, Fenced):
            continue  # another host took it meanwhile, or ended it
    raise Conflict(f"Response {response_id!r} is changing hands; try again.", retry_after=1)


async def _end(app: App, owner: str, claimed: Claimed) -> TurnRecord:
    """Close what is open, commit, show the end to whoever follows. What was never begun has used nothing."""
    run = claimed.run(app, owner)
    outcome = claimed.tail.outcome
    if outcome is None:
        run.close_items()
        tokens = Usage()
        if claimed.was_begun:
            tokens = estimated_usage(estimate_tokens(claimed.turn.input), run.output.items)
        outcome = {"status": "cancelled", "usage": usage_body(tokens)}
        await run.writer.flush(outcome=outcome)
    await run.commit(outcome)
    return run.live.record


async def delete_turn(app: App, owner: str, response_id: str) -> None:
    """The response is gone; what was built on it is not.

    Where later turns (or a conversation) still need its items, they stay, out of reach of its id; else nothing stays.

    Raises:
        NotFound: there is no such response.
    """
    record = (await get_turn(app, owner, response_id)).record
    if not record.is_final:
        record = await cancel_turn(app, owner, response_id)
    # Events first: while the record is there, a delete that was cut off can be sent again.
    await scrub(app.store, response_id)
    now, is_told = app.clock.now(), record.ttl is None
    await leave_tombstone(app.store, owner, f"feedback_{record.token}", "feedback", now, is_told=is_told)
    gone = Upsert(tombstone(record.id, "turn", now, is_told=is_told))
    with suppress(Missing, _Gone):  # deleted by another request meanwhile: gone is gone
        if record.conversation is not None:
            await mutate(app.store, STATE, owner, [], [Change(response_id, _hide)])
        elif await _has_children(app, owner, record):
            await mutate(app.store, STATE, owner, [gone], [Change(response_id, _hide)])
        else:
            await app.store.batch(STATE, owner, [removal_of(record), gone])


class _Gone(Exception):
    """There is no such turn any more."""


def _hide(body: Document | None) -> Document:
    if body is None or body.get("kind") != "turn":
        raise _Gone
    return TurnRecord.model_validate(body).model_copy(update={"is_stored": False}).document()


async def _has_children(app: App, owner: str, record: TurnRecord) -> bool:
    """Children are one deeper, so they come right behind their parent's siblings."""
    after = record.sort
    while page := await turns(app.store, owner, record.group, after=after, order="asc"):
        if any(turn.parent == record.id for turn in page):
            return True
        if page[-1].depth > record.depth + 1:
            return False
        after = page[-1].sort
    return False
