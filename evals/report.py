"""What runs came to: a table for the terminal, a page of its own with plots; no script, nothing fetched."""

import html
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evals.compare import Interval, difference, interval
from evals.graders import Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseResult:
    """One case, asked of one target."""

    name: str
    inputs: Any
    answer: Answer
    grades: dict[str, float]
    reasons: dict[str, str]

    @property
    def score(self) -> float:
        """The mean of its grades; a case that nobody graded counts as answered or not. No answer, no score."""
        if self.is_failed or not self.grades:
            return float(self.answer.status == "completed")
        return statistics.fmean(self.grades.values())

    @property
    def is_failed(self) -> bool:
        return self.answer.status == "failed"

    @property
    def why(self) -> str:
        """What is to be said of a score below 1."""
        if self.is_failed:
            return f"no answer: {self.answer.text}"
        return "; ".join(f"{name}: {reason}" for name, reason in self.reasons.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A dataset, asked of one target."""

    target: str
    cases: list[CaseResult]

    @property
    def scores(self) -> dict[str, float]:
        """Case to score."""
        return {case.name: case.score for case in self.cases}

    @property
    def mean(self) -> float:
        return statistics.fmean(self.scores.values()) if self.cases else 0.0

    @property
    def interval(self) -> Interval:
        return interval(list(self.scores.values()))

    @property
    def usd(self) -> float | None:
        """None: of no answer is the cost known."""
        known = [case.answer.usd for case in self.cases if case.answer.usd is not None]
        return sum(known) if known else None

    def seconds(self, share: float) -> float:
        return _quantile([case.answer.seconds for case in self.cases], share)

    def first_token(self, share: float) -> float:
        return _quantile([c.answer.first_token for c in self.cases if c.answer.first_token is not None], share)

    @property
    def failed(self) -> int:
        return sum(case.is_failed for case in self.cases)


def _quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


HEADERS = ("target", "score", "95 %", "against baseline", "failed", "usd", "first token p50", "p50", "p95")


def rows(runs: Sequence[Run], before: Mapping[str, float] | None) -> list[list[str]]:
    """A line for each run; the baseline is the stored one, or else the first run."""
    found: list[list[str]] = []
    for place, run in enumerate(runs):
        ours = run.interval
        against = before if before is not None else runs[0].scores if place else None
        change = difference(run.scores, against) if against is not None else None
        found.append(
            [
                run.target,
                f"{ours.mean:.3f}",
                f"{ours.low:.3f} to {ours.high:.3f}",
                f"{change.mean:+.3f} ({change.low:+.3f} to {change.high:+.3f}), {change.verdict}" if change else "",
                f"{run.failed}/{len(run.cases)}",
                f"{run.usd:.5f}" if run.usd is not None else "unknown",
                f"{run.first_token(0.5):.2f} s",
                f"{run.seconds(0.5):.2f} s",
                f"{run.seconds(0.95):.2f} s",
            ]
        )
    return found


def terminal_table(runs: Sequence[Run], before: Mapping[str, float] | None = None) -> str:
    lines = [list(HEADERS), *rows(runs, before)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADERS))]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    weak = [
        f"  {run.target}: {case.name} {case.score:.2f}  {case.why}".rstrip()
        for run in runs
        for case in run.cases
        if case.score < 1
    ]
    return "\n".join([*table, *(["", "below 1:", *weak] if weak else [])])


# the page

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #1c2430; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; }
th, td { text-align: left; padding: .35rem .6rem; border-bottom: 1px solid #dde3ea; vertical-align: top; }
th { font-weight: 600; background: #f4f6f9; } td.good { background: #e3f4e6; } td.bad { background: #fbe4e2; }
td.fair { background: #fdf4d8; } pre { white-space: pre-wrap; margin: .3rem 0; font-size: 13px; }
svg { display: block; margin: 1rem 0; } summary { cursor: pointer; }
"""
COLOURS = ("#2f6fb3", "#c2622d", "#3f8f5f", "#8a55a8", "#a8873c", "#4a6b7c")


def html_page(title: str, runs: Sequence[Run], before: Mapping[str, float] | None = None) -> str:
    """One file: summary, plots, every case with every answer."""
    heads = "".join(f"<th>{html.escape(header)}</th>" for header in HEADERS)
    lines = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows(runs, before)
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style></head><body><h1>{html.escape(title)}</h1>"
        f"<table><tr>{heads}</tr>{lines}</table>"
        f"<h2>Score</h2>{score_plot(runs)}<h2>Score and time of each case</h2>{scatter_plot(runs)}"
        f"<h2>Cases</h2>{_cases(runs)}</body></html>\n"
    )


