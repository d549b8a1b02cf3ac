"""The budgets: ratios and counts of budgets.toml, against what was measured."""

import operator
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from bench.report import Result, against

_COMPARE = {"at_most": operator.le, "at_least": operator.ge}


@cache
def read() -> dict[str, Any]:
    return tomllib.loads((Path(__file__).parent / "budgets.toml").read_text())


def broken(result: Result) -> list[str]:
    """A sentence for each ratio over budget; figures that were not measured break nothing."""
    lines: list[str] = []
    for budget in read()["ratio"]:
        value = against(result, budget["of"], budget["figure"], budget.get("to", "limit"))
        lines += _broken(f"{budget['figure']} of {budget['of']} to {budget.get('to', 'limit')}", value, budget)
    for budget in read()["bound"]:
        figures = result["streams"].get(budget["of"])
        value = figures.most(budget["figure"]) if figures else None
        lines += _broken(f"{budget['figure']} of {budget['of']}", value, budget)
    starts, costs = result["starts"], {cost.depth: cost for cost in result["growth"]}
    lines += _broken("cold start", starts["app"].milliseconds / starts["bare"].milliseconds, read()["cold_start"])
    growth = read()["growth"]
    early, late = costs[growth["from"]], costs[growth["to"]]
    lines += _broken("time of a late turn to an early one", late.milliseconds / early.milliseconds, growth["time"])
    lines += _broken("operations of a late turn", late.operations / early.operations, growth["operations"])
    lines += _broken("charge of a late turn", late.charge / early.charge, growth["charge"])
    return lines


def _broken(what: str, value: float | None, budget: dict[str, float]) -> list[str]:
    if value is None:
        return []
    return [
        f"{what} is {value:.2f}; the budget is {word.replace('_', ' ')} {budget[word]}"
        for word, holds in _COMPARE.items()
        if word in budget and not holds(value, budget[word])
    ]
