"""Signals as OpenTelemetry: spans with the times that were noted, and metrics; out by OTLP or to Azure Monitor.

The only module that imports the SDK; it is imported in a background thread, after the first request.
"""

from typing import Any, Literal

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from shared.telemetry import names
from shared.telemetry.signals import Measure, TurnSignal

type Json = dict[str, Any]
type Attributes = dict[str, str | int | float]

_BATCH: Attributes = {names.STORE_OPERATION: "batch"}
_NS = 1_000_000
"""Nanoseconds in a millisecond."""


class OpenTelemetryExporter:
    """See `Exporter`."""

    def __init__(self, processor: SpanProcessor, reader: MetricReader) -> None:
        resource = Resource.create({"service.name": "companion"})
        self._traces = TracerProvider(resource=resource)
        self._traces.add_span_processor(processor)
        self._metrics = MeterProvider(metric_readers=[reader], resource=resource)
        self._tracer = self._traces.get_tracer("companion")
        self._meter = self._metrics.get_meter("companion")
        self._instruments: dict[str, Any] = {}
        self._gauges: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}

    def close(self) -> None:
        self._traces.shutdown()
        self._metrics.shutdown()

    # spans

    def turn(self, signal: TurnSignal) -> None:
        timings = signal.trace.get("timings", {})
        total = timings.get("total_ms", 0.0)
        zero = int(signal.ended_at * 1000 * _NS) - int(total * _NS)
        attributes: Attributes = {
            names.OPERATION: "invoke_agent",
            names.REQUEST_MODEL: signal.model,
            names.RESPONSE_ID: signal.response_id,
            names.OWNER: signal.owner,
            names.STATUS: signal.status,
            names.ATTEMPT: signal.attempt,
            names.DEPLOYMENT: signal.deployment,
            names.COST: signal.cost,
            names.CHARGE: signal.charge,
            names.INPUT_TOKENS: signal.usage.get("input_tokens", 0),
            names.OUTPUT_TOKENS: signal.usage.get("output_tokens", 0),
            names.OPERATIONS: sum(signal.trace.get("operations", {}).values()),
        }
        if signal.conversation:
            attributes[names.CONVERSATION] = signal.conversation
        calls: list[Json] = signal.trace.get("calls", [])
        if calls and calls[0].get("provider"):
            attributes[names.PROVIDER] = calls[0]["provider"]
        end = total + signal.commit_ms
        root = self._span(names.TURN, None, zero, 0.0, end, attributes, failed=signal.status == "failed")
        parent = trace.set_span_in_context(root)
        prepared, accepted = timings.get("prepare_ms"), timings.get("accept_ms")
        if prepared is not None:
            parts: Attributes = {
                f"companion.context.{part}": value for part, value in signal.trace.get("context", {}).items()
            }
            self._span(names.CONTEXT, parent, zero, 0.0, prepared, parts)
        if prepared is not None and accepted is not None:
            self._span(names.ACCEPT, parent, zero, prepared, accepted, _BATCH, kind=SpanKind.CLIENT)
        self._span(names.COMMIT, parent, zero, total, end, _BATCH, kind=SpanKind.CLIENT)
        for call in calls:
            self._call(parent, zero, signal, call)
        for tool in signal.trace.get("tools", []):
            told: Attributes = {names.OPERATION: "execute_tool", names.TOOL_NAME: tool["name"]}
            end = tool["at_ms"] + tool["ms"]
            self._span(
                f"{names.EXECUTE_TOOL} {tool['name']}", parent, zero, tool["at_ms"], end, told, failed=tool["failed"]
            )
        self._figures(signal)

    def _call(self, parent: Context, zero: int, signal: TurnSignal, call: Json) -> None:
        attributes: Attributes = {
            names.OPERATION: "chat",
            names.REQUEST_MODEL: signal.model,
            names.DEPLOYMENT: call["deployment"],
            names.REASON: call["reason"],
        }
        for key, name in _OF_A_CALL.items():
            if call.get(key) is not None:
                attributes[name] = call[key]
        if call.get("first_ms") is not None:
            attributes[names.FIRST_CHUNK] = call["first_ms"] / 1000
        name = f"{names.CHAT} {signal.model}"
        end = call["at_ms"] + call.get("ms", 0.0)
        failed = call.get("outcome") == "failed"
        self._span(name, parent, zero, call["at_ms"], end, attributes, failed=failed, kind=SpanKind.CLIENT)
        shared = {names.DEPLOYMENT: call["deployment"], names.REQUEST_MODEL: signal.model, names.OPERATION: "chat"}
        if call.get("provider"):
            shared[names.PROVIDER] = call["provider"]
        if "ms" in call:
            outcome = {names.ERROR_TYPE: str(call["error"])} if failed else {}
            self.measure(Measure(names.DURATION, call["ms"] / 1000, shared | outcome))
        if call.get("first_ms") is not None:
            self.measure(Measure(names.TIME_TO_FIRST_CHUNK, call["first_ms"] / 1000, shared))
        for kind in ("input", "output"):
            if call.get(f"{kind}_tokens") is not None:
                tokens = shared | {names.TOKEN_TYPE: kind}
                self.measure(Measure(names.TOKEN_USAGE, call[f"{kind}_tokens"], tokens))

    def _figures(self, signal: TurnSignal) -> None:
        shared = {names.REQUEST_MODEL: signal.model, names.DEPLOYMENT: signal.deployment}
        self.measure(Measure(names.TURNS, 1, shared | {names.STATUS: signal.status}))
        self.measure(Measure(names.TURN_COST, signal.cost, shared))
        self.measure(Measure(names.TURN_CHARGE, signal.charge, {}))
        if signal.first_token_ms is not None:
            self.measure(Measure(names.TURN_FIRST_TOKEN, signal.first_token_ms / 1000, shared))

    def _span(  # noqa: PLR0917 - who, when, what
        self,
        name: str,
        parent: Context | None,
        zero: int,
        begin_ms: float,
        end_ms: float,
        attributes: Attributes,
        *,
        failed: bool = False,
        kind: SpanKind = SpanKind.INTERNAL,
    ) -> Span:
        """A span with the times that were noted, in milliseconds since `zero` (nanoseconds since the epoch)."""
        start = zero + int(begin_ms * _NS)
        span = self._tracer.start_span(
            name, context=parent or Context(), kind=kind, attributes=attributes, start_time=start
        )
        if failed:
            span.set_status(Status(StatusCode.ERROR))
        span.end(end_time=zero + int(max(begin_ms, end_ms) * _NS))
        return span

    # metrics

    def measure(self, measure: Measure) -> None:
        if measure.name in names.GAUGES:
            self._gauge(measure)
            return
        instrument = self._instruments.get(measure.name)
        if measure.name in names.COUNTERS:
            instrument = instrument or self._meter.create_counter(measure.name, names.UNITS[measure.name])
            instrument.add(measure.value, measure.attributes)
        else:
            instrument = instrument or self._meter.create_histogram(measure.name, names.UNITS[measure.name])
            instrument.record(measure.value, measure.attributes)
        self._instruments[measure.name] = instrument

    def _gauge(self, measure: Measure) -> None:
        values = self._gauges.setdefault(measure.name, {})
        if measure.name not in self._instruments:

            def observe(_: CallbackOptions) -> list[Observation]:
                return [Observation(value, dict(attributes)) for attributes, value in list(values.items())]

            self._instruments[measure.name] = self._meter.create_observable_gauge(
                measure.name, [observe], names.UNITS[measure.name]
            )
        values[tuple(sorted(measure.attributes.items()))] = measure.value


