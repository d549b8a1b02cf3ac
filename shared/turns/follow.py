"""A turn's stream for whoever asks, wherever the turn runs: replay what was journalled, then follow it live."""

import re
from collections.abc import AsyncGenerator

from shared.app import App
from shared.conversations.records import TurnRecord
from shared.conversations.repository import FoundTurn, find_turn
from shared.errors import NotFound, UpstreamError
from shared.turns.events import Batch
from shared.turns.journal import Entry, read_entry, read_tail
from shared.turns.live import LiveTurn
from shared.turns.output import FIRST_SEQUENCE
from shared.turns.queued import Nudges
from shared.turns.replay import ending, middle, opening
from shared.turns.takeover import take_over

POLL_SECONDS = 0.1
"""How often a follower on another host looks for the next batch."""
RECORD_EVERY = 5
"""Polls without a new batch before the record itself is looked at: it may have ended another way."""
_LOOK_AGAIN = (0.05, 0.2)
"""Seconds before an id of our own form that is not found is looked for again."""
_OUR_ID = re.compile(r"resp_[0-9a-f]{32}")
LAG_SECONDS = 3.0
"""How far behind its writer a replica of the journal may be: a record can be read as final before all its batches."""
RECENT_SECONDS = 60.0
"""How long after a turn's end its journal may still be on the way."""


async def get_turn(app: App, owner: str, response_id: str, *, param: str = "response_id") -> FoundTurn:
    """A stored response.

    Raises:
        NotFound: there is none, it is somebody else's, or it was not to be stored.
    """
    found = await find_fresh_turn(app, owner, response_id)
    if found is None or not found.record.is_response:
        raise NotFound(f"Response with id {response_id!r} not found.", param=param)
    return found


async def find_fresh_turn(app: App, owner: str, response_id: str) -> FoundTurn | None:
    """A turn that another host may have accepted a moment ago: a replica that does not show it yet is asked again."""
    found = await find_turn(app.store, owner, response_id)
    for pause in _LOOK_AGAIN if _OUR_ID.fullmatch(response_id) else ():
        if found is not None:
            break
        await app.clock.sleep(pause)
        found = await find_turn(app.store, owner, response_id)
    return found


async def follow(app: App, owner: str, response_id: str, *, after: int = -1) -> AsyncGenerator[Batch]:
    """Every event with a number greater than `after`, until the terminal one.

    Raises:
        NotFound: there is no such response (before the first batch).
    """
    live = app.live.find(owner, response_id)
    if live is None:
        found = await get_turn(app, owner, response_id)
        async for batch in _follow_stored(app, owner, found.record, after):
            yield batch
        return
    async for batch in follow_live(app, owner, live, after=after):
        yield batch


async def follow_live(app: App, owner: str, live: LiveTurn, *, after: int = -1) -> AsyncGenerator[Batch]:
    """A turn that runs here; should it go on elsewhere, so does this stream. Its record is final afterwards."""
    record = live.record
    if live.is_here:
        async for batch in live.follow(after):
            after = batch.last
            yield batch
        if live.record.is_final or not live.record.is_kept:
            return
        found = await find_turn(app.store, owner, live.record.id)
        if found is None:
            raise _deleted(live.record.id)
        record = found.record
    async for batch in _follow_stored(app, owner, record, after):
        yield batch
    await _ended(app, owner, live)


async def _ended(app: App, owner: str, live: LiveTurn) -> None:
    """Of a turn that ended elsewhere, what its followers here ask for."""
    found = await find_turn(app.store, owner, live.record.id)
    live.end(found.record if found is not None else None)
    if live.record.status == "failed" and live.record.error:
        live.error = UpstreamError(live.record.error["message"], code=live.record.error["code"])


async def _follow_stored(app: App, owner: str, turn: TurnRecord, after: int) -> AsyncGenerator[Batch]:
    """By the record and the journal: what is there, then what is appended elsewhere, then the end."""
    first = opening(turn).behind(after)
    if first is not None:
        yield first
        after = first.last
    reader = _Reader(app, owner, turn, after)
    if not turn.is_final:
        async for batch in reader.until_final():
            yield batch
        if not reader.turn.is_final:
            raise _deleted(turn.id)
    if reader.turn.is_final:
        async for batch in reader.to_the_end():
            yield batch


def _deleted(response_id: str) -> NotFound:
    """For who was shown a part of it: a stream must not just stop."""
    return NotFound(f"Response {response_id!r} was deleted.", code="response_deleted")


