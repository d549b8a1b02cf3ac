"""Work that no client waits for: the queue trigger that runs background turns, the timer that finds what was left."""

import json
import time

import azure.functions as func

from functions._edge import current_app

# Each loads its own part when it runs: a cold start that serves a request needs none of them.
# ruff: noqa: PLC0415

blueprint = func.Blueprint()


@blueprint.queue_trigger(  # pyright: ignore[reportUnknownMemberType] - the SDK leaves **kwargs untyped
    arg_name="message", queue_name="turns", connection="AzureWebJobsStorage"
)
async def run_turn(message: func.QueueMessage) -> None:
    """A background turn may run: run it to its end. Safe to be told twice, or late."""
    await _run(message)


@blueprint.queue_trigger(  # pyright: ignore[reportUnknownMemberType]
    arg_name="message", queue_name="turns-low", connection="AzureWebJobsStorage"
)
async def run_turn_low(message: func.QueueMessage) -> None:
    """The same for turns of the `flex` tier."""
    await _run(message)


@blueprint.queue_trigger(  # pyright: ignore[reportUnknownMemberType]
    arg_name="message", queue_name="jobs", connection="AzureWebJobsStorage"
)
async def run_data_job(message: func.QueueMessage) -> None:
    """An export, an import or an erasure may run. Safe to be told twice, or late."""
    from shared.privacy.service import run_message

    await run_message(current_app(), json.loads(message.get_body()))


@blueprint.timer_trigger(arg_name="timer", schedule="30 */5 * * * *", use_monitor=False)
async def keep_promises(timer: func.TimerRequest) -> None:
    """Every five minutes: data jobs whose worker died, deleted conversations to purge, retention, adopted guests."""
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


async def _run(message: func.QueueMessage) -> None:
    from shared.telemetry import names
    from shared.telemetry.signals import signals
    from shared.turns.takeover import run_queued

    body = json.loads(message.get_body())
    if message.insertion_time is not None:
        signals.measure(names.QUEUE_AGE, max(0.0, time.time() - message.insertion_time.timestamp()))
    live = await run_queued(current_app(), body["owner"], body["turn"])
    if live is not None:
        await live.finished()
