"""Work that no client waits for: the queue trigger that runs background turns, the timer that finds what was left."""

import json

import azure.functions as func

from functions._edge import current_app
from shared.turns.recovery import recover
from shared.turns.takeover import run_queued

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


@blueprint.timer_trigger(arg_name="timer", schedule="0 * * * * *", use_monitor=False)
async def recover_turns(timer: func.TimerRequest) -> None:
    """Every minute: take over turns whose process died, send background turns again whose message was lost.

    A client that resumes takes a turn over at once; this is for the turns that nobody is waiting for.
    """
    del timer
    await recover(current_app())


async def _run(message: func.QueueMessage) -> None:
    body = json.loads(message.get_body())
    live = await run_queued(current_app(), body["owner"], body["turn"])
    if live is not None:
        await live.finished()
