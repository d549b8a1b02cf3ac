"""Turns that begin together go from stage to stage together.

The way to a first token runs through more code than a processor's cache holds. One turn after the other would load all
of it anew for each; stage after stage, what is loaded for one serves all that have come as far: cohort scheduling
(Larus and Parkes, "Using Cohort Scheduling to Enhance Server Performance", 2002). Who is alone goes straight on.
"""

import types
from collections.abc import Generator
from contextvars import ContextVar


class Beginning:
    """How many turns of this process have been let in, and neither accepted nor given up."""

    count = 0


goes_along: ContextVar[bool] = ContextVar("goes_along", default=False)
"""Whether the turn that is begun here waits for others at its stages; the gate decides."""


@types.coroutine
def stage() -> Generator[None]:
    """End a stage: the turns that are as far do theirs before this one goes on."""
    if Beginning.count > 1 and goes_along.get():
        yield
