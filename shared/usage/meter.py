"""Reserve before, settle after. Pure arithmetic on the month's record; the batch that writes it is the turn's own."""

from datetime import UTC, datetime

from shared.errors import RateLimited
from shared.storage.base import Document
from shared.storage.mutate import Change
from shared.usage.records import Reservation, Sent, Spent, UsageRecord


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


def charge(now: float, model: str, spent: Spent) -> Change:
    """What work outside a turn used (a title, a compaction, an embedding), as a change of the month's record."""
    id_ = month_id(now)

    def apply(body: Document | None) -> Document:
        record = UsageRecord.model_validate(body) if body else UsageRecord(id=id_)
        return settle(record, "", model=model, spent=spent, now=now).document()

    return Change(id_, apply)


SEND_SECONDS = 60.0
"""How long an equal request counts as a retry of the first."""
_SENDS = 32
MAX_WAITING = 500


def remember_send(record: UsageRecord, body_hash: str, turn: str, now: float) -> UsageRecord:
    """Note which turn a request began; the newest few, for a minute."""
    fresh = {key: sent for key, sent in record.sends.items() if sent.at > now - SEND_SECONDS}
    fresh[body_hash] = Sent(turn=turn, at=now)
    return record.model_copy(update={"sends": dict(list(fresh.items())[-_SENDS:])})


def forget_send(record: UsageRecord, turn: str) -> UsageRecord:
    """The request that began this turn is no longer known: sent again, it begins another."""
    return record.model_copy(update={"sends": {key: sent for key, sent in record.sends.items() if sent.turn != turn}})


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
