"""A turn's stream for whoever asks, wherever the turn runs: replay what was journalled, then follow it live."""

from collections.abc import AsyncGenerator

from shared.app import App
from shared.conversations.records import TurnRecord
from shared.conversations.repository import FoundTurn, find_turn
from shared.errors import NotFound
from shared.turns.events import Batch
from shared.turns.journal import Tail, read_entry, read_tail
from shared.turns.live import LiveTurn
from shared.turns.replay import ending, middle, opening

POLL_SECONDS = 0.1
"""How often a follower on another host looks for the next batch."""
RECORD_EVERY = 5
"""Polls without a new batch before the record itself is looked at: it may have ended another way."""


async def get_turn(app: App, owner: str, response_id: str) -> FoundTurn:
    """A stored response.

    Raises:
        NotFound: there is none, it is somebody else's, or it was not to be stored.
    """
    found = await find_turn(app.store, owner, response_id)
    if found is None or not found.record.is_stored or found.record.surface == "items":
        raise NotFound(f"Response with id {response_id!r} not found.", param="response_id")
    return found


async def follow(app: App, owner: str, response_id: str, *, after: int = -1) -> AsyncGenerator[Batch]:
    """Every event with a number greater than `after`, until the terminal one.

    Raises:
        NotFound: there is no such response (before the first batch).
    """
    live = app.live.find(owner, response_id)
    if live is not None:
        async for batch in follow_live(app, owner, live, after=after):
            yield batch
        return
    found = await get_turn(app, owner, response_id)
    async for batch in _follow_stored(app, owner, found.record, after):
        yield batch


async def follow_live(app: App, owner: str, live: LiveTurn, *, after: int = -1) -> AsyncGenerator[Batch]:
    """A turn that runs here; should it go on elsewhere, so does this stream."""
    async for batch in live.follow(after):
        after = batch.last
        yield batch
    if live.record.is_final or not live.record.is_kept:
        return
    found = await find_turn(app.store, owner, live.record.id)
    if found is not None:
        async for batch in _follow_stored(app, owner, found.record, after):
            yield batch


async def _follow_stored(app: App, owner: str, turn: TurnRecord, after: int) -> AsyncGenerator[Batch]:
    first = opening(turn).behind(after)
    if first is not None:
        yield first
    tail = await read_tail(app.store, turn.id)
    if turn.is_final and tail.next_sequence is None:
        whole = middle(turn)
        rest = whole.behind(after) if whole is not None else None
        if rest is not None:
            yield rest
    for entry in tail.entries:
        rest = entry.batch.behind(after)
        if rest is not None:
            yield rest
    if not turn.is_final:
        async for batch in _poll(app, owner, turn, tail, after):
            if batch.last >= batch.first:
                yield batch
        found = await find_turn(app.store, owner, turn.id)
        if found is None or not found.record.is_final:
            return
        turn = found.record
    last = ending(turn).behind(after)
    if last is not None:
        yield last


async def _poll(app: App, owner: str, turn: TurnRecord, tail: Tail, after: int) -> AsyncGenerator[Batch]:
    """New batches as they are appended elsewhere, until the record is final."""
    number, idle, is_closed = tail.number, 0, tail.is_closed
    while True:
        entry = None if is_closed else await read_entry(app.store, turn.id, number + 1)
        if entry is not None:
            number, idle, is_closed = entry.number, 0, entry.is_closing
            rest = entry.batch.behind(after)
            if rest is not None:
                yield rest
            continue
        idle += 1
        if is_closed or idle % RECORD_EVERY == 0:
            found = await find_turn(app.store, owner, turn.id)
            if found is None:
                return
            if found.record.is_final:
                async for batch in _rest(app, turn.id, number, after):
                    yield batch
                return
        await app.clock.sleep(POLL_SECONDS)


async def _rest(app: App, response_id: str, number: int, after: int) -> AsyncGenerator[Batch]:
    """What was appended between the last look at the journal and the commit."""
    while (entry := await read_entry(app.store, response_id, number + 1)) is not None:
        number = entry.number
        rest = entry.batch.behind(after)
        if rest is not None:
            yield rest


async def finished(app: App, owner: str, live: LiveTurn) -> TurnRecord:
    """The final record of a turn that runs here, or has gone on elsewhere."""
    record = await live.finished()
    if record.is_final or not record.is_kept:
        return record
    async for _ in follow_live(app, owner, live):
        pass
    found = await find_turn(app.store, owner, record.id)
    return found.record if found is not None else record
