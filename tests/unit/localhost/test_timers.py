from datetime import UTC, datetime

import pytest

from localhost.timers import parse_schedule


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("schedule", "now", "next_run"),
    [
        ("* * * * * *", "2026-01-01T00:00:00", "2026-01-01T00:00:01"),
        ("*/10 * * * * *", "2026-01-01T00:00:01", "2026-01-01T00:00:10"),
        ("30 */5 * * * *", "2026-01-01T00:00:30", "2026-01-01T00:05:30"),
        ("*/5 * * * *", "2026-01-01T00:00:30", "2026-01-01T00:05:00"),
        ("0 30 9 * * 1-5", "2026-01-02T10:00:00", "2026-01-05T09:30:00"),
        ("0 0 0 13 * 5", "2026-01-01T00:00:00", "2026-02-13T00:00:00"),
        ("00:00:30", "2026-01-01T00:00:01", "2026-01-01T00:00:31"),
        ("1.00:00:00", "2026-01-01T00:00:00", "2026-01-02T00:00:00"),
        ("%EVERY%", "2026-01-01T00:00:00", "2026-01-01T00:01:00"),
    ],
)
def test_the_next_run_is_as_the_host_counts_it(schedule: str, now: str, next_run: str) -> None:
    assert parse_schedule(schedule, {"EVERY": "0 * * * * *"})(at(now)) == at(next_run)


@pytest.mark.parametrize("schedule", ["", "x", "99 * * * * *", "%MISSING%", "00:00:00"])
def test_what_is_not_a_schedule_is_refused(schedule: str) -> None:
    with pytest.raises(ValueError, match="schedule"):
        parse_schedule(schedule, {})
