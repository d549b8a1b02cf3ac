"""The test double of a model: says exactly what it was given, and fails a test that asks for more or for less.

>>> model = ScriptedModel([says("Hello"), [RateLimited("slow down")]])
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence

from shared.errors import AssistantError
from shared.models.base import (
    ArgumentsDelta,
    Finished,
    ItemDone,
    ItemStarted,
    ModelEvent,
    ModelRequest,
    TextDelta,
    Usage,
)

type Step = Sequence[ModelEvent | AssistantError | float]
"""What one call does: say an event, raise an error, or wait so many seconds."""

USAGE = Usage(input_tokens=10, output_tokens=5)


class ScriptedModel:
    """One step per call, in order. `requests` holds what was asked."""

    def __init__(self, steps: Sequence[Step] = ()) -> None:
        self._steps = list(steps)
        self.requests: list[ModelRequest] = []
        self.closed_early = 0
        """Calls whose iterator was closed before its end."""

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent]:
        """See `Model`.

        Raises:
            AssertionError: no step is left for this call.
        """
        self.requests.append(request)
        assert self._steps, f"call {len(self.requests)} was not scripted"
        step = self._steps.pop(0)
        is_over = False
        try:
            for act in step:
                if isinstance(act, AssistantError):
                    is_over = True
                    raise act
                if isinstance(act, int | float):
                    await asyncio.sleep(act)
                    continue
                is_over = type(act) is Finished
                yield act
        finally:
            self.closed_early += not is_over

    async def close(self) -> None:
        """
        Raises:
            AssertionError: steps are left over.
        """
        assert not self._steps, f"{len(self._steps)} scripted steps were never asked for"


def says(*pieces: str, usage: Usage | None = USAGE) -> list[ModelEvent | AssistantError | float]:
    """A step: one message, a delta for each piece."""
    deltas = [TextDelta(0, piece) for piece in pieces]
    return [ItemStarted(0, "message"), *deltas, ItemDone(0), Finished(usage=usage, model="scripted")]


def calls(*asked: tuple[str, str], usage: Usage | None = USAGE) -> list[ModelEvent | AssistantError | float]:
    """A step: function calls, `(name, arguments)` each, with call ids `call_0`, `call_1`, …"""
    step: list[ModelEvent | AssistantError | float] = []
    for key, (name, arguments) in enumerate(asked):
        step += [ItemStarted(key, "function_call", name, f"call_{key}"), ArgumentsDelta(key, arguments), ItemDone(key)]
    return [*step, Finished(usage=usage, model="scripted")]
