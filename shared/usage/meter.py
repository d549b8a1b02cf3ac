"""Reserve before, settle after. Pure arithmetic on the month's record; the batch that writes it is the turn's own."""

from dataclasses import replace
from datetime import datetime

from shared.errors import RateLimited
from shared.settings import Limits
from shared.storage.base import Document
from shared.storage.mutate import Change
from shared.usage.limits import check, day_of, drained, spent_in_month, spent_on
from shared.usage.records import Rate, Reservation, Spent, UsageRecord

ERASED = "erased"
"""In the place of a model's name, where what was used is known no more."""


def month_id(now: float) -> str:
    """`usage_2026-11`: the record that holds this moment."""
    return f"usage_{day_of(now)[:7]}"


def fresh(id_: str) -> UsageRecord:
    """A month's record before anything was used."""
    return UsageRecord(id=id_, due=-datetime.strptime(f"{id_[6:]}-01+0000", "%Y-%m-%d%z").timestamp())


def bare(record: UsageRecord, now: float) -> UsageRecord:
    """What ceilings and rates need to know of a month that is erased: sums, of today and of the days before.

    And what is held: turns without a record run on, for nobody can end them, and are charged at their end.
    """
    today = day_of(now)
    costs = {f"{today[:8]}01": spent_in_month(record) - spent_on(record, today)}
    costs[today] = costs.get(today, 0.0) + spent_on(record, today)
    days = {day: {ERASED: Spent(cost=cost)} for day, cost in costs.items() if cost > 0}
    return UsageRecord(id=record.id, due=record.due, rate=record.rate, days=days, reserved=record.held(now))


def reserve(
    record: UsageRecord,
    turn: str,
    *,
    limits: Limits,
    tokens: int,
    cost: float,
    now: float,
    seconds: float,
    is_background: bool = False,
) -> UsageRecord:
    """Hold `tokens` and `cost` for a turn for so many seconds; what dead turns left behind is dropped on the way.

    Raises:
        RateLimited, QuotaExceeded: the plan does not allow it now.
    """
    held = record.held(now)
    if turn in held:
        return record  # an earlier try took effect without saying so
    record = record.model_copy(update={"reserved": held})
    check(record, limits, tokens=tokens, now=now, is_background=is_background)
    level = drained(record.rate, limits, now)
    counted = min(tokens, int(limits.tokens_per_minute)) if limits.tokens_per_minute is not None else tokens
    held[turn] = Reservation(tokens=counted, cost=cost, expires=now + seconds)
    rate = Rate(requests=level.requests + 1, tokens=level.tokens + counted, at=level.at)
    return record.model_copy(update={"reserved": held, "rate": rate})


def settle(record: UsageRecord, turn: str, *, model: str, spent: Spent, now: float) -> UsageRecord:
    """Put what was really spent in the place of the reservation."""
    held = {key: kept for key, kept in record.held(now).items() if key != turn}
    reserved = record.reserved.get(turn)
    used = spent.input_tokens + spent.output_tokens
    level = max(0.0, record.rate.tokens + used - (reserved.tokens if reserved else 0))
    rate = replace(record.rate, tokens=level)
    day = day_of(now)
    models = dict(record.days.get(day, {}))
    models[model] = models.get(model, Spent()).plus(spent)
    return record.model_copy(update={"reserved": held, "rate": rate, "days": {**record.days, day: models}})


def renew(record: UsageRecord, turn: str, *, seconds: float) -> UsageRecord:
    """Hold a reservation for so much longer."""
    held = {**record.reserved, turn: replace(record.reserved[turn], expires=record.reserved[turn].expires + seconds)}
    return record.model_copy(update={"reserved": held})


def release(record: UsageRecord, turn: str) -> UsageRecord:
    """Give back a reservation of which nothing was used."""
    held = {key: kept for key, kept in record.reserved.items() if key != turn}
    return record.model_copy(update={"reserved": held})


def charge(now: float, model: str, spent: Spent) -> Change:
    """What work outside a turn used (a title, a compaction, an embedding), as a change of the month's record."""
    id_ = month_id(now)

    def apply(body: Document | None) -> Document:
        record = UsageRecord.of(body) if body else fresh(id_)
        return settle(record, "", model=model, spent=spent, now=now).document()

    return Change(id_, apply)


SEND_SECONDS = 60.0
"""How long an equal request counts as a retry of the first."""
_SENDS = 32
_HASH = 16
"""Hexadecimal digits of a body's hash that tell it from an owner's other ones of a minute; a turn has all of them."""
MAX_WAITING = 500


def remember_send(record: UsageRecord, body_hash: str, turn: str, now: float) -> UsageRecord:
    """Note which turn a request began; the newest few, for a minute."""
    fresh = {key: each for key, each in record.sent.items() if each[1] > now - SEND_SECONDS}
    fresh[body_hash[:_HASH]] = turn, now
    return record.model_copy(update={"sent": dict(list(fresh.items())[-_SENDS:])})


def sent_before(record: UsageRecord, body_hash: str, now: float) -> str | None:
    """The turn that an equal request began within the last minute."""
    turn, at = record.sent.get(body_hash[:_HASH], ("", 0.0))
    return turn if at >= now - SEND_SECONDS else None


def forget_send(record: UsageRecord, turn: str) -> UsageRecord:
    """The request that began this turn is no longer known: sent again, it begins another."""
    return record.model_copy(update={"sent": {key: each for key, each in record.sent.items() if each[0] != turn}})


def enter_background(record: UsageRecord, turn: str, *, slots: int, is_first: bool = False) -> UsageRecord:
    """Give a background turn one of the owner's slots, or a place in the line behind them.

    Raises:
        RateLimited: the line is full.
    """
    if len(record.background) < slots:
        return record.model_copy(update={"background": [*record.background, turn]})
    if len(record.waiting) >= MAX_WAITING:
        raise RateLimited(
            f"{MAX_WAITING} background responses are waiting; try again when some are done.", retry_after=30
        )
    place = record.waiting_first if is_first else len(record.waiting)
    waiting = [*record.waiting[:place], turn, *record.waiting[place:]]
    return record.model_copy(update={"waiting": waiting, "waiting_first": record.waiting_first + is_first})


def leave_background(record: UsageRecord, turn: str, *, slots: int) -> tuple[UsageRecord, list[str]]:
    """Take a turn out, wherever it is, and let the next ones in.

    Returns:
        The record, and the turns that may run now.
    """
    if turn not in record.background and turn not in record.waiting:
        return record, []
    running = [id_ for id_ in record.background if id_ != turn]
    first = record.waiting[: record.waiting_first]
    rest = record.waiting[record.waiting_first :]
    first, rest = [id_ for id_ in first if id_ != turn], [id_ for id_ in rest if id_ != turn]
    waiting = [*first, *rest]
    free = max(0, slots - len(running))
    admitted = waiting[:free]
    changes = {
        "background": [*running, *admitted],
        "waiting": waiting[free:],
        "waiting_first": max(0, len(first) - free),
    }
    return record.model_copy(update=changes), admitted