def score_plot(runs: Sequence[Run]) -> str:
    """A bar for each target, and where its mean lies with 95 % confidence."""
    bars: list[str] = []
    for place, run in enumerate(runs):
        ours, top = run.interval, 10 + place * 44
        left, scale = 20, 760
        bars.append(
            f'<text x="{left}" y="{top + 10}" font-size="12">{html.escape(run.target)}: {ours.mean:.3f}</text>'
            f'<rect x="{left}" y="{top + 15}" width="{ours.mean * scale:.1f}" height="16" '
            f'fill="{COLOURS[place % len(COLOURS)]}"/>'
            f'<line x1="{left + ours.low * scale:.1f}" x2="{left + ours.high * scale:.1f}" '
            f'y1="{top + 23}" y2="{top + 23}" stroke="#1c2430" stroke-width="2"/>'
        )
    return _svg(820, 20 + 44 * len(runs), bars, "Mean score of each target, with its confidence interval")


def scatter_plot(runs: Sequence[Run]) -> str:
    """Seconds to the right, score upwards, a point for each case."""
    longest = max([case.answer.seconds for run in runs for case in run.cases] or [0.0]) or 1.0
    points = ['<line x1="40" y1="210" x2="800" y2="210" stroke="#8b98a5"/>']
    points += [
        '<line x1="40" y1="10" x2="40" y2="210" stroke="#8b98a5"/>',
        '<text x="5" y="16" font-size="11">1.0</text><text x="5" y="212" font-size="11">0.0</text>',
        f'<text x="700" y="228" font-size="11">{longest:.2f} seconds</text>',
    ]
    points += [
        f'<circle cx="{40 + case.answer.seconds / longest * 755:.1f}" cy="{210 - case.score * 195:.1f}" r="4" '
        f'fill="{COLOURS[place % len(COLOURS)]}" fill-opacity=".6">'
        f"<title>{html.escape(f'{run.target}, {case.name}')}</title></circle>"
        for place, run in enumerate(runs)
        for case in run.cases
    ]
    return _svg(820, 235, points, "Score against seconds, a point for each case")


def _svg(width: int, height: int, parts: list[str], label: str) -> str:
    return (
        f'<svg role="img" aria-label="{html.escape(label)}" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    )


def _cases(runs: Sequence[Run]) -> str:
    names = sorted({case.name for run in runs for case in run.cases})
    heads = "".join(f"<th>{html.escape(run.target)}</th>" for run in runs)
    lines = "".join(
        f"<tr><td>{_question(runs, name)}</td>" + "".join(_cell(run, name) for run in runs) + "</tr>" for name in names
    )
    return f"<table><tr><th>case</th>{heads}</tr>{lines}</table>"


def _question(runs: Sequence[Run], name: str) -> str:
    inputs = next(case.inputs for run in runs for case in run.cases if case.name == name)
    asked = inputs if isinstance(inputs, str) else json.dumps(inputs, indent=1, ensure_ascii=False)
    return f"<details><summary>{html.escape(name)}</summary><pre>{html.escape(asked)}</pre></details>"


def _cell(run: Run, name: str) -> str:
    case = next((case for case in run.cases if case.name == name), None)
    if case is None:
        return "<td></td>"
    kind = "good" if case.score >= 1 else "fair" if case.score >= 0.5 else "bad"
    grades = "".join(
        f"<li>{html.escape(grade)}: {value:.2f} {html.escape(case.reasons.get(grade, ''))}</li>"
        for grade, value in case.grades.items()
    )
    return (
        f'<td class="{kind}"><details><summary>{case.score:.2f}</summary><pre>{html.escape(case.answer.text)}</pre>'
        f"<ul>{grades}</ul></details></td>"
    )
