"""What was measured, as tables to read and a plot to see."""

from collections.abc import Callable
from typing import TypedDict

from bench.cold import Start
from bench.growth import Cost
from bench.measure import Figures

COUNTS = (1, 16, 64, 256)
LIMIT = "limit"


class Result(TypedDict):
    """`streams` and `notes` always; the others when everything was measured."""

    streams: dict[str, Figures]
    notes: list[str]
    starts: dict[str, Start]
    modules: list[tuple[str, float]]
    first_request: dict[str, float]
    growth: list[Cost]
    plain_charge: Cost


def overhead(result: Result, name: str, figure: str) -> float | None:
    """Milliseconds above asking the upstream directly, in the same rounds."""
    own, direct = result["streams"][name].median(figure), result["streams"]["direct"].median(figure)
    return None if own is None or direct is None else max(0.0, own - direct)


def against(result: Result, name: str, figure: str, base: str = LIMIT) -> float | None:
    """A figure as a ratio to another subject's."""
    if name not in result["streams"] or base not in result["streams"]:
        return None
    is_delay = figure.startswith("first")
    own = overhead(result, name, figure) if is_delay else result["streams"][name].median(figure)
    other = overhead(result, base, figure) if is_delay else result["streams"][base].median(figure)
    return own / other if own is not None and other else None


def tables(result: Result) -> str:
    parts = [_streams(result), *(f"Note: {note}" for note in result["notes"])]
    if "starts" in result:
        parts += [_starts(result), _growth(result)]
    return "\n\n".join(parts)


def _streams(result: Result) -> str:
    rows: list[tuple[str, Callable[[str], str]]] = []
    for count in COUNTS:
        rows.append((f"CPU µs per streamed token, {count} open", _plain(result, f"cpu_us_per_token@{count}", 1)))
    for figure, label in (("first_ms", "p50"), ("first_p99_ms", "p99")):
        for count in COUNTS:
            begun = "1 open" if count == 1 else f"{count} that begin 2 ms apart"
            rows.append((f"added first-token ms {label}, {begun}", _delay(result, f"{figure}@{count}")))
    for figure, label in (("ms", "p50"), ("p99_ms", "p99")):
        rows.append((f"added first-token ms {label}, 64 at one moment", _delay(result, f"first_at_once_{figure}@64")))
        rows.append((f"added first-token ms {label}, begun among 64", _delay(result, f"first_among_{figure}@64")))
    for count in COUNTS:
        rows.append((f"tokens/s flat out, {count} open", _plain(result, f"tokens_per_s@{count}", 0)))
    rows.append(("whole answers per second", _plain(result, "answers_per_s", 0)))
    rows.append(("whole answers per CPU second", _plain(result, "answers_per_cpu_s", 0)))
    rows.append(("bytes per streamed token, 64 open", _plain(result, "bytes_per_token@64", 0)))
    rows.append(("KB of memory per open stream, 256 open", _plain(result, "kb_per_stream@256", 0, most=True)))
    rows.append(("MB of memory after load", _plain(result, "mb_after_load", 0)))
    for count in (64, 256):
        rows.append((f"token delay ms p99, {count} open", _plain(result, f"delay_p99_ms@{count}", 0)))
        rows.append((f"the same, unevenness alone, {count} open", _plain(result, f"uneven_p99_ms@{count}", 0)))
    rows.append(("unfinished of 256", _plain(result, "unfinished@256", 0, most=True)))
    names = [name for name in result["streams"] if name != "direct"]
    return _table(["", *names], [[label, *(value(name) for name in names)] for label, value in rows])


def _plain(result: Result, figure: str, digits: int, *, most: bool = False) -> Callable[[str], str]:
    def value(name: str) -> str:
        figures = result["streams"][name]
        number = figures.most(figure) if most else figures.median(figure)
        return "" if number is None else f"{number:,.{digits}f}"

    return value


def _delay(result: Result, figure: str) -> Callable[[str], str]:
    def value(name: str) -> str:
        number = overhead(result, name, figure)
        return "" if number is None else f"{number:.2f}"

    return value


