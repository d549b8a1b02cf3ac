"""Reserve before, settle after. Pure arithmetic on the month's record; the batch that writes it is the turn's own."""

from datetime import UTC, datetime

from shared.usage.records import Reservation, Spent, UsageRecord


def month_id(now: float) -> str:
    """`usage_2026-11`: the record that holds this moment."""
    return f"usage_{datetime.fromtimestamp(now, UTC):%Y-%m}"


def reserve(record: UsageRecord, turn: str, *, tokens: int, cost: float, now: float, seconds: float) -> UsageRecord:
    """Hold `tokens` and `cost` for a turn for so many seconds; what dead turns left behind is dropped on the way."""
    held = {key: kept for key, kept in record.reserved.items() if kept.expires > now}
    held[turn] = Reservation(tokens=tokens, cost=cost, expires=now + seconds)
    return record.model_copy(update={"reserved": held})


def settle(record: UsageRecord, turn: str, *, model: str, spent: Spent, now: float) -> UsageRecord:
    """Put what was really spent in the place of the reservation."""
    held = {key: kept for key, kept in record.reserved.items() if key != turn and kept.expires > now}
    day = f"{datetime.fromtimestamp(now, UTC):%Y-%m-%d}"
    models = dict(record.days.get(day, {}))
    models[model] = models.get(model, Spent()).plus(spent)
    return record.model_copy(update={"reserved": held, "days": {**record.days, day: models}})
