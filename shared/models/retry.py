"""When a failed call is made again, and how long to wait before."""

import random

from shared.errors import AssistantError, ModelTimeout, ModelUnavailable, RateLimited, UpstreamError

MOST_TRIES = 3
TRIES_IN_BAD_LUCK = 5
"""Where most of the last calls succeeded: this failure is bad luck, not an outage. With three calls in ten failing,
three tries would leave three turns in a hundred without an answer."""
FIRST_WAIT = 0.1
LONGEST_WAIT = 2.0
LONGEST_RETRY_AFTER = 5.0
"""A server that asks for more patience than this gets it from the client, who is told."""
BUDGET_SHARE = 0.1
BUDGET_START = 10.0
BUDGET_OF_PLACES = 0.25
"""At least this share of the turns that a host takes on at a time: what is retried just now was not in vain yet."""


def is_retryable(error: AssistantError) -> bool:
    """Whether the same request can succeed elsewhere or later."""
    return isinstance(error, RateLimited | UpstreamError | ModelUnavailable | ModelTimeout)


def wait_before(retry: int, asked: float | None) -> float | None:
    """Seconds to wait before the retry of this number (from 0) on the same deployment; None: not worth waiting.

    Full jitter: anything up to a ceiling that doubles, so that clients do not come back in step.
    """
    jitter = random.uniform(0, min(LONGEST_WAIT, FIRST_WAIT * 2**retry))  # noqa: S311 - jitter, not a secret
    if asked is None:
        return jitter
    return None if asked > LONGEST_RETRY_AFTER else asked + jitter


class RetryBudget:
    """How many calls in vain this host may add: one for ten first calls, whatever fails.

    A retry that helps gives back what it took. So bad luck is always retried, while an outage is not made worse.

    >>> budget = RetryBudget(start=1)
    >>> budget.take(), budget.take()
    (True, False)
    """

    __slots__ = ("_left", "_most")

    def __init__(self, start: float = BUDGET_START) -> None:
        self._left = start
        self._most = start

    def first_call(self) -> None:
        self._left = min(self._most, self._left + BUDGET_SHARE)

    @property
    def is_spent(self) -> bool:
        return self._left < 1

    def take(self) -> bool:
        if self.is_spent:
            return False
        self._left -= 1
        return True

    def helped(self, retries: int = 1) -> None:
        self._left = min(self._most, self._left + retries)
