"""Telling the workers of background turns that may run: when they are accepted, and again when nothing comes of it."""

from contextlib import suppress

from shared.app import App
from shared.conversations.records import TurnRecord
from shared.errors import StorageUnavailable
from shared.jobs.base import TURNS, TURNS_LOW, QueueName
from shared.storage.base import STATE
from shared.usage.records import UsageRecord

NUDGE_SECONDS = 2.0
"""How long a turn that may run is queued before its followers have it sent again; then twice as long, and so on."""


async def send_turn(app: App, owner: str, turn: str, *, tier: str) -> None:
    """Tell the workers of a background turn that may run. Should that fail, the recovery timer finds the turn."""
    queue: QueueName = TURNS_LOW if tier == "flex" else TURNS
    await app.queue.send(queue, {"owner": owner, "turn": turn})


async def nudge(app: App, owner: str, turn: TurnRecord) -> None:
    """Its message may have died with a worker, or never have been sent: tell them again, if it is not just in line."""
    with suppress(StorageUnavailable):
        stored = await app.store.read(STATE, owner, turn.usage_id)
        if stored is not None and turn.id in UsageRecord.model_validate(stored.body).background:
            await send_turn(app, owner, turn.id, tier=turn.params["service_tier"])


class Nudges:
    """Of one follower: less and less often."""

    def __init__(self, app: App, owner: str, turn: TurnRecord) -> None:
        self._app = app
        self._owner = owner
        self._pause = NUDGE_SECONDS
        self._due = turn.created_at + self._pause

    async def give(self, turn: TurnRecord) -> None:
        """To a turn that is queued, when it is time."""
        now = self._app.clock.now()
        if now >= self._due:
            self._pause *= 2
            self._due = now + self._pause
            await nudge(self._app, self._owner, turn)
