"""One server under one kind of load: what the clients saw and what the kernel counted."""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass, field

from bench.load import Sample, Target, ask, in_turn, spread, together
from bench.servers import Server

TOKENS = 200
PACE_MS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A server and one way of asking it."""

    target: Target
    server: Server | None
    """None: the upstream itself, asked directly; only what its clients see counts."""
    most: int = 256
    """Streams at once it is asked for."""
    answers: int = 400
    """Whole answers it is asked for."""


@dataclass(slots=True)
class Figures:
    """What one subject showed, a value a round; read with `median`."""

    values: dict[str, list[float]] = field(default_factory=dict[str, list[float]])

    def add(self, name: str, value: float) -> None:
        self.values.setdefault(name, []).append(value)

    def median(self, name: str) -> float | None:
        values = self.values.get(name)
        return statistics.median(values) if values else None

    def most(self, name: str) -> float | None:
        values = self.values.get(name)
        return max(values) if values else None


async def warm(subject: Subject) -> None:
    """The first requests load what loads late; they are measured elsewhere (cold.py)."""
    for stream in (True, False):
        samples = await in_turn(subject.target, count=8, at_once=2, tokens=20, stream=stream)
        assert all(sample.is_whole for sample in samples), f"{subject.target.name} does not answer as it should"


async def paced(subject: Subject, figures: Figures, count: int) -> None:
    """Streams of one token each 10 ms: CPU, bytes and memory of what is open, delays of tokens."""
    server = subject.server
    memory = asyncio.create_task(_memory_while_open(server, count)) if server is not None else None
    before = server.cpu() if server is not None else 0.0
    samples = await together(subject.target, count=count, tokens=TOKENS, pace_ms=PACE_MS)
    told = sum(TOKENS if sample.is_whole else len(sample.delays) for sample in samples)  # what breaks off costs less
    if server is not None and memory is not None:
        figures.add(f"cpu_us_per_token@{count}", (server.cpu() - before) * 1e6 / max(1, told))
        figures.add(f"kb_per_stream@{count}", await memory)
    figures.add(f"unfinished@{count}", sum(not sample.is_whole for sample in samples))
    figures.add(f"bytes_per_token@{count}", sum(sample.bytes for sample in samples) / max(1, told))
    firsts = [sample.first * 1000 for sample in samples if sample.first]
    figures.add(f"first_ms@{count}", quantile(firsts, 0.5))
    figures.add(f"first_p99_ms@{count}", quantile(firsts, 0.99))
    delays = [delay * 1000 for sample in samples for delay in sample.delays]
    figures.add(f"delay_p99_ms@{count}", quantile(delays, 0.99))
    uneven = [delay * 1000 for sample in samples for delay in sample.unevenness()]
    figures.add(f"uneven_p99_ms@{count}", quantile(uneven, 0.99))


async def first_token(subject: Subject, figures: Figures, count: int = 60) -> None:
    """One stream at a time, with nothing else to do."""
    samples = [await ask(subject.target, tokens=3, pace_ms=10) for _ in range(count)]
    firsts = [sample.first * 1000 for sample in samples if sample.is_whole]
    figures.add("first_ms@1", quantile(firsts, 0.5))
    figures.add("first_p99_ms@1", quantile(firsts, 0.99))


async def first_at_once(subject: Subject, figures: Figures, count: int) -> None:
    """The first token of streams that all begin at the same moment."""
    samples = await together(subject.target, count=count, tokens=TOKENS, pace_ms=PACE_MS, apart=0.0)
    _add_firsts(figures, f"first_at_once{{}}_ms@{count}", samples)


async def first_among_many(subject: Subject, figures: Figures, count: int) -> None:
    """The first token of a stream that begins while so many others are open."""
    samples = await spread(subject.target, count=count, times=3, tokens=TOKENS, pace_ms=PACE_MS)
    _add_firsts(figures, f"first_among{{}}_ms@{count}", samples)


def _add_firsts(figures: Figures, name: str, samples: list[Sample]) -> None:
    """Of streams that ended as they should; a subject none of whose streams did has no figure, which is not 0."""
    firsts = [sample.first * 1000 for sample in samples if sample.is_whole]
    if firsts:
        figures.add(name.format(""), quantile(firsts, 0.5))
        figures.add(name.format("_p99"), quantile(firsts, 0.99))


async def flat_out(subject: Subject, figures: Figures, count: int) -> None:
    """Streams whose model says everything at once: tokens a second."""
    streams = max(count, 32)
    taken, _, samples = await _timed(
        subject, in_turn(subject.target, count=streams, at_once=count, tokens=TOKENS, stream=True)
    )
    figures.add(f"tokens_per_s@{count}", sum(sample.is_whole for sample in samples) * TOKENS / taken)


async def answers(subject: Subject, figures: Figures, *, at_once: int = 16) -> None:
    """Whole answers, not streamed."""
    taken, cpu, samples = await _timed(
        subject, in_turn(subject.target, count=subject.answers, at_once=at_once, tokens=TOKENS)
    )
    whole = sum(sample.is_whole for sample in samples)
    figures.add("answers_per_s", whole / taken)
    if cpu:
        figures.add("answers_per_cpu_s", whole / cpu)


async def _timed(subject: Subject, work: Awaitable[list[Sample]]) -> tuple[float, float, list[Sample]]:
    before, began = (subject.server.cpu() if subject.server else 0.0), time.perf_counter()
    samples = await work
    return time.perf_counter() - began, (subject.server.cpu() if subject.server else 0.0) - before, samples


async def _memory_while_open(server: Server, count: int) -> float:
    """Kilobytes a stream while all are open: half-way through."""
    before = server.memory()
    await asyncio.sleep(TOKENS * PACE_MS / 1000 * 0.7)
    return (server.memory() - before) * 1000 / count


def quantile(values: Iterable[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("nan")
