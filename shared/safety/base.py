"""The ports of safety: what checks a turn's input, its answer and what tools gave; and what judges content.

A turn sees only `Guardrails` (guard.py), which asks each configured guardrail in turn. Without one it is None, and
nothing stands in a turn's way.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

type Json = dict[str, Any]

CATEGORIES = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/intent",
    "self-harm/instructions",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)
"""Of OpenAI's moderation; every judgement has a score for each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """One thing to judge: text, or images, or both together."""

    text: str = ""
    images: tuple[str, ...] = ()
    """URLs; `data:` URLs too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What a moderator thinks of one content."""

    flagged: frozenset[str] = frozenset()
    """Categories that are violated."""
    scores: dict[str, float] = field(default_factory=dict[str, float])
    """0 to 1; a category that is not named scores 0."""
    inputs: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    """Category to the kinds of input (`text`, `image`) it was judged by."""


class Moderator(Protocol):
    """Judges content."""

    model: str
    """What `POST /v1/moderations` says judged."""

    async def judge(self, contents: Sequence[Content]) -> list[Judgement]:
        """One judgement for each, in order.

        Raises:
            AssistantError: the service refuses, fails or cannot be reached.
        """
        ...

    async def find_attack(self, text: str) -> bool:
        """Whether a text from outside tries to take over the conversation; False where this moderator has no idea."""
        ...

    async def close(self) -> None: ...


class Blocked(Exception):
    """A guardrail does not let this through; `reason` is one plain sentence for the caller."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class TextFilter(Protocol):
    """Changes the text of one part of an answer as it streams. What it gives back, joined, is what is shown.

    Where a pattern may be about to begin, the end of the text is held back until that is known.
    """

    findings: list[str]

    def feed(self, text: str) -> str:
        """Raises `Blocked`."""
        ...

    def finish(self) -> str:
        """What was held back. Raises `Blocked`."""
        ...


class Guardrail(Protocol):
    """One kind of check. Each method raises `Blocked`, or an `AssistantError` when it cannot tell."""

    judges_output: bool
    """Whether `check_output` has anything to say."""

    async def check_input(self, content: Content) -> None: ...

    def text_filter(self) -> TextFilter | None:
        """A filter for one part of an answer; None: this guardrail does not change text."""
        ...

    async def check_output(self, text: str) -> None:
        """A stretch of an answer, with some of what came before it; may have been shown already."""
        ...

    async def check_tool_output(self, text: str) -> str:
        """What the model may see of it."""
        ...

    async def close(self) -> None: ...
