"""May this turn begin, and what is left: arithmetic on the month's record, run inside the conditional write.

Requests and tokens per minute are levels that drain: each use raises the level, time lowers it by the limit per minute,
and what would overflow is refused. Money is a sum: spent, and held by turns that run. A turn may begin while that sum
is below the ceiling; so the ceiling is passed by the last turn's settlement at most, and nobody is refused below it.
"""

from datetime import UTC, datetime, timedelta
from functools import lru_cache

from shared.errors import AssistantError, QuotaExceeded, RateLimited
from shared.settings import Limits
from shared.usage.records import Rate, Spent, UsageRecord

ROOM = 64
"""A turn whose reservation fits so often into what is left is sure to be accepted."""
_SOON = 1.0
"""Seconds after which to look again when others hold what is left."""
_SECONDS = 60.0


class TokensLimited(RateLimited):
    """Too many tokens for the moment; OpenAI tells it from too many requests by its type."""

    type = "tokens"


def check(record: UsageRecord, limits: Limits, *, tokens: int, now: float, is_background: bool = False) -> None:
    """Refuse what the plan does not allow now.

    Raises:
        RateLimited: too many requests, tokens or turns for the moment; `retry_after` says how long.
        QuotaExceeded: the day's or the month's money is spent.
    """
    refusal = (
        _money(record, limits, now)
        or (None if is_background else _turns(record, limits, now))
        or _rate(record, limits, tokens, now)
    )
    if refusal is not None:
        refusal.headers |= headers(record, limits, now)
        raise refusal


def is_roomy(record: UsageRecord | None, limits: Limits, *, tokens: int, cost: float, now: float) -> bool:
    """Whether a turn of this size fits so often that the model may be asked before the reservation is written."""
    record = record or UsageRecord(id="")
    for ceiling, used in _ceilings(record, limits, now):
        if ceiling - used < cost * ROOM or ceiling <= used:
            return False
    held = sum(1 for each in record.reserved.values() if each.expires > now)
    if limits.concurrent_turns is not None and held * 2 >= limits.concurrent_turns:
        return False
    level = drained(record.rate, limits, now)
    return all(
        limit is None or used + many <= limit / 2
        for limit, used, many in (
            (limits.requests_per_minute, level.requests, 1),
            (limits.tokens_per_minute, level.tokens, tokens),
        )
    )


def drained(rate: Rate, limits: Limits, now: float) -> Rate:
    """The levels as they are now."""
    minutes = max(0.0, now - rate.at) / _SECONDS
    return Rate(
        requests=max(0.0, rate.requests - minutes * (limits.requests_per_minute or 0.0)),
        tokens=max(0.0, rate.tokens - minutes * (limits.tokens_per_minute or 0.0)),
        at=max(now, rate.at),
    )


def headers(record: UsageRecord, limits: Limits, now: float) -> dict[str, str]:
    """`x-ratelimit-*`, as OpenAI sends them; none for what has no limit."""
    level = drained(record.rate, limits, now)
    found: dict[str, str] = {}
    for name, limit, used in (
        ("requests", limits.requests_per_minute, level.requests),
        ("tokens", limits.tokens_per_minute, level.tokens),
    ):
        if limit:
            found[f"x-ratelimit-limit-{name}"] = str(int(limit))
            found[f"x-ratelimit-remaining-{name}"] = str(max(0, int(limit - used)))
            found[f"x-ratelimit-reset-{name}"] = duration(used / limit * _SECONDS)
    return found


def duration(seconds: float) -> str:
    """As Go writes it.

    >>> duration(0.012), duration(1.5), duration(75), duration(119.9999), duration(3600)
    ('12ms', '1.5s', '1m15s', '2m0s', '1h0m0s')
    """
    milliseconds = round(seconds * 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{minutes}m" if minutes or hours else ""
    return f"{f'{hours}h' if hours else ''}{text}{rest / 1000:g}s"


def spent_on(record: UsageRecord, day: str) -> float:
    return sum(spent.cost for spent in record.days.get(day, {}).values())


def spent_in_month(record: UsageRecord) -> float:
    return sum(spent_on(record, day) for day in record.days)


def totals(record: UsageRecord) -> Spent:
    total = Spent()
    for models in record.days.values():
        for spent in models.values():
            total = total.plus(spent)
    return total


def day_of(now: float) -> str:
    return _day(int(now // 86_400))


@lru_cache(maxsize=8)
def _day(number: int) -> str:
    """Of a day since the epoch; written a few times in each turn."""
    return f"{datetime.fromtimestamp(number * 86_400, UTC):%Y-%m-%d}"


def held(record: UsageRecord, now: float) -> float:
    """Money that running turns hold, and those that wait to run."""
    return sum(each.cost for each in record.held(now).values())


def _ceilings(record: UsageRecord, limits: Limits, now: float) -> list[tuple[float, float]]:
    """Each ceiling of money, and what of it is spent or held."""
    holding = held(record, now)
    found: list[tuple[float, float]] = []
    if limits.usd_per_day is not None:
        found.append((limits.usd_per_day, spent_on(record, day_of(now)) + holding))
    if limits.usd_per_month is not None:
        found.append((limits.usd_per_month, spent_in_month(record) + holding))
    return found


def _money(record: UsageRecord, limits: Limits, now: float) -> AssistantError | None:
    for name, ceiling, spent, until in (
        ("day", limits.usd_per_day, lambda: spent_on(record, day_of(now)), _tomorrow),
        ("month", limits.usd_per_month, lambda: spent_in_month(record), next_month),
    ):
        if ceiling is None:
            continue
        if spent() >= ceiling:
            return QuotaExceeded(
                f"You exceeded your current quota: the ${ceiling:g} of this {name} are spent.",
                retry_after=until(now) - now,
                headers={"x-should-retry": "false"},
            )
        if spent() + held(record, now) >= ceiling:
            return RateLimited(
                f"Responses under way hold the rest of this {name}'s ${ceiling:g}; try again when one has ended.",
                retry_after=_SOON,
            )
    return None


def _turns(record: UsageRecord, limits: Limits, now: float) -> AssistantError | None:
    if limits.concurrent_turns is None:
        return None
    apart = {*record.background, *record.waiting}
    running = sum(1 for turn, each in record.reserved.items() if each.expires > now and turn not in apart)
    if running < limits.concurrent_turns:
        return None
    return RateLimited(
        f"{running} responses are being made already, which is your limit; wait for one to end.", retry_after=_SOON
    )


def _rate(record: UsageRecord, limits: Limits, tokens: int, now: float) -> AssistantError | None:
    level = drained(record.rate, limits, now)
    for name, limit, used, many in (
        ("requests", limits.requests_per_minute, level.requests, 1.0),
        ("tokens", limits.tokens_per_minute, level.tokens, float(tokens)),
    ):
        if limit is None:
            continue
        over = used + min(many, limit) - limit
        if over > 1e-9:
            wait = over / limit * _SECONDS if limit else _SECONDS
            kind = RateLimited if name == "requests" else TokensLimited
            return kind(
                f"Rate limit reached for {name} per minute: limit {limit:g}, used {used:.0f}, requested {many:.0f}."
                f" Try again in {duration(wait)}.",
                retry_after=wait,
            )
    return None


def _tomorrow(now: float) -> float:
    today = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return (today + timedelta(days=1)).timestamp()


def next_month(now: float) -> float:
    """When the next month begins."""
    first = datetime.fromtimestamp(now, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return (first + timedelta(days=32)).replace(day=1).timestamp()
