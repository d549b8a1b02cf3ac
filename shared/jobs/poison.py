"""Messages whose work fails again and again: parked, with a reason, where a person finds them."""

from typing import Literal

from shared.errors import AssistantError
from shared.jobs.base import Json, Queue, QueueName

_POISON: dict[str, QueueName] = {"turns": "turns-poison", "turns-low": "turns-low-poison", "jobs": "jobs-poison"}


async def park(
    queue: Queue, name: Literal["turns", "turns-low", "jobs"], body: Json, *, tries: int, reason: str
) -> None:
    """The message, with why it is there, in the queue that nothing is triggered by."""
    await queue.send(_POISON[name], {**body, "tries": tries, "reason": reason})


def reason_of(failure: Exception) -> str:
    """A sentence without anybody's content: a bug's own message may quote what it stumbled over."""
    return failure.message if isinstance(failure, AssistantError) else f"The work failed with {type(failure).__name__}."
