"""What is told of turns, and to whom: the last of them stay in memory, and all go to the exporter where one is set.

A turn notes its times as it goes (turns/trace.py) and is told of once, after its commit; so telemetry costs nothing
before the first token, and the libraries that export are loaded beside the work, not before it.
"""

import hashlib
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

type Json = dict[str, Any]

KEPT_TURNS = 50
KEPT_PENDING = 2000
"""Signals that wait for the exporter to load; what comes on top pushes out the oldest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnSignal:
    """A turn that has ended. No content."""

    response_id: str
    owner: str
    """Hashed."""
    status: str
    model: str
    deployment: str
    conversation: str | None
    ended_at: float
    """Seconds since the epoch."""
    attempt: int
    usage: Json
    cost: float
    charge: float
    first_token_ms: float | None
    trace: Json
    """As turns/trace.py stores it."""
    commit_ms: float = 0.0
    """What storing its end took: known only afterwards."""


@dataclass(frozen=True, slots=True)
class Measure:
    """One value of a metric."""

    name: str
    value: float
    attributes: dict[str, str]


class Exporter(Protocol):
    def turn(self, signal: TurnSignal) -> None: ...

    def measure(self, measure: Measure) -> None: ...

    def close(self) -> None: ...


class Signals:
    """One per process."""

    def __init__(self) -> None:
        self._recent: deque[TurnSignal] = deque(maxlen=KEPT_TURNS)
        self._pending: deque[TurnSignal | Measure] = deque(maxlen=KEPT_PENDING)
        self._make: Callable[[], Exporter] | None = None
        self._exporter: Exporter | None = None
        self._loading: threading.Thread | None = None
        self._lock = threading.Lock()

    def configure(self, make: Callable[[], Exporter] | None) -> None:
        """What exports, made on first use in a thread of its own; None: nothing does. Only the first is taken."""
        if self._make is None:
            self._make = make

    def turn(self, signal: TurnSignal) -> None:
        self._recent.append(signal)
        self._send(signal)

    def measure(self, name: str, value: float, **attributes: str) -> None:
        if self._make is not None:
            self._send(Measure(name, value, attributes))

    def recent(self) -> list[TurnSignal]:
        """The last turns of this process, newest first."""
        return list(self._recent)[::-1]

    def close(self) -> None:
        """Send what is pending, and forget everything."""
        if self._loading is not None:
            self._loading.join(timeout=10)
        with self._lock:
            exporter, self._exporter, self._make, self._loading = self._exporter, None, None, None
            self._pending.clear()
            self._recent.clear()
        if exporter is not None:
            exporter.close()

    def _send(self, signal: TurnSignal | Measure) -> None:
        if self._make is None:
            return
        exporter = self._exporter
        if exporter is not None:
            _give(exporter, signal)
            return
        with self._lock:
            self._pending.append(signal)
            if self._loading is None:
                self._loading = threading.Thread(target=self._load, args=(self._make,), name="telemetry", daemon=True)
                self._loading.start()

    def _load(self, make: Callable[[], Exporter]) -> None:
        exporter = make()
        while True:
            with self._lock:
                if not self._pending:
                    self._exporter = exporter
                    return
                waiting = list(self._pending)
                self._pending.clear()
            for signal in waiting:
                _give(exporter, signal)


def _give(exporter: Exporter, signal: TurnSignal | Measure) -> None:
    if isinstance(signal, TurnSignal):
        exporter.turn(signal)
    else:
        exporter.measure(signal)


@lru_cache(maxsize=4096)
def hashed(owner: str) -> str:
    """An owner as dashboards see one: the same each time, and nobody's name."""
    return hashlib.blake2b(owner.encode(), digest_size=8).hexdigest()


signals = Signals()
"""This process's."""
