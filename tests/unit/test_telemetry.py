"""What is counted, told and logged."""

import asyncio
import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from shared.telemetry import Tally, count, names
from shared.telemetry.export import OpenTelemetryExporter, make_exporter
from shared.telemetry.logs import JsonFormatter, bind
from shared.telemetry.signals import KEPT_TURNS, Measure, Signals, TurnSignal, hashed

type Json = dict[str, Any]

TRACE: Json = {
    "timings": {"prepare_ms": 5.0, "accept_ms": 9.0, "total_ms": 100.0},
    "context": {"input": 3, "history": 40},
    "calls": [
        {
            "at_ms": 5.0,
            "ms": 2.0,
            "deployment": "a",
            "provider": "openai",
            "reason": "primary",
            "outcome": "failed",
            "error": "upstream_error",
        },
        {
            "at_ms": 7.0,
            "ms": 80.0,
            "first_ms": 20.0,
            "deployment": "b",
            "provider": "openai",
            "reason": "fallback",
            "outcome": "ok",
            "input_tokens": 10,
            "output_tokens": 5,
            "cost": 0.25,
        },
    ],
    "tools": [{"name": "clock", "at_ms": 88.0, "ms": 1.0, "failed": False}],
    "operations": {"read": 2, "batch": 2},
}


def turn(**fields: Any) -> TurnSignal:
    given: Json = {
        "response_id": "resp_1",
        "owner": hashed("ada"),
        "status": "completed",
        "model": "companion",
        "deployment": "b",
        "conversation": None,
        "ended_at": 1_000.0,
        "attempt": 1,
        "usage": {"input_tokens": 10, "output_tokens": 5},
        "cost": 0.25,
        "charge": 30.0,
        "first_token_ms": 27.0,
        "trace": TRACE,
        "commit_ms": 3.0,
    }
    return TurnSignal(**given | fields)


class Recorder:
    """An exporter that remembers."""

    def __init__(self) -> None:
        self.heard: list[TurnSignal | Measure] = []
        self.is_closed = False

    def turn(self, signal: TurnSignal) -> None:
        self.heard.append(signal)

    def measure(self, measure: Measure) -> None:
        self.heard.append(measure)

    def close(self) -> None:
        self.is_closed = True


class TestTally:
    async def test_what_tasks_count_is_in_the_tally_that_was_open_when_they_began(self) -> None:
        async def work() -> None:
            count("read", 1.5)

        with Tally() as outer, Tally() as inner:
            await asyncio.gather(work(), work())

        assert (inner.operations, inner.charge) == (outer.operations, outer.charge) == (2, 3.0)


class TestSignals:
    def test_the_last_turns_are_kept_newest_first(self) -> None:
        signals = Signals()
        for number in range(KEPT_TURNS + 5):
            signals.turn(turn(response_id=f"resp_{number}"))

        recent = signals.recent()

        assert (len(recent), recent[0].response_id) == (KEPT_TURNS, f"resp_{KEPT_TURNS + 4}")

    def test_without_an_exporter_nothing_is_loaded_or_kept_waiting(self) -> None:
        signals = Signals()
        signals.turn(turn())
        signals.measure(names.REFUSALS, 1)

        assert signals._loading is None  # pyright: ignore[reportPrivateUsage]
        assert not signals._pending  # pyright: ignore[reportPrivateUsage]

    def test_what_is_told_before_the_exporter_is_loaded_is_told_to_it_in_order(self) -> None:
        signals, recorder, is_allowed = Signals(), Recorder(), threading.Event()

        def make() -> Recorder:
            is_allowed.wait(5)
            return recorder

        signals.configure(make)
        signals.turn(turn(response_id="resp_1"))
        signals.measure(names.REFUSALS, 1, why="full")
        before = list(recorder.heard)
        is_allowed.set()
        signals.close()

        assert before == []
        assert [type(heard) for heard in recorder.heard] == [TurnSignal, Measure]
        assert recorder.is_closed

    def test_telling_of_a_turn_costs_microseconds_when_nobody_listens(self) -> None:
        signals, told = Signals(), turn()
        began = time.process_time()
        for _ in range(10_000):
            signals.turn(told)

        assert (time.process_time() - began) / 10_000 < 500e-6

    def test_an_owner_is_told_of_by_a_hash(self) -> None:
        assert hashed("ada") == hashed("ada") != hashed("bob")
        assert "ada" not in hashed("ada")


