"""What a turn sees of safety: its guardrails as one, around the input, around the model's stream, around each tool."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from shared.errors import AssistantError, ContentBlocked
from shared.models.base import (
    Finished,
    ItemDone,
    ItemStarted,
    ModelEvent,
    ReasoningDelta,
    SummaryDelta,
    TextDelta,
)
from shared.safety.base import Blocked, Content, Guardrail, TextFilter
from shared.tools.registry import ServerTool, ToolFailed

type Json = dict[str, Any]
type Spoken = TextDelta | SummaryDelta | ReasoningDelta

log = logging.getLogger("companion.safety")

STRETCH = 1000
"""Characters of an answer that are judged at a time, beside the stream."""
OVERLAP = 200
"""Characters judged once more with the next stretch: what matters may lie on the border."""


class Guardrails:
    """Every configured guardrail, in the order of the setting."""

    def __init__(self, guardrails: Sequence[Guardrail]) -> None:
        self._guardrails = tuple(guardrails)

    async def check_input(self, items: list[Json]) -> None:
        """Before any model sees them.

        Raises:
            ContentBlocked: a guardrail refuses them.
            AssistantError: one cannot tell; then nothing is let through.
        """
        content = content_of(items)
        if not content.text and not content.images:
            return
        checks = [asyncio.ensure_future(guardrail.check_input(content)) for guardrail in self._guardrails]
        try:
            await asyncio.gather(*checks)
        except Blocked as blocked:
            log.info("safety.input_blocked", extra={"reason": blocked.reason})
            raise ContentBlocked(blocked.reason, param="input") from None
        finally:
            for check in checks:
                check.cancel()

    async def guard(
        self, events: AsyncIterator[ModelEvent], tell: Callable[[str], None] = lambda finding: None
    ) -> AsyncGenerator[ModelEvent]:
        """The same stream, filtered; one that is blocked ends as the protocol says: incomplete, `content_filter`.

        `tell` hears of everything that was found.
        """
        speech = _Speech(self._guardrails)
        watch = _Watch(self._guardrails)
        try:
            async for event in events:
                for passed in speech.passed(event):
                    if isinstance(passed, TextDelta):
                        watch.saw(passed.text)
                    elif isinstance(passed, Finished):
                        await watch.finish()
                        self._tell(speech, tell)
                    yield passed
                watch.check()
        except Blocked as blocked:
            log.info("safety.output_blocked", extra={"reason": blocked.reason})
            self._tell(speech, tell, blocked.reason)
            yield Finished(usage=None, incomplete="content_filter")
        finally:
            await watch.stop()
            aclose: Callable[[], Awaitable[None]] | None = getattr(events, "aclose", None)
            if aclose is not None:
                await aclose()

    @staticmethod
    def _tell(speech: "_Speech", tell: Callable[[str], None], *more: str) -> None:
        if speech.findings:
            log.info("safety.found", extra={"findings": speech.findings})
        for finding in dict.fromkeys([*speech.findings, *more]):
            tell(finding)

    def tools(self, offered: dict[str, ServerTool]) -> dict[str, ServerTool]:
        """The same tools, whose outputs are checked before a model sees them."""
        return {name: replace(tool, call=self._checked(tool)) for name, tool in offered.items()}

    async def close(self) -> None:
        for guardrail in self._guardrails:
            await guardrail.close()

    def _checked(self, tool: ServerTool) -> Callable[[Json], Awaitable[str]]:
        async def call(arguments: Json) -> str:
            text = await tool.call(arguments)
            try:
                for guardrail in self._guardrails:
                    text = await guardrail.check_tool_output(text)
            except Blocked as blocked:
                log.info("safety.tool_blocked", extra={"tool": tool.name, "reason": blocked.reason})
                raise ToolFailed(f"The output was withheld: {blocked.reason}") from None
            except AssistantError as error:
                raise ToolFailed("The output was withheld: it could not be checked.") from error
            return text

        return call


def content_of(items: list[Json]) -> Content:
    """Text and images of what a client sent; what it claims the assistant said is left out."""
    texts: list[str] = []
    images: list[str] = []
    for item in items:
        if item.get("role") == "assistant":
            continue
        parts: Any = item.get("content") if item.get("type") == "message" else item.get("output")
        if isinstance(parts, str):
            texts.append(parts)
        elif isinstance(parts, list):
            texts += [part["text"] for part in parts if part.get("text")]  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
            images += [part["image_url"] for part in parts if part.get("image_url")]  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    return Content(text="\n".join(texts), images=tuple(images))


class _Channel:
    """One part of an answer on its way through every filter."""

    def __init__(self, filters: list[TextFilter]) -> None:
        self._filters = filters
        self._waiting = ""
        """Fed, and not given back yet."""
        self._logprobs: list[Json] = []
        self._is_changed = False
        self.last: Spoken | None = None

    def feed(self, event: Spoken) -> Spoken | None:
        self.last = event
        self._waiting += event.text
        self._logprobs += getattr(event, "logprobs", None) or []
        text = event.text
        for filter_ in self._filters:
            text = filter_.feed(text)
        return self._told(event, text)

    def finish(self) -> Spoken | None:
        text = ""
        for filter_ in self._filters:
            text = (filter_.feed(text) if text else "") + filter_.finish()
        return self._told(self.last, text) if self.last is not None else None

    def _told(self, event: Spoken, text: str) -> Spoken | None:
        """The event with the text that is let go. Its token probabilities go along only where nothing was changed:
        they would tell what was taken out."""
        self._is_changed = self._is_changed or not self._waiting.startswith(text)
        self._waiting = self._waiting[len(text) :]
        if not text:
            return None
        if not isinstance(event, TextDelta):
            return replace(event, text=text)
        logprobs: list[Json] = []
        if not self._waiting and not self._is_changed:
            logprobs, self._logprobs = self._logprobs, []
        return replace(event, text=text, logprobs=logprobs or None)


class _Speech:
    """Texts of one model call, each part through filters of its own."""

    def __init__(self, guardrails: Sequence[Guardrail]) -> None:
        self._guardrails = guardrails
        self._open: dict[int, tuple[tuple[object, ...], _Channel]] = {}
        self._filters: list[TextFilter] = []

    @property
    def findings(self) -> list[str]:
        return [finding for filter_ in self._filters for finding in filter_.findings]

    def passed(self, event: ModelEvent) -> Iterator[ModelEvent]:
        """What may go on now that this came. Raises `Blocked`."""
        if isinstance(event, TextDelta | SummaryDelta | ReasoningDelta):
            yield from self._spoken(event)
            return
        if isinstance(event, Finished):
            for key in list(self._open):
                yield from self._finish(key)
        elif isinstance(event, ItemDone) or (not isinstance(event, ItemStarted) and event.key in self._open):
            yield from self._finish(event.key)
        yield event

    def _spoken(self, event: Spoken) -> Iterator[ModelEvent]:
        part = (type(event), getattr(event, "index", 0))
        known = self._open.get(event.key)
        if known is None or known[0] != part:
            yield from self._finish(event.key)
            known = self._open[event.key] = (part, self._channel())
        told = known[1].feed(event)
        if told is not None:
            yield told

    def _finish(self, key: int) -> Iterator[ModelEvent]:
        known = self._open.pop(key, None)
        told = known[1].finish() if known is not None else None
        if told is not None:
            yield told

    def _channel(self) -> _Channel:
        filters = [made for guardrail in self._guardrails if (made := guardrail.text_filter()) is not None]
        self._filters += filters
        return _Channel(filters)


class _Watch:
    """Judges an answer stretch by stretch, beside the stream; the end waits for the last judgement."""

    def __init__(self, guardrails: Sequence[Guardrail]) -> None:
        self._guardrails = [guardrail for guardrail in guardrails if guardrail.judges_output]
        self._text = ""
        self._judged = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def saw(self, text: str) -> None:
        if not self._guardrails:
            return
        self._text += text
        if len(self._text) - self._judged >= STRETCH:
            self._judge()

    def check(self) -> None:
        """Raises what a judgement that has come in meanwhile says."""
        for task in [task for task in self._tasks if task.done()]:
            self._tasks.discard(task)
            task.result()

    async def finish(self) -> None:
        """Wait for every judgement; raises what they say."""
        if self._guardrails and len(self._text) > self._judged:
            self._judge()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self.check()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _judge(self) -> None:
        stretch = self._text[max(0, self._judged - OVERLAP) :]
        self._judged = len(self._text)
        self._tasks |= {asyncio.create_task(guardrail.check_output(stretch)) for guardrail in self._guardrails}
