"""Flags in a local JSON file, looked at again every half minute."""

import logging
from pathlib import Path
from typing import Any

import orjson

from shared.clock import Clock
from shared.flags.base import Assignment
from shared.flags.evaluate import Evaluator
from shared.principal import Principal

log = logging.getLogger("companion.flags")

RELOAD_SECONDS = 30.0


class FileFlags:
    """See `Flags`. A file that is missing or broken leaves the flags as they were."""

    def __init__(self, path: str, clock: Clock) -> None:
        self._path = Path(path)
        self._clock = clock
        self._looked: float | None = None
        self._state: tuple[int, int] | None = None
        self._flags: Evaluator | None = None

    async def fresh(self) -> None:
        now = self._clock.now()
        if self._looked is None or now - self._looked >= RELOAD_SECONDS:
            self._looked = now
            self._look()

    def assign(self, flag: str, caller: Principal) -> Assignment | None:
        return self._flags.assign(flag, caller) if self._flags is not None else None

    async def close(self) -> None:
        return None

    def _look(self) -> None:
        try:
            stat = self._path.stat()
            state = (stat.st_mtime_ns, stat.st_size)
            if state == self._state:
                return
            content: Any = orjson.loads(self._path.read_bytes())
            if not isinstance(content, dict):
                raise ValueError("not a JSON object")
            flags = Evaluator(content)  # pyright: ignore[reportUnknownArgumentType]
        except (OSError, ValueError) as error:
            log.warning("flags.unreadable", extra={"path": str(self._path), "reason": str(error)})
            return
        self._state = state
        self._flags = flags
        log.info("flags.read", extra={"flags": sorted(flags.names)})
