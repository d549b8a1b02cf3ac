"""Runs a dataset against targets, side by side.

    python -m evals.run --dataset basics --target local/companion
    python -m evals.run --dataset basics --target local/companion --target 'local/companion?prompt=companion@2' \\
        --html report.html --baseline baseline.json --judge http://127.0.0.1:7071/v1/companion-reasoning

Targets: see `evals/targets.py`. Exit code 1: a target is worse than the baseline beyond chance, or below --least.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic_evals import Dataset
from pydantic_evals.reporting import ReportCase, ReportCaseFailure

from evals.compare import difference
from evals.graders import GRADERS, JUDGE, Answer, Judged
from evals.report import CaseResult, Run, html_page, terminal_table
from evals.targets import Client, Target, open_client

DATASETS = Path(__file__).parent / "datasets"


def read_dataset(name: str) -> "Dataset[Any, Any, Any]":
    """By name under evals/datasets, or by path."""
    path = Path(name) if name.endswith((".yaml", ".yml", ".json")) else DATASETS / f"{name}.yaml"
    return Dataset[Any, Any, Any].from_file(path, custom_evaluator_types=GRADERS)


async def evaluate(
    dataset: "Dataset[Any, Any, Any]",
    target: Target,
    *,
    concurrency: int = 4,
    repeat: int = 1,
    judge: Target | None = None,
) -> Run:
    """Every case of the dataset, asked of one target and graded."""
    client = open_client(target)
    judging = open_client(judge) if judge is not None else None
    token = JUDGE.set(_asking(judging) if judging is not None else None)
    try:
        report = await dataset.evaluate(
            client.ask, name=target.name, max_concurrency=concurrency, progress=False, repeat=repeat
        )
    finally:
        JUDGE.reset(token)
        await client.close()
        if judging is not None:
            await judging.close()
    results = [_result(case) for case in report.cases] + [_failed(failure) for failure in report.failures]
    return Run(target=target.name, cases=sorted(results, key=lambda result: result.name))


def _asking(client: Client) -> Any:
    async def ask(text: str) -> str:
        return (await client.ask(text)).text

    return ask


def _result(case: "ReportCase[Any, Any, Any]") -> CaseResult:
    answer: Answer = case.output
    grades: dict[str, float] = {name: float(result.value) for name, result in case.assertions.items()}
    grades |= {name: float(result.value) for name, result in case.scores.items()}
    reasons = {name: result.reason for name, result in {**case.assertions, **case.scores}.items() if result.reason}
    for failure in case.evaluator_failures:
        grades[failure.name] = 0.0
        reasons[failure.name] = failure.error_message
    return CaseResult(name=case.name, inputs=case.inputs, answer=answer, grades=grades, reasons=reasons)


def _failed(failure: "ReportCaseFailure[Any, Any, Any]") -> CaseResult:
    answer = Answer(text=failure.error_message, status="failed")
    return CaseResult(name=failure.name, inputs=failure.inputs, answer=answer, grades={"answered": 0.0}, reasons={})


async def evaluate_all(arguments: argparse.Namespace, dataset: "Dataset[Any, Any, Any]") -> list[Run]:
    """One target after the other: they must not slow each other down."""
    judge = Target.parse(arguments.judge) if arguments.judge else None
    targets = [Target.parse(text) for text in arguments.target]
    limits = {"concurrency": arguments.concurrency, "repeat": arguments.repeat}
    return [await evaluate(dataset, target, judge=judge, **limits) for target in targets]


def run(arguments: argparse.Namespace) -> int:
    dataset = read_dataset(arguments.dataset)
    if not arguments.judge and _is_judged(dataset):
        raise ValueError("this dataset is judged by a model: name one with --judge")
    before = _baseline(arguments.baseline) if arguments.baseline else None
    runs = asyncio.run(evaluate_all(arguments, dataset))
    if before is not None and not any(case in before for run in runs for case in run.scores):
        raise ValueError(f"the baseline {arguments.baseline} holds none of these cases")
    print(terminal_table(runs, before))
    if arguments.html:
        Path(arguments.html).write_text(html_page(arguments.dataset, runs, before))
    if arguments.save:
        stored = {"dataset": arguments.dataset, "target": runs[0].target, "scores": runs[0].scores}
        Path(arguments.save).write_text(json.dumps(stored, indent=2, sort_keys=True) + "\n")
    is_worse = before is not None and any(difference(run.scores, before).verdict == "worse" for run in runs)
    return 1 if is_worse or any(run.mean < arguments.least for run in runs) else 0


def _is_judged(dataset: "Dataset[Any, Any, Any]") -> bool:
    evaluators = [*dataset.evaluators, *(each for case in dataset.cases for each in case.evaluators)]
    return any(isinstance(each, Judged) for each in evaluators)


def _baseline(path: str) -> dict[str, float]:
    """Case to score, as --save wrote them."""
    stored: Any = json.loads(Path(path).read_text())
    scores: Any = stored.get("scores") if isinstance(stored, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    if not isinstance(scores, dict):
        raise ValueError(f"{path} is no baseline: --save writes one")
    return scores  # pyright: ignore[reportUnknownVariableType]


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="evals.run", description="Runs a dataset against targets, side by side.")
    made.add_argument("--dataset", required=True, help="name under evals/datasets, or a file")
    made.add_argument("--target", action="append", required=True, help="BASE_URL/MODEL or local/MODEL, with ?options")
    made.add_argument("--judge", default="", help="the target that judges, for the grader Judged")
    made.add_argument("--baseline", default="", help="scores to compare with, as --save wrote them")
    made.add_argument("--save", default="", help="write the first target's scores")
    made.add_argument("--html", default="", help="write a page")
    made.add_argument("--least", type=float, default=0.0, help="mean score that every target must reach")
    made.add_argument("--concurrency", type=int, default=4)
    made.add_argument("--repeat", type=int, default=1, help="times that each case is asked")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    try:
        return run(parser().parse_args(arguments))
    except (ValueError, OSError) as error:
        print(f"evals: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
