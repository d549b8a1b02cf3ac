"""A circuit breaker: stops asking a deployment that does not answer, and finds out by itself when it does again.

closed ──(failures in a row, or most of the last seconds' calls)──► open ──(a pause)──► half-open: one call is let
through; it decides: closed again, or open for longer.

Judged by this host's own calls alone: hosts share nothing, so one that cannot reach a server stops asking it while
others go on.
"""

import random
from collections import deque
from typing import Literal

type State = Literal["closed", "half_open", "open"]
STATES = ("closed", "half_open", "open")

FAILURES_IN_A_ROW = 10
"""When three calls in ten fail for no reason, ten in a row happen once in more than a hundred thousand calls."""
WINDOW_SECONDS = 5.0
LEAST_CALLS = 20
"""Calls in the window before their share of failures says anything."""
FAILED_SHARE = 0.75
LEAST_SECONDS = 1.0
"""Failures that all came within less are one hiccup, of the network or of this host, and no outage."""
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 5.0
"""Seconds; so a deployment that is back is asked again within ten, jitter included."""


class Breaker:
    """Times are seconds of any steady clock; the caller brings them."""

    __slots__ = ("_calls", "_failed", "_in_a_row", "_is_probing", "_pause", "_row_began", "_until", "state")

    def __init__(self) -> None:
        self.state: State = "closed"
        self._calls: deque[tuple[float, bool]] = deque()
        self._failed = 0
        self._in_a_row = 0
        self._row_began = 0.0
        self._pause = FIRST_PAUSE
        self._until = 0.0
        self._is_probing = False

    def allows(self, now: float) -> bool:
        """Whether a call may be made now; ask `begin` when it is made."""
        if self.state == "closed":
            return True
        return now >= self._until and not self._is_probing

    def begin(self) -> None:
        """A call begins: in an open circuit, it is the probe."""
        if self.state != "closed":
            self.state = "half_open"
            self._is_probing = True

    def succeeded(self, now: float) -> None:
        if self.state != "closed":
            self._close()
        self._in_a_row = 0
        self._note(now, failed=False)

    def failed(self, now: float) -> None:
        if not self._in_a_row:
            self._row_began = now
        self._in_a_row += 1
        self._note(now, failed=True)
        if self.state == "half_open":
            self._is_probing = False
            self._pause = min(LONGEST_PAUSE, self._pause * 2)
            self._open(now)
        elif self.state == "closed" and self._is_failing(now):
            self._open(now)

    def let_go(self) -> None:
        """A call ended without evidence (its caller left): another may be the probe."""
        self._is_probing = False

    def retry_after(self, now: float) -> float:
        """Seconds until a call may be let through."""
        return max(0.0, self._until - now) if self.state != "closed" else 0.0

    def share_of_successes(self, now: float) -> float | None:
        """Of the last seconds' calls; None when they are too few to tell."""
        self._forget(now)
        count = len(self._calls)
        return 1 - self._failed / count if count >= LEAST_CALLS else None

    def _is_failing(self, now: float) -> bool:
        if self._in_a_row >= FAILURES_IN_A_ROW and now - self._row_began >= LEAST_SECONDS:
            return True
        count = len(self._calls)
        is_long = count > 0 and now - self._calls[0][0] >= LEAST_SECONDS
        return is_long and count >= LEAST_CALLS and self._failed >= FAILED_SHARE * count

    def _open(self, now: float) -> None:
        self.state = "open"
        self._until = now + self._pause * random.uniform(0.8, 1.2)  # noqa: S311 - hosts should not probe in step

    def _close(self) -> None:
        self.state = "closed"
        self._pause = FIRST_PAUSE
        self._is_probing = False
        self._calls.clear()
        self._failed = 0

    def _note(self, now: float, *, failed: bool) -> None:
        self._calls.append((now, failed))
        self._failed += failed
        self._forget(now)

    def _forget(self, now: float) -> None:
        calls = self._calls
        while calls and calls[0][0] < now - WINDOW_SECONDS:
            self._failed -= calls.popleft()[1]
