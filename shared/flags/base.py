"""The port to feature flags: which variant of a flag a caller gets. Decided in memory; no turn waits for it.

Flags that Companion itself asks for:

    prompt.NAME    variants whose value is a version: that version of the prompt instead of the current one
    model.NAME     variants whose value is a model: that model's route instead, under the name that was asked for
    titles         off: no titles are made
"""

from dataclasses import dataclass
from typing import Any, Protocol

from shared.principal import Principal


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a caller got: the variant's name (`on` or `off` where the flag has no variants) and its value."""

    variant: str
    value: Any = None

    @property
    def text(self) -> str | None:
        """The value, where it is a text."""
        return self.value if isinstance(self.value, str) else None


class Flags(Protocol):
    """Feature flags.

    The same caller gets the same variant until the flag is changed; a change is seen within a minute.
    """

    async def fresh(self) -> None:
        """Make sure that what is known is not old; returns at once nearly always, and never raises."""
        ...

    def assign(self, flag: str, caller: Principal) -> Assignment | None:
        """None when there is no such flag."""
        ...

    async def close(self) -> None: ...


class NoFlags:
    """No flag is set."""

    async def fresh(self) -> None:
        return None

    def assign(self, flag: str, caller: Principal) -> Assignment | None:
        del flag, caller
        return None

    async def close(self) -> None:
        return None
