"""What Companion costs on Azure: each part for 1,000 turns, and idle for a month. A calculator, not a quotation.

    python -m tools.cost                                    the assumptions and what follows from them
    python -m tools.cost turn_seconds=20 shared_streams=1   … with other assumptions
    python -m tools.cost --stage prod                       … for what prod.bicepparam deploys

Prices are list prices in US dollars, as known in autumn 2026, West Europe or Sweden Central; check them before you rely
on them. Every number that goes in is in the table that comes out.
"""

import argparse
from dataclasses import dataclass, fields, replace
from typing import Literal

MONTH_HOURS = 730.0
MONTH_SECONDS = MONTH_HOURS * 3600

type Stage = Literal["default", "prod"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumptions:
    """One sentence on each is in `MEANING`."""

    turn_seconds: float = 10.0
    shared_streams: float = 8.0
    memory_gb: float = 2.0
    input_tokens: float = 2000.0
    cached_share: float = 0.5
    output_tokens: float = 400.0
    request_units: float = 540.0
    stored_kb: float = 12.0
    logged_kb: float = 6.0
    recovery_seconds: float = 60.0
    promises_seconds: float = 600.0
    due_query_units: float = 6.0
    always_ready: float = 0.0
    autoscale_ru: float = 0.0
    # prices
    execution_gb_s: float = 0.000026
    ready_gb_s: float = 0.000004
    million_executions: float = 0.40
    free_gb_s: float = 100_000.0
    free_executions: float = 250_000.0
    million_ru: float = 0.25
    autoscale_100_ru_hour: float = 0.012
    state_gb_month: float = 0.25
    million_input: float = 0.25
    million_cached: float = 0.025
    million_output: float = 2.00
    log_gb: float = 2.30
    free_log_gb: float = 5.0


MEANING = {
    "turn_seconds": "seconds a turn lasts, from request to last token",
    "shared_streams": "turns that an instance carries at once, on average: they share its price",
    "memory_gb": "memory of an instance, GB",
    "input_tokens": "tokens the model reads in a turn",
    "cached_share": "share of them that its prompt cache has",
    "output_tokens": "tokens it writes",
    "request_units": "Cosmos DB request units of a stored turn, journal included",
    "stored_kb": "kilobytes that stay in the state",
    "logged_kb": "kilobytes of logs and traces",
    "recovery_seconds": "seconds between two runs of the recovery timer, each billed as one second of an instance",
    "promises_seconds": "the same of the timer for data jobs, retention and adopted guests",
    "due_query_units": "request units of a question what is due: the one timer asks one, the other six",
    "always_ready": "instances that are never stopped",
    "autoscale_ru": "request units per second of autoscale, over all containers; 0: serverless",
    "execution_gb_s": "$ for a GB-second of an instance at work",
    "ready_gb_s": "$ for a GB-second of an instance kept ready",
    "million_executions": "$ for a million executions",
    "free_gb_s": "GB-seconds free each month, not for instances kept ready",
    "free_executions": "executions free each month, the same",
    "million_ru": "$ for a million request units, serverless",
    "autoscale_100_ru_hour": "$ for 100 RU/s for an hour, autoscale",
    "state_gb_month": "$ for a GB of state for a month",
    "million_input": "$ for a million tokens read (gpt-5-mini)",
    "million_cached": "$ for a million of them from the cache",
    "million_output": "$ for a million tokens written",
    "log_gb": "$ for a GB of logs",
    "free_log_gb": "GB of logs free each month",
}

PROD = Assumptions(always_ready=2, autoscale_ru=4 * 4000)
"""prod.bicepparam: two instances ready, four containers with 4,000 RU/s each."""

PROD_FIXED = {
    "Front Door premium": 330.00,
    "private endpoints, 6": 6 * 0.01 * MONTH_HOURS,
    "NAT gateway and its address": (0.045 + 0.005) * MONTH_HOURS,
    "DNS zones, 5": 5 * 0.50,
    "App Configuration": 1.20 * 30.4,
    "alerts: 4 by metric, 4 by query": 4 * 0.10 + 1.50 + 3 * 0.50,
}
"""What prod.bicepparam has beside the app, idle or not."""


def per_thousand_turns(a: Assumptions) -> dict[str, float]:
    """Dollars, by part; free grants left aside."""
    seconds = a.turn_seconds / max(a.shared_streams, 1.0)
    fresh = a.input_tokens * (1 - a.cached_share)
    tokens = fresh * a.million_input + a.input_tokens * a.cached_share * a.million_cached
    state = 0.0 if a.autoscale_ru else 1000 * a.request_units / 1e6 * a.million_ru
    return {
        "model": (tokens + a.output_tokens * a.million_output) / 1e6 * 1000,
        "functions": 1000 * (seconds * a.memory_gb * a.execution_gb_s + a.million_executions / 1e6),
        "state, request units": state,
        "state, a year of storage": 1000 * a.stored_kb / 1e6 * a.state_gb_month * 12,
        "logs": 1000 * a.logged_kb / 1e6 * a.log_gb,
    }


def idle_month(a: Assumptions, stage: Stage = "default") -> dict[str, float]:
    """Dollars of a month in which nobody calls."""
    recoveries, promises = (
        MONTH_SECONDS / seconds if seconds else 0.0 for seconds in (a.recovery_seconds, a.promises_seconds)
    )
    runs = recoveries + promises
    work = max(0.0, runs * a.memory_gb - a.free_gb_s) * a.execution_gb_s
    executions = max(0.0, runs - a.free_executions) / 1e6 * a.million_executions
    ready = a.always_ready * a.memory_gb * MONTH_SECONDS * a.ready_gb_s
    state = (
        a.autoscale_ru / 10 / 100 * a.autoscale_100_ru_hour * MONTH_HOURS
        if a.autoscale_ru
        else (recoveries + promises * 6) * a.due_query_units / 1e6 * a.million_ru
    )
    costs = {"timers": work + executions, "instances kept ready": ready, "state": state}
    return costs | (PROD_FIXED if stage == "prod" else {})


def table(title: str, rows: dict[str, float]) -> str:
    lines = [f"| {name} | {value:,.2f} |" for name, value in rows.items()]
    lines.append(f"| **together** | **{sum(rows.values()):,.2f}** |")
    return "\n".join([f"| {title} | $ |", "|---|---:|", *lines])


def report(a: Assumptions, stage: Stage) -> str:
    rows = [f"| {MEANING[field.name]} | {getattr(a, field.name):g} |" for field in fields(a)]
    assumed = "\n".join(["| assumed | |", "|---|---:|", *rows])
    parts = [
        table("1,000 turns", per_thousand_turns(a)),
        table("a month in which nobody calls", idle_month(a, stage)),
        assumed,
    ]
    return "\n\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(prog="cost", description="What Companion costs on Azure.")
    parser.add_argument("--stage", choices=("default", "prod"), default="default")
    parser.add_argument("assumptions", nargs="*", metavar="NAME=NUMBER", help=", ".join(MEANING))
    options = parser.parse_args()
    changed: dict[str, float] = {}
    for text in options.assumptions:
        name, _, value = text.partition("=")
        if name not in MEANING:
            parser.error(f"there is no assumption {name!r}; there are {', '.join(MEANING)}")
        changed[name] = float(value)
    print(report(replace(PROD if options.stage == "prod" else Assumptions(), **changed), options.stage))


if __name__ == "__main__":
    main()
