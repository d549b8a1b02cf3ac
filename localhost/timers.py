"""Timer triggers: cron with seconds, run on startup, past due; one process per data folder runs them."""

import asyncio
import fcntl
import json
import logging
import os
import re
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from localhost import protos
from localhost.runtime import AppFailed, Function, InvocationFailed, Runtime

TIMER = "timerTrigger"
LOCK_RETRY = 2.0
"""Seconds between tries to become the process that runs the timers."""

log = logging.getLogger("companion.localhost")

_SETTING = re.compile(r"%(\w+)%")
_TIME_SPAN = re.compile(r"(?:(\d+)\.)?(\d{1,2}):(\d{2}):(\d{2})")


type NextRun = Callable[[float], float]
"""From a time to the next one that a schedule names, both in epoch seconds."""


@dataclass(frozen=True, slots=True)
class Status:
    """When a timer ran and when it is to run, in epoch seconds."""

    last: float
    next: float


type Plan = list[tuple[Function, NextRun]]


def plan(runtime: Runtime) -> Plan:
    """The app's timers.

    Raises:
        AppFailed: one of them has no usable schedule.
    """
    try:
        return [(each, parse_schedule(str(each.trigger["schedule"]), os.environ)) for each in runtime.of_type(TIMER)]
    except ValueError as exc:
        raise AppFailed(f"A timer trigger cannot be set up: {exc}") from None


async def run_timers(runtime: Runtime, timers: Plan, data: Path) -> None:
    """Run the timers until cancelled."""
    if not timers:
        return
    data.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - once, before anything else runs
    async with _alone(data), asyncio.TaskGroup() as group:
        book = _Book(data / "timers.json")
        for function, next_run in timers:
            group.create_task(_run(runtime, function, next_run, book))


async def _run(runtime: Runtime, function: Function, next_run: NextRun, book: "_Book") -> None:
    trigger = function.trigger
    status = book.read(function.name)
    if trigger.get("runOnStartup"):
        await _fire(runtime, function, status, is_past_due=False)
    elif trigger.get("useMonitor", True) and status is not None and status.next < time.time():
        await _fire(runtime, function, status, is_past_due=True)
    last = 0.0
    while True:
        at = next_run(max(time.time(), last))  # sleep may end a little early, and a run must not come twice
        status = Status(last, at)
        book.write(function.name, status)
        await asyncio.sleep(at - time.time())
        await _fire(runtime, function, status, is_past_due=False)
        last = at


async def _fire(runtime: Runtime, function: Function, status: Status | None, *, is_past_due: bool) -> None:
    info = {
        "Schedule": {"AdjustForDST": True},
        "ScheduleStatus": _json_of(status) if status else None,
        "IsPastDue": is_past_due,
    }
    try:
        await runtime.invoke(function, protos.TypedData(json=json.dumps(info)))
    except InvocationFailed as exc:
        log.error("timer.failed %s", exc)


def _json_of(status: Status) -> dict[str, str]:
    last, next_ = (datetime.fromtimestamp(moment, UTC).isoformat() for moment in (status.last, status.next))
    return {"Last": last, "Next": next_, "LastUpdated": last}


def parse_schedule(text: str, settings: Mapping[str, str]) -> NextRun:
    """NCRONTAB with five or six fields (seconds first), in UTC, or `hh:mm:ss`; `%NAME%` is taken from the settings.

    Raises:
        ValueError: not a schedule.
    """
    text = _SETTING.sub(lambda found: settings.get(found[1], ""), text).strip()
    span = _TIME_SPAN.fullmatch(text)
    if span is not None:
        days, hours, minutes, seconds = (int(part or 0) for part in span.groups())
        interval = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
        if interval <= 0:
            raise ValueError(f"schedule {text!r} never comes")
        return lambda after: after + interval
    from croniter import croniter  # noqa: PLC0415 - only apps with timers pay for it

    if not croniter.is_valid(text, second_at_beginning=True):
        raise ValueError(f"not a schedule: {text!r}")
    return lambda after: croniter(text, after, second_at_beginning=True, day_or=False).get_next(float)


class _Book:
    """Remembers over restarts when each timer is due; what makes a missed run visible."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, name: str) -> Status | None:
        entry = self._all().get(name)
        return Status(**entry) if entry else None

    def write(self, name: str, status: Status) -> None:
        entries = {**self._all(), name: {"last": status.last, "next": status.next}}
        draft = self._path.with_suffix(".tmp")
        draft.write_text(json.dumps(entries))
        draft.replace(self._path)

    def _all(self) -> dict[str, Any]:
        return json.loads(self._path.read_text()) if self._path.exists() else {}


@asynccontextmanager
async def _alone(data: Path) -> AsyncGenerator[None]:
    """Wait to be the only process that runs the timers of this data folder; the lock ends with the process."""
    with (data / "timers.lock").open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(LOCK_RETRY)
        yield
