"""The time: what a model cannot know."""

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from shared.clock import Clock
from shared.tools.registry import ServerTool, ToolRetry


def current_time(clock: Clock) -> ServerTool:
    """`{"time_zone": "Europe/Berlin"}` to `2026-11-21T10:00:00+01:00 (Saturday)`; without a zone, UTC."""

    async def call(arguments: dict[str, Any]) -> str:
        name = arguments.get("time_zone") or "UTC"
        try:
            zone = ZoneInfo(str(name)) if name != "UTC" else UTC
        except (ZoneInfoNotFoundError, ValueError):
            raise ToolRetry(f"There is no time zone {name!r}; use an IANA name such as Europe/Berlin.") from None
        now = datetime.fromtimestamp(clock.now(), zone)
        return f"{now.isoformat(timespec='seconds')} ({now:%A})"

    return ServerTool(
        name="current_time",
        description="The current date and time.",
        parameters={
            "type": "object",
            "properties": {"time_zone": {"type": "string", "description": "IANA name, such as Europe/Berlin."}},
            "required": [],
            "additionalProperties": False,
        },
        call=call,
        is_idempotent=True,
    )