def _starts(result: Result) -> str:
    starts = result["starts"]
    bare = starts["bare"].milliseconds
    rows = [
        [
            name,
            f"{start.milliseconds:.0f}",
            f"{start.milliseconds / bare:.2f}",
            f"{start.megabytes:.0f}",
            f"{start.modules}",
        ]
        for name, start in starts.items()
    ]
    first = [[name, f"{milliseconds:.1f}"] for name, milliseconds in result["first_request"].items()]
    modules = [[name, f"{milliseconds:.1f}"] for name, milliseconds in result["modules"]]
    return "\n\n".join(
        [
            _table(["cold start", "CPU ms", "× bare", "MB", "modules"], rows),
            _table(["first request", "CPU ms"], first),
            _table(["own import time of", "ms"], modules),
        ]
    )


def _growth(result: Result) -> str:
    costs = [*result["growth"]]
    rows = [[f"{cost.depth:,}", f"{cost.milliseconds}", f"{cost.operations}", f"{cost.charge}"] for cost in costs]
    plain = result["plain_charge"]
    rows.append(["a plain 10 s answer", "", f"{plain.operations}", f"{plain.charge}"])
    return _table(["turn of a conversation", "CPU ms", "store operations", "request units"], rows)


def _table(head: list[str], rows: list[list[str]]) -> str:
    widths = [max(len(row[place]) for row in [head, *rows]) for place in range(len(head))]

    def line(row: list[str]) -> str:
        cells = [
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return f"| {' | '.join(cells)} |"

    rule = f"|{'|'.join('-' * (width + 2) for width in widths)}|"
    return "\n".join([line(head), rule, *(line(row) for row in rows)])


# the plot

_WIDTH, _BAR, _LABEL = 760, 18, 190
_COLOURS = {"limit": "#8a8f98", "LiteLLM": "#c98b3c", "ogx": "#c98b3c"}


def plot(result: Result) -> str:
    """Bars a panel, drawn as SVG by hand."""
    streams = result["streams"]
    panels = [
        ("CPU µs per streamed token, 64 streams open (less is better)", "cpu_us_per_token@64"),
        ("added first-token ms, p50, 1 stream (less is better)", "first_ms@1"),
        ("added first-token ms, p50, 64 streams (less is better)", "first_ms@64"),
        ("whole answers per CPU second (more is better)", "answers_per_cpu_s"),
        ("KB of memory per open stream, 256 open (less is better)", "kb_per_stream@256"),
    ]
    parts: list[str] = []
    top = 10
    for title, figure in panels:
        values: list[tuple[str, float]] = []
        for name in streams:
            value = overhead(result, name, figure) if figure.startswith("first") else streams[name].median(figure)
            if name != "direct" and value is not None:
                values.append((name, value))
        parts.append(_panel(title, values, top))
        top += 34 + len(values) * (_BAR + 4)
    style = "text{font:12px sans-serif;fill:#222}.t{font-weight:bold}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top}" width="{_WIDTH}" height="{top}">'
        f'<style>{style}</style><rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def _panel(title: str, values: list[tuple[str, float]], top: int) -> str:
    largest = max((value for _, value in values), default=1.0) or 1.0
    parts = [f'<text class="t" x="10" y="{top + 14}">{title}</text>']
    for place, (name, value) in enumerate(values):
        y = top + 22 + place * (_BAR + 4)
        width = max(1.0, (_WIDTH - _LABEL - 90) * value / largest)
        colour = _COLOURS.get(name, "#2f6fde")
        parts.append(f'<text x="10" y="{y + 13}">{name}</text>')
        parts.append(f'<rect x="{_LABEL}" y="{y}" width="{width:.1f}" height="{_BAR}" fill="{colour}"/>')
        parts.append(f'<text x="{_LABEL + width + 6:.1f}" y="{y + 13}">{value:,.1f}</text>')
    return "".join(parts)