class _Reader:
    """Follows a journal that another host writes, and takes the turn over when that host falls silent."""

    def __init__(self, app: App, owner: str, turn: TurnRecord, after: int) -> None:
        self._app = app
        self._owner = owner
        self.turn = turn
        """As last read; final when `until_final` has ended, unless it was deleted."""
        self.after = after
        self._number = 0
        self._until = turn.due or 0.0
        self._is_whole = False

    async def until_final(self) -> AsyncGenerator[Batch]:
        async for batch in self._catch_up():
            yield batch
        idle, nudges = 0, Nudges(self._app, self._owner, self.turn)
        while True:
            entry = None if self._is_whole else await read_entry(self._app.store, self.turn.id, self._number + 1)
            if entry is not None:
                idle = 0
                batch = self._take(entry)
                if batch is not None:
                    yield batch
                continue
            idle += 1
            is_silent = self._app.clock.now() > self._until
            if self._is_whole or is_silent or idle % RECORD_EVERY == 0:
                if not await self._look() or self.turn.is_final:
                    return
                if self.turn.status == "queued":
                    await nudges.give(self.turn)
                live = await take_over(self._app, self._owner, self.turn.id) if is_silent else None
                if live is not None:
                    async for batch in live.follow(self.after):
                        self.after = batch.last
                        yield batch
                    # Had another host taken it from this one, the journal goes on where `_number` still stands.
                    self._is_whole = False
                    if not await self._look() or self.turn.is_final:
                        return
            await self._app.clock.sleep(POLL_SECONDS)

    async def to_the_end(self) -> AsyncGenerator[Batch]:
        """Of a final turn: what is left of its journal, or of its items when there is none; then the terminal event."""
        number = FIRST_SEQUENCE if self.turn.next_sequence is None else self.turn.next_sequence
        if self.after >= number:
            return
        if self.turn.is_journalled:
            deadline = self._app.clock.now() + self._patience()
            async for batch in self._catch_up():
                yield batch
            while self.after < number - 1 and self._app.clock.now() < deadline:
                await self._app.clock.sleep(POLL_SECONDS)
                async for batch in self._catch_up():
                    yield batch
        if self.after < number - 1:
            if not self.turn.is_stored and self.turn.is_journalled:
                raise _deleted(self.turn.id)
            whole = middle(self.turn)
            rest = whole.behind(self.after) if whole is not None else None
            if rest is not None:
                yield rest
            number = max(whole.last if whole is not None else FIRST_SEQUENCE - 1, self.after) + 1
        last = ending(self.turn, number=number).behind(self.after)
        if last is not None:
            yield last

    def _patience(self) -> float:
        """Seconds to wait for batches that a replica may not show yet; an old turn's have expired or been deleted."""
        age = self._app.clock.now() - (self.turn.completed_at or 0.0)
        return LAG_SECONDS if age < RECENT_SECONDS else 0.0

    async def _catch_up(self) -> AsyncGenerator[Batch]:
        """What the journal holds beyond what was read of it, at once, up to a gap: the oldest batches expire first."""
        for entry in (await read_tail(self._app.store, self.turn.id)).entries:
            if entry.number <= self._number:
                continue
            if entry.number > self._number + 1:
                return
            batch = self._take(entry)
            if batch is not None:
                yield batch

    async def _look(self) -> bool:
        """Read the record again; False when it is gone."""
        found = await find_turn(self._app.store, self._owner, self.turn.id)
        if found is None:
            return False
        self.turn = found.record
        self._until = max(self._until, self.turn.due or 0.0)
        return True

    def _take(self, entry: Entry) -> Batch | None:
        """Of the next entry, what was not shown yet; None when that is nothing."""
        self._number = entry.number
        self._until = max(self._until, entry.until)
        self._is_whole = entry.outcome is not None
        rest = entry.batch.behind(self.after)
        if rest is not None:
            self.after = rest.last
        return rest


async def finished(app: App, owner: str, live: LiveTurn) -> TurnRecord:
    """The final record of a turn that runs here, or elsewhere."""
    if live.is_here:
        record = await live.finished()
        if record.is_final or not record.is_kept:
            return record
    async for _ in follow_live(app, owner, live):
        pass
    return live.record


async def relay(app: App, owner: str, response_id: str) -> LiveTurn | None:
    """A turn wherever it runs or ran; None when there is no such turn."""
    live = app.live.find(owner, response_id)
    if live is not None:
        return live
    found = await find_fresh_turn(app, owner, response_id)
    if found is None:
        return None
    live = LiveTurn(found.record)
    live.is_here = False
    live.end()
    return live
