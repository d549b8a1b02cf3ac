"""A model whose every word tells which call said it, so that two answers spliced together show.

What it does is asked for in the last words of the user:

    say 6            six words, "3.0 3.1 … 3.5" in the world's third call
    think 4          a reasoning summary, then four words
    use NAME         a call of that tool; once its output is there, four words
    limit 5          five words, then its limit
    fail             an error before the first word
    break            two words, then an error
"""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shared.errors import UpstreamError
from shared.models.base import (
    SUMMARY_INSTRUCTIONS,
    TITLE_INSTRUCTIONS,
    ArgumentsDelta,
    Finished,
    ItemDone,
    ItemStarted,
    Json,
    ModelEvent,
    ModelRequest,
    SummaryDelta,
    TextDelta,
    Usage,
)
from tests.sim.hosts import Host

if TYPE_CHECKING:
    from tests.sim.world import World

WORD_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Asked:
    """One call of the model, as it came."""

    number: int
    host: str
    request: ModelRequest


class SimModel:
    """One host's way to the model; each event is a point where the host may die."""

    def __init__(self, world: "World", host: Host) -> None:
        self._world = world
        self._host = host

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent]:
        self._host.point("model.stream before")
        number = self._world.asked_model(self._host, request)
        await asyncio.sleep(WORD_SECONDS * self._world.chance.choice(self._world.paces))
        for event in _answer(number, request):
            if isinstance(event, UpstreamError):
                raise event
            self._host.point(f"model.{type(event).__name__} before")
            yield event
            self._host.point(f"model.{type(event).__name__} after")
            await asyncio.sleep(WORD_SECONDS * self._world.chance.choice(self._world.paces))

    async def close(self) -> None:
        """Nothing is open."""


def _answer(number: int, request: ModelRequest) -> list[ModelEvent | UpstreamError]:
    given = Usage(input_tokens=10 * len(request.items))
    if request.instructions == TITLE_INSTRUCTIONS:
        return [*_says([f"Title {number}"]), Finished(usage=given + Usage(output_tokens=2), model="sim")]
    if request.instructions == SUMMARY_INSTRUCTIONS:
        return [*_says([f"Summary {number}"]), Finished(usage=given + Usage(output_tokens=3), model="sim")]
    verb, _, rest = _wish(request.items).partition(" ")
    match verb:
        case "use" if not _is_served(request.items):
            events = _calls(number, rest.split())
            return [*events, Finished(usage=given + Usage(output_tokens=5), model="sim")]
        case "think":
            thoughts: list[ModelEvent] = [
                ItemStarted(0, "reasoning"),
                SummaryDelta(0, 0, f"{number}.t0 "),
                SummaryDelta(0, 0, f"{number}.t1"),
                ItemDone(0),
            ]
            words = _words(number, int(rest))
            usage = given + Usage(output_tokens=len(words), reasoning_tokens=2)
            return [*thoughts, *_says(words, key=1), Finished(usage=usage, model="sim")]
        case "limit":
            words = _words(number, int(rest))
            usage = given + Usage(output_tokens=len(words))
            return [*_says(words)[:-1], Finished(usage=usage, incomplete="max_output_tokens", model="sim")]
        case "fail":
            return [UpstreamError("the model fails")]
        case "break":
            return [ItemStarted(0, "message"), TextDelta(0, f"{number}.0"), UpstreamError("the model breaks")]
        case _:
            words = _words(number, int(rest) if verb == "say" else 4)
            return [*_says(words), Finished(usage=given + Usage(output_tokens=len(words)), model="sim")]


def _words(number: int, count: int) -> list[str]:
    return [f"{' ' if place else ''}{number}.{place}" for place in range(count)]


def _says(words: list[str], key: int = 0) -> list[ModelEvent]:
    return [ItemStarted(key, "message"), *(TextDelta(key, word) for word in words), ItemDone(key)]


def _calls(number: int, names: list[str]) -> list[ModelEvent]:
    """Calls of these tools at once, each with an argument that is never given again."""
    events: list[ModelEvent] = []
    for key, name in enumerate(names):
        arguments = f'{{"ticket": "{number}.{key}"}}'
        events += [
            ItemStarted(key, "function_call", name, f"call_{number}_{key}"),
            ArgumentsDelta(key, arguments[:6]),
            ArgumentsDelta(key, arguments[6:]),
            ItemDone(key),
        ]
    return events


def _wish(items: list[Json]) -> str:
    """The last thing that the user said."""
    users = [item for item in items if item["type"] == "message" and item["role"] == "user"]
    return users[-1]["content"][0]["text"] if users else "say 1"


def _is_served(items: list[Json]) -> bool:
    """Whether a tool's output is there behind the user's last words."""
    for item in reversed(items):
        if item["type"] == "message" and item["role"] == "user":
            return False
        if item["type"] in ("mcp_call", "function_call_output"):
            return True
    return False
