"""How long a call may say nothing before it is given up for another: judged by calls alike that were answered.

A server that hangs looks like one that thinks. What tells them apart is what is usual of this deployment for calls of
about this size and effort; without enough of those, nothing is given up early.
"""

from bisect import bisect_left, insort
from collections import deque

from shared.models.base import ModelRequest

type Kind = tuple[str, bool, int]

KEPT = 100
ENOUGH = 20
"""Answers of a kind from which they say what is usual."""
MOST_KINDS = 64
TIMES_FIRST = 3
TIMES_SILENCE = 2
"""What is usual, so many times over, is too long where another call would be made."""
LEAST_AT_LAST = 60.0
"""Seconds that a call is waited for at least where no other would be made."""
LEAST_FIRST = 0.5
LEAST_SILENCE = 0.75
"""Seconds; below these no evidence goes: a network that hiccups is no server that hangs."""
_USUAL = 0.95


def kind_of(request: ModelRequest) -> Kind:
    """Calls alike: the same effort, with tools or without (some servers hold a tool call back until it is whole), and
    of the same size within a factor of four."""
    effort: str = (request.reasoning or {}).get("effort") or ""
    return effort, bool(request.tools), request.tokens.bit_length() // 2


class Usual:
    """What is usual of one deployment, as one host has seen it lately. All times are seconds.

    >>> usual, kind = Usual(), ("", False, 4)
    >>> for _ in range(ENOUGH):
    ...     usual.began(kind, 0.5)
    >>> usual.first(kind), usual.first(kind, tries=2), usual.first(kind, is_last=True), usual.silence(kind)
    (1.5, 3.0, 60.0, None)
    """

    __slots__ = ("_firsts", "_silences")

    def __init__(self) -> None:
        self._firsts: dict[Kind, _Seen] = {}
        self._silences: dict[Kind, _Seen] = {}

    def began(self, kind: Kind, seconds: float) -> None:
        """A call said its first word after so long."""
        _note(self._firsts, kind, seconds)

    def ended(self, kind: Kind, longest_silence: float) -> None:
        """A call was answered whole; so long did it say nothing in the middle."""
        _note(self._silences, kind, longest_silence)

    def lost(self, kind: Kind) -> None:
        """A call was given up: what is known counts for less. Where all are given up, soon nothing is known, and the
        next are waited for: a server may have become slower."""
        for seen in (self._firsts.get(kind), self._silences.get(kind)):
            if seen is not None and seen.by_size:
                seen.forget_oldest()

    def first(self, kind: Kind, *, tries: int = 1, is_last: bool = False) -> float | None:
        """Until the first word, by what nineteen in twenty took; twice as long at each further try."""
        seen = self._firsts.get(kind)
        if seen is None or len(seen.by_size) < ENOUGH:
            return None
        most = seen.by_size[int(len(seen.by_size) * _USUAL) - 1]
        seconds = max(LEAST_FIRST, TIMES_FIRST * most) * 2 ** (tries - 1)
        return max(LEAST_AT_LAST, seconds) if is_last else seconds

    def silence(self, kind: Kind, *, is_last: bool = False) -> float | None:
        """In the middle, by the longest of any: what was shown by then is lost."""
        seen = self._silences.get(kind)
        if seen is None or len(seen.by_size) < ENOUGH:
            return None
        return max(LEAST_AT_LAST if is_last else LEAST_SILENCE, TIMES_SILENCE * seen.by_size[-1])


class _Seen:
    """The last `KEPT` times of a kind, in the order they came and sorted: every call asks for the longest of them."""

    __slots__ = ("_in_order", "by_size")

    def __init__(self) -> None:
        self._in_order: deque[float] = deque()
        self.by_size: list[float] = []

    def add(self, seconds: float) -> None:
        if len(self._in_order) == KEPT:
            self.forget_oldest()
        self._in_order.append(seconds)
        insort(self.by_size, seconds)

    def forget_oldest(self) -> None:
        del self.by_size[bisect_left(self.by_size, self._in_order.popleft())]


def _note(seen: dict[Kind, _Seen], kind: Kind, seconds: float) -> None:
    if kind not in seen:
        while len(seen) >= MOST_KINDS:
            del seen[next(iter(seen))]
        seen[kind] = _Seen()
    seen[kind].add(seconds)