_OF_A_CALL = {
    "provider": names.PROVIDER,
    "cost": names.COST,
    "model": names.RESPONSE_MODEL,
    "error": names.ERROR_TYPE,
    "input_tokens": names.INPUT_TOKENS,
    "output_tokens": names.OUTPUT_TOKENS,
    "cached_tokens": names.CACHED_TOKENS,
}


def make_exporter(kind: Literal["otlp", "azure"], connection_string: str, client_id: str) -> OpenTelemetryExporter:
    """By OTLP over HTTP (OTEL_EXPORTER_OTLP_* say where to), or to Application Insights with our identity."""
    if kind == "otlp":
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter  # noqa: PLC0415
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

        return OpenTelemetryExporter(
            BatchSpanProcessor(OTLPSpanExporter()), PeriodicExportingMetricReader(OTLPMetricExporter())
        )
    from azure.identity import DefaultAzureCredential  # noqa: PLC0415
    from azure.monitor.opentelemetry.exporter import (  # noqa: PLC0415
        AzureMonitorMetricExporter,
        AzureMonitorTraceExporter,
    )

    told: Any = {
        "connection_string": connection_string,
        "credential": DefaultAzureCredential(managed_identity_client_id=client_id or None),
    }
    return OpenTelemetryExporter(
        BatchSpanProcessor(AzureMonitorTraceExporter(**told)),
        PeriodicExportingMetricReader(AzureMonitorMetricExporter(**told)),
    )