@pytest.fixture
def exported() -> Iterator[tuple[OpenTelemetryExporter, InMemorySpanExporter, InMemoryMetricReader]]:
    spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
    exporter = OpenTelemetryExporter(SimpleSpanProcessor(spans), reader)
    yield exporter, spans, reader
    exporter.close()


type Exported = tuple[OpenTelemetryExporter, InMemorySpanExporter, InMemoryMetricReader]


class TestOpenTelemetry:
    def test_a_turn_is_a_tree_of_spans_with_the_times_that_were_noted(self, exported: Exported) -> None:
        exporter, spans, _ = exported
        exporter.turn(turn())

        done = {
            f"{span.name}/{(span.attributes or {}).get(names.DEPLOYMENT, '')}": span
            for span in spans.get_finished_spans()
        }
        root = done["invoke_agent companion/b"]
        failed, answered = done["chat companion/a"], done["chat companion/b"]
        of_root = root.context.span_id if root.context else 0
        assert {"companion.context/", "companion.accept/", "companion.commit/", "execute_tool clock/"} < set(done)
        assert all(span.parent and span.parent.span_id == of_root for span in done.values() if span is not root)
        assert root.start_time is not None
        assert root.end_time == root.start_time + 103_000_000
        assert done["companion.commit/"].start_time == root.start_time + 100_000_000
        assert answered.start_time == root.start_time + 7_000_000
        assert failed.status.status_code is StatusCode.ERROR
        assert (answered.attributes or {})[names.FIRST_CHUNK] == 0.02
        assert [(span.attributes or {}).get(names.PROVIDER) for span in (root, failed, answered)] == ["openai"] * 3

    def test_no_owner_and_no_content_leaves(self, exported: Exported) -> None:
        exporter, spans, _ = exported
        exporter.turn(turn())

        assert not [span for span in spans.get_finished_spans() if "ada" in str(dict(span.attributes or {}))]

    def test_metrics_are_of_few_attributes(self, exported: Exported) -> None:
        exporter, _, reader = exported
        exporter.turn(turn())
        exporter.measure(Measure(names.BREAKER, 2, {names.DEPLOYMENT: "a"}))
        exporter.measure(Measure(names.TAKE_OVERS, 1, {}))

        data = reader.get_metrics_data()
        assert data is not None
        told = {
            metric.name: metric
            for each in data.resource_metrics
            for scope in each.scope_metrics
            for metric in scope.metrics
        }
        assert {
            names.TOKEN_USAGE,
            names.DURATION,
            names.TIME_TO_FIRST_CHUNK,
            names.TURN_COST,
            names.TURN_CHARGE,
            names.TURN_FIRST_TOKEN,
            names.TURNS,
            names.TAKE_OVERS,
            names.BREAKER,
        } == set(told)

    def test_the_exporter_for_otlp_is_made_without_a_network(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.1")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
        monkeypatch.setenv("OTEL_METRICS_EXPORT_INTERVAL", "3600000")

        exporter = make_exporter("otlp", "", "")
        exporter.close()
        assert isinstance(exporter, OpenTelemetryExporter)


class TestLogs:
    def test_a_line_is_an_event_its_fields_and_what_the_request_bound(self) -> None:
        record = logging.makeLogRecord(
            {"name": "companion.turns", "levelno": 20, "levelname": "INFO", "msg": "turn.ended"}
        )
        record.tokens = 7

        async def line() -> Json:
            bind(request_id="req_1")
            return orjson.loads(JsonFormatter().format(record))

        assert asyncio.run(line()) == {
            "event": "turn.ended",
            "level": "info",
            "logger": "companion.turns",
            "request_id": "req_1",
            "tokens": 7,
        }

    def test_an_exception_comes_with_its_traceback(self) -> None:
        try:
            raise ValueError("bad")
        except ValueError as error:
            record = logging.makeLogRecord({"msg": "x", "exc_info": (type(error), error, error.__traceback__)})

        assert "ValueError: bad" in orjson.loads(JsonFormatter().format(record))["exception"]
