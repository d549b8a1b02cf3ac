"""What a unit of work cost: counted where it happens, read where it ends.

A turn opens a tally; whatever it awaits (in the same task or tasks it starts) counts into it.

>>> with Tally() as tally:
...     await store.read(...)
>>> tally.operations, tally.charge
"""

from contextvars import ContextVar, Token
from typing import Self


class Tally:
    """Store operations by name (`read`, `query`, `batch`, …) and their request charge in RU.

    As a context it counts what happens inside; an outer one counts it too.
    """

    __slots__ = ("_parent", "_token", "charge", "counts")

    def __init__(self) -> None:
        self._parent: Tally | None = None
        self.counts: dict[str, int] = {}
        self.charge = 0.0

    def __enter__(self) -> Self:
        self._parent = _current.get()
        self._token: Token[Tally | None] = _current.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        _current.reset(self._token)

    @property
    def operations(self) -> int:
        return sum(self.counts.values())

    def add(self, operation: str, charge: float) -> None:
        self.counts[operation] = self.counts.get(operation, 0) + 1
        self.charge += charge
        if self._parent is not None:
            self._parent.add(operation, charge)


_current: ContextVar[Tally | None] = ContextVar("tally", default=None)


def count(operation: str, charge: float) -> None:
    """Adapters call this once per round trip, with the request charge the store reported."""
    tally = _current.get()
    if tally is not None:
        tally.add(operation, charge)
