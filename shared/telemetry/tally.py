"""What a unit of work cost: counted where it happens, read where it ends.

A turn opens a tally; whatever it awaits (in the same task or tasks it starts) counts into it.

>>> with tallied() as tally:
...     await store.read(...)
>>> tally.operations, tally.charge
"""

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar


class Tally:
    """Store operations by name (`read`, `query`, `batch`, …) and their request charge in RU."""

    __slots__ = ("_parent", "charge", "counts")

    def __init__(self, parent: "Tally | None" = None) -> None:
        self._parent = parent
        self.counts: Counter[str] = Counter()
        self.charge = 0.0

    @property
    def operations(self) -> int:
        return sum(self.counts.values())

    def add(self, operation: str, charge: float) -> None:
        self.counts[operation] += 1
        self.charge += charge
        if self._parent is not None:
            self._parent.add(operation, charge)


_current: ContextVar[Tally | None] = ContextVar("tally", default=None)


def count(operation: str, charge: float) -> None:
    """Adapters call this once per round trip, with the request charge the store reported."""
    tally = _current.get()
    if tally is not None:
        tally.add(operation, charge)


@contextmanager
def tallied() -> Generator[Tally]:
    """Count what happens inside; an outer tally counts it too."""
    tally = Tally(_current.get())
    token = _current.set(tally)
    try:
        yield tally
    finally:
        _current.reset(token)
