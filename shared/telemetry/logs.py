"""Logs as JSON lines: an event's name, its fields, and what the request at hand has bound. No content of messages."""

import logging
from contextvars import ContextVar
from typing import Any, override

import orjson

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

_bound: ContextVar[dict[str, Any] | None] = ContextVar("bound", default=None)


def bind(**fields: Any) -> None:
    """Put fields on every log line of this request from here on (and of tasks it starts)."""
    _bound.set({**(_bound.get() or {}), **fields})


class JsonFormatter(logging.Formatter):
    """`log.info("turn.ended", extra={"tokens": 7})` as `{"event": "turn.ended", "tokens": 7, …}`."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        fields = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        line: dict[str, Any] = {
            "event": record.getMessage(),
            "level": record.levelname.lower(),
            "logger": record.name,
            **(_bound.get() or {}),
            **fields,
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def write_json() -> None:
    """From now on the handlers of this process write JSON lines."""
    for handler in logging.getLogger().handlers:
        handler.setFormatter(JsonFormatter())
