"""Finding what was left behind: turns whose lease has run out, background turns whose message was lost."""

import asyncio
import logging

from shared.app import App
from shared.conversations.records import TurnRecord
from shared.conversations.repository import FoundTurn
from shared.storage.base import STATE, Due
from shared.storage.mutate import Change, mutate
from shared.storage.overdue import overdue
from shared.turns.live import LiveTurn
from shared.turns.prepare import QUEUED_SECONDS
from shared.turns.queued import send_turn
from shared.turns.takeover import take_over
from shared.usage import meter
from shared.usage.records import UsageRecord

log = logging.getLogger("companion.turns")

GRACE_SECONDS = 3.0
"""How long after its lease a turn is left to a client that may be resuming it."""
AT_ONCE = 16


async def recover(app: App) -> int:
    """Take over turns that nobody runs any more, and send background turns to the workers again.

    Waits until the turns it took over have ended, so that the instance lives as long.

    Returns:
        How many turns were taken over or sent again.
    """
    # Turns that live are among them, for they renew their lease in the journal.
    found = await overdue(app.store, STATE, "turn", before=app.clock.now() - GRACE_SECONDS)
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(due: Due) -> bool:
        async with gate:
            try:
                return await _recover_one(app, due)
            except Exception:  # the worker of many turns: what one of them hits must not keep it from the others
                log.warning("recovery.failed", extra={"response_id": due.stored.body["id"]}, exc_info=True)
                return False

    return sum(await asyncio.gather(*(one(due) for due in found)))


async def _recover_one(app: App, due: Due) -> bool:
    turn = TurnRecord.model_validate(due.stored.body)
    if turn.status == "queued":
        return await _send_again(app, due.partition, FoundTurn(turn, due.stored.etag))
    live: LiveTurn | None = app.live.find(due.partition, turn.id)
    if live is not None:
        return False
    live = await take_over(app, due.partition, turn.id)
    if live is None:
        return False
    await live.finished()
    return True


class _NotQueued(Exception):
    """A worker took the turn, or its owner ended or deleted it, since it was found: it must get no slot any more."""


async def _send_again(app: App, owner: str, found: FoundTurn) -> bool:
    """A queued turn is overdue: give it a slot if there is one, and tell the workers; look again later."""
    turn, slots = found.record, app.settings.turn.background_slots
    may_run = False

    def admit(body: dict[str, object] | None) -> dict[str, object]:
        nonlocal may_run
        usage = UsageRecord.of(body) if body else meter.fresh(turn.usage_id)
        if turn.id not in usage.background and turn.id not in usage.waiting:
            usage = meter.enter_background(usage, turn.id, slots=slots)
        elif turn.id in usage.waiting and len(usage.background) < slots:
            usage, _ = meter.leave_background(usage, turn.id, slots=0)
            usage = usage.model_copy(update={"background": [*usage.background, turn.id]})
        may_run = turn.id in usage.background
        return usage.document()

    def later(body: dict[str, object] | None) -> dict[str, object]:
        if body is None or body.get("status") != "queued":
            raise _NotQueued
        return {**body, "due": app.clock.now() + QUEUED_SECONDS}

    try:
        await mutate(app.store, STATE, owner, [], [Change(turn.id, later), Change(turn.usage_id, admit)])
    except _NotQueued:
        return False
    if may_run:
        await send_turn(app, owner, turn.id, tier=turn.params["service_tier"])
    return may_run
