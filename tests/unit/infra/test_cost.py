"""The calculator: its arithmetic, and that the docs say what it says."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from tools import cost
from tools.cost import MEANING, PROD, Assumptions, idle_month, per_thousand_turns, table

ROOT = Path(__file__).parents[3]


def test_every_assumption_says_what_it_means() -> None:
    assert {field.name for field in fields(Assumptions)} == set(MEANING)


def test_a_thousand_turns_by_hand() -> None:
    """10 s shared by 8 streams of 2 GB; 1,000 fresh, 1,000 cached and 400 written tokens; 540 RU."""
    parts = per_thousand_turns(Assumptions())

    assert parts["functions"] == pytest.approx(1000 * 10 / 8 * 2 * 0.000026 + 0.0004)
    assert parts["model"] == pytest.approx(1000 * 0.25e-6 * 1000 + 1000 * 0.025e-6 * 1000 + 400 * 2e-6 * 1000)
    assert parts["state, request units"] == pytest.approx(0.135)


def test_one_request_per_instance_costs_eight_times_as_much() -> None:
    shared, alone = per_thousand_turns(Assumptions()), per_thousand_turns(Assumptions(shared_streams=1))

    assert alone["functions"] / shared["functions"] == pytest.approx(8, rel=0.05)


def test_nothing_runs_while_idle_but_the_timers() -> None:
    assert sum(idle_month(Assumptions(recovery_seconds=0, promises_seconds=0)).values()) == 0
    assert idle_month(Assumptions())["timers"] == 0  # both together stay within the free grant
    assert idle_month(Assumptions(promises_seconds=300))["timers"] > 0


def test_the_timers_of_the_calculator_are_the_timers_of_the_app() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "functions").glob("*.py"))
    schedules = re.findall(r'timer_trigger\(.*schedule="([^"]+)"', sources)

    assert sorted(schedules) == ["0 * * * * *", "30 */10 * * * *"]
    assert (Assumptions().recovery_seconds, Assumptions().promises_seconds) == (60, 600)


def test_the_calculator_takes_the_measured_charge() -> None:
    page = (ROOT / "docs" / "performance.md").read_text()
    measured = re.search(r"request units of a plain stored turn, 10 s answer \| ≤ 600 \| (\d+) ", page)

    assert measured
    assert Assumptions().request_units == int(measured[1])


@pytest.mark.parametrize(
    ("title", "rows"),
    [
        ("1,000 turns", per_thousand_turns(Assumptions())),
        ("a month in which nobody calls", idle_month(Assumptions())),
        ("a month in which nobody calls", idle_month(PROD, "prod")),
    ],
)
def test_the_docs_say_what_the_calculator_says(title: str, rows: dict[str, float]) -> None:
    assert table(title, rows) in (ROOT / "docs" / "operate.md").read_text()


def test_the_deploy_page_says_what_idle_costs() -> None:
    page = " ".join((ROOT / "docs" / "deploy.md").read_text().split())

    assert f"${sum(idle_month(Assumptions()).values()):.2f} a month" in page
    assert f"1,000 turns cost ${sum(per_thousand_turns(Assumptions()).values()):.2f}" in page


def test_an_unknown_assumption_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Patched: the command line is the interface tested."""
    monkeypatch.setattr("sys.argv", ["cost", "turn_second=3"])

    with pytest.raises(SystemExit):
        cost.main()

    assert "'turn_second'" in capsys.readouterr().err
