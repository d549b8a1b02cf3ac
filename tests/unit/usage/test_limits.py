"""The arithmetic of limits: levels that drain, ceilings of money, what is said of them."""

import pytest

from shared.errors import QuotaExceeded, RateLimited
from shared.settings import Limits, Settings, SettingsError
from shared.usage import meter
from shared.usage.limits import duration, headers, held, is_roomy
from shared.usage.records import Spent, UsageRecord

NOW = 1_800_000_000.0


def fresh() -> UsageRecord:
    return meter.fresh(meter.month_id(NOW))


def hold(record: UsageRecord, turn: str, limits: Limits, *, now: float = NOW, cost: float = 0.0) -> UsageRecord:
    return meter.reserve(record, turn, limits=limits, tokens=100, cost=cost, now=now, seconds=300)


def test_a_level_drains_with_time() -> None:
    limits = Limits(requests_per_minute=2)
    record = hold(hold(fresh(), "a", limits), "b", limits)

    with pytest.raises(RateLimited) as refused:
        hold(record, "c", limits)

    assert refused.value.retry_after == pytest.approx(30.0)
    assert hold(record, "c", limits, now=NOW + 30)


def test_tokens_that_were_not_used_are_given_back() -> None:
    limits = Limits(tokens_per_minute=100)
    record = hold(fresh(), "a", limits)
    record = meter.settle(record, "a", model="m", spent=Spent(input_tokens=5, output_tokens=5), now=NOW)

    assert headers(record, limits, NOW)["x-ratelimit-remaining-tokens"] == "90"


def test_a_turn_larger_than_a_minute_may_begin_when_nothing_else_was_used() -> None:
    assert hold(fresh(), "a", Limits(tokens_per_minute=10))


def test_money_that_is_held_is_refused_for_a_moment_and_money_that_is_spent_for_the_day() -> None:
    limits = Limits(usd_per_day=1.0)
    held = hold(fresh(), "a", limits, cost=1.0)
    with pytest.raises(RateLimited) as moment:
        hold(held, "b", limits)
    spent = meter.settle(held, "a", model="m", spent=Spent(cost=1.0), now=NOW)
    with pytest.raises(QuotaExceeded) as day:
        hold(spent, "b", limits)

    assert moment.value.retry_after == 1.0
    assert day.value.retry_after is not None
    assert 0 < day.value.retry_after <= 86_400
    assert hold(spent, "b", limits, now=NOW + 86_400)


def test_a_reservation_of_a_dead_process_is_no_more_after_its_time() -> None:
    limits = Limits(concurrent_turns=1)
    record = hold(fresh(), "dead", limits)
    with pytest.raises(RateLimited):
        hold(record, "b", limits)

    assert set(hold(record, "b", limits, now=NOW + 301).reserved) == {"b"}


def test_a_background_turn_holds_its_money_until_it_has_ended() -> None:
    """However long it waits in line, or runs."""
    limits = Limits(usd_per_day=1.0)
    record = meter.enter_background(hold(fresh(), "runs", limits, cost=0.6), "runs", slots=1)
    record = meter.enter_background(hold(record, "waits", limits, cost=0.6), "waits", slots=1)
    later = NOW + 7200
    with pytest.raises(RateLimited):
        hold(record, "third", limits, now=later)
    assert held(record, NOW + 2 * 86_400) == 0.0  # of one whose end was never told here

    record = meter.settle(record, "runs", model="m", spent=Spent(cost=0.1), now=later)
    record, _ = meter.leave_background(record, "runs", slots=1)
    assert held(record, later) == 0.6
    record, _ = meter.leave_background(meter.release(record, "waits"), "waits", slots=1)
    assert held(record, later) == 0.0


def test_a_reservation_is_renewed_for_so_much_longer() -> None:
    record = meter.renew(hold(fresh(), "a", Limits()), "a", seconds=120)

    assert record.reserved["a"].expires == NOW + 420


def test_the_same_turn_is_reserved_once() -> None:
    limits = Limits(requests_per_minute=10)
    record = hold(fresh(), "a", limits)

    assert hold(record, "a", limits) == record


def test_the_model_is_asked_early_only_far_below_every_ceiling() -> None:
    assert is_roomy(None, Limits(usd_per_day=10), tokens=100, cost=0.01, now=NOW)
    assert not is_roomy(None, Limits(usd_per_day=0.1), tokens=100, cost=0.01, now=NOW)
    assert not is_roomy(None, Limits(tokens_per_minute=150), tokens=100, cost=0.0, now=NOW)


@pytest.mark.parametrize(("seconds", "text"), [(0.012, "12ms"), (1.5, "1.5s"), (30, "30s"), (75, "1m15s")])
def test_times_are_written_as_openai_writes_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_plan_keeps_what_it_does_not_say() -> None:
    usage = Settings.read({"COMPANION_PLANS": '{"default": {"usd_per_day": null, "requests_per_minute": 7}}'}).usage

    assert usage.limits_of("default").usd_per_day is None
    assert usage.limits_of("pro").requests_per_minute == usage.limits_of("static").requests_per_minute == 7
    assert usage.limits_of("default").concurrent_turns == 16
    assert usage.limits_of("local").usd_per_day is None


@pytest.mark.parametrize(
    "text", ["x", "[]", '{"a": 1}', '{"a": {"rpm": 1}}', '{"a": {"usd_per_day": -1}}', '{"a": {"usd_per_day": true}}']
)
def test_plans_that_cannot_be_used_stop_the_start(text: str) -> None:
    with pytest.raises(SettingsError, match="COMPANION_PLANS"):
        Settings.read({"COMPANION_PLANS": text})
