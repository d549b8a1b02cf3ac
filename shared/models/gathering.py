"""Model events on their way out of an upstream's stream: neighbouring deltas of one item become one."""

from shared.models.base import (
    ArgumentsDelta,
    ModelEvent,
    ReasoningDelta,
    RefusalDelta,
    SummaryDelta,
    TextDelta,
)

type Delta = type[TextDelta] | type[RefusalDelta] | type[ArgumentsDelta] | type[ReasoningDelta]


class Gathering:
    """Events since the last `take`. What several tokens of one read of the socket say is said once.

    Raises `TypeError` where the server's words are no text: further on nobody would know whose fault that is.
    """

    __slots__ = ("_delta", "_events", "_key", "_pieces")

    def __init__(self) -> None:
        self._events: list[ModelEvent] = []
        self._delta: Delta = TextDelta
        self._key = -1
        self._pieces: list[str] = []

    def delta(self, delta: Delta, key: int, text: str) -> None:
        _check(text)
        if self._pieces and (self._key != key or self._delta is not delta):
            self._settle()
        self._delta = delta
        self._key = key
        self._pieces.append(text)

    def add(self, event: ModelEvent) -> None:
        if isinstance(event, TextDelta | RefusalDelta | ArgumentsDelta | ReasoningDelta | SummaryDelta):
            _check(event.text)
        if self._pieces:
            self._settle()
        self._events.append(event)

    def take(self) -> list[ModelEvent]:
        if self._pieces:
            self._settle()
        events, self._events = self._events, []
        return events

    def _settle(self) -> None:
        pieces = self._pieces
        text = pieces[0] if len(pieces) == 1 else "".join(pieces)
        self._events.append(self._delta(self._key, text))
        pieces.clear()


def _check(text: object) -> None:
    if type(text) is not str:
        raise TypeError(type(text))
