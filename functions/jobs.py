"""Work that no client waits for: the queue trigger that runs background turns, the timer that finds what was left."""

import json
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import azure.functions as func

from functions._edge import current_app

# Each loads its own part when it runs: a cold start that serves a request needs none of them.
# ruff: noqa: PLC0415

blueprint = func.Blueprint()

log = logging.getLogger("companion.jobs")

type Work = Callable[[dict[str, Any]], Awaitable[None]]
type WorkQueue = Literal["turns", "turns-low", "jobs"]


@blueprint.queue_trigger(  # pyright: ignore[reportUnknownMemberType] - the SDK leaves **kwargs untyped
    arg_name="message", queue_name="turns", connection="AzureWebJobsStorage"
)
async def run_turn(message: func.QueueMessage) -> None:
    """A background turn may run: run it to its end. Safe to be told twice, or late."""
    await _tried(message, "turns", _run)


@blueprint.queue_trigger(  # pyright: ignore[reportUnknownMemberType]
    arg_name="message", queue_name="turns-low", connection="AzureWebJobsStorage"
)
async def run_turn_low(message: func.QueueMessage) -> None:
    """The same for turns of the `flex` tier."""
    await _tried(message, "turns-low", _run)


@blueprint.queue_trigger(  # pyright: ignore[reportUnknownMemberType]
    arg_name="message", queue_name="jobs", connection="AzureWebJobsStorage"
)
async def run_data_job(message: func.QueueMessage) -> None:
    """An export, an import or an erasure may run. Safe to be told twice, or late."""
    await _tried(message, "jobs", _run_data_job)


@blueprint.timer_trigger(arg_name="timer", schedule="30 */10 * * * *", use_monitor=False)
async def keep_promises(timer: func.TimerRequest) -> None:
    """Every ten minutes: data jobs whose worker died, deleted conversations to purge, retention, adopted guests."""
    from shared.adoption.service import finish_adoptions
    from shared.privacy.service import run_due

    del timer
    app = current_app()
    await run_due(app)
    await finish_adoptions(app)


@blueprint.timer_trigger(arg_name="timer", schedule="0 * * * * *", use_monitor=False)
async def recover_turns(timer: func.TimerRequest) -> None:
    """Every minute: take over turns whose process died, send background turns again whose message was lost.

    A client that resumes takes a turn over at once; this is for the turns that nobody is waiting for.
    """
    from shared.turns.recovery import recover

    del timer
    await recover(current_app())


async def _tried(message: func.QueueMessage, queue: WorkQueue, work: Work) -> None:
    """The work of a message; when it has failed too often, the message is parked with the reason."""
    from shared.errors import StorageUnavailable
    from shared.jobs.base import TRIES
    from shared.jobs.poison import park, reason_of

    body: dict[str, Any] = json.loads(message.get_body())
    _measure_age(message)
    try:
        await work(body)
    except Exception as failure:
        tries = message.dequeue_count or 1
        if tries < TRIES:
            raise
        log.exception("message.parked", extra={"queue": queue, "tries": tries})
        app, reason = current_app(), reason_of(failure)
        if work is _run and not isinstance(failure, StorageUnavailable):  # then the timer finds it, in better times
            from shared.turns.takeover import give_up

            await give_up(app, body["owner"], body["turn"], reason)
        await park(app.queue, queue, body, tries=tries, reason=reason)


def _measure_age(message: func.QueueMessage) -> None:
    from shared.telemetry import names
    from shared.telemetry.signals import signals

    if message.insertion_time is not None:
        signals.measure(names.QUEUE_AGE, max(0.0, time.time() - message.insertion_time.timestamp()))


async def _run(body: dict[str, Any]) -> None:
    from shared.turns.takeover import run_queued

    live = await run_queued(current_app(), body["owner"], body["turn"])
    if live is not None:
        await live.finished()


async def _run_data_job(body: dict[str, Any]) -> None:
    from shared.privacy.service import run_message

    await run_message(current_app(), body)
