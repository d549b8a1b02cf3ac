"""What arrives where signals are sent: the stock exporters, over HTTP, at receivers that read their wire formats.

OTLP is decoded by OpenTelemetry's own protobuf. Application Insights takes a token over TLS only, so its stand-in has a
certificate of its own, and the managed identity's endpoint beside it gives the token.
"""

import gzip
import ssl
import threading
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import orjson
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from shared.telemetry import names
from shared.telemetry.export import make_exporter
from shared.telemetry.signals import Measure
from tests.unit.test_telemetry import turn

type Json = dict[str, Any]
type Heard = list[tuple[str, dict[str, str], bytes]]

TOKEN_SECONDS = 3600


class Receiver(ThreadingHTTPServer):
    """Takes whatever is posted to it, and gives out tokens."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.heard: Heard = []

    @property
    def port(self) -> int:
        return self.server_address[1]


class _Handler(BaseHTTPRequestHandler):
    @property
    def heard(self) -> Heard:
        assert isinstance(self.server, Receiver)
        return self.server.heard

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        self.heard.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
        answer: Json = {}
        if self.path.endswith("/track"):
            count = len(orjson.loads(body))
            answer = {"itemsReceived": count, "itemsAccepted": count, "errors": []}
        self._say(answer)

    def do_GET(self) -> None:
        self.heard.append((self.path, {name.lower(): value for name, value in self.headers.items()}, b""))
        until = datetime.now(UTC) + timedelta(seconds=TOKEN_SECONDS)
        self._say({"access_token": "the-token", "expires_on": str(int(until.timestamp())), "token_type": "Bearer"})

    def _say(self, answer: Json) -> None:
        body = orjson.dumps(answer)
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""


@contextmanager
def receiving(context: ssl.SSLContext | None = None) -> Generator[Receiver]:
    server = Receiver()
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def tell(kind: Any, connection_string: str = "", client_id: str = "") -> None:
    exporter = make_exporter(kind, connection_string, client_id)
    exporter.turn(turn())
    exporter.measure(Measure(names.BREAKER, 2, {names.DEPLOYMENT: "a"}))
    exporter.measure(Measure(names.QUEUE_AGE, 1.5, {}))
    exporter.measure(Measure(names.TAKE_OVERS, 1, {}))
    exporter.close()


def test_an_otlp_receiver_reads_spans_and_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{receiver.port}")
        tell("otlp")

    traces, metrics = ExportTraceServiceRequest(), ExportMetricsServiceRequest()
    for path, _, body in receiver.heard:
        {"/v1/traces": traces, "/v1/metrics": metrics}[path].MergeFromString(body)
    spans = [span for resource in traces.resource_spans for scope in resource.scope_spans for span in scope.spans]
    of_turn = next(span for span in spans if span.name == names.TURN)
    told = {pair.key: pair.value for pair in of_turn.attributes}
    values = {
        metric.name: metric
        for resource in metrics.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    assert {names.TURN, names.CONTEXT, names.ACCEPT, names.COMMIT, "chat companion", "execute_tool clock"} == {
        span.name for span in spans
    }
    assert {span.parent_span_id for span in spans if span is not of_turn} == {of_turn.span_id}
    assert (told[names.RESPONSE_ID].string_value, told[names.COST].double_value) == ("resp_1", 0.25)
    assert (told[names.INPUT_TOKENS].int_value, told[names.CHARGE].double_value) == (10, 30.0)
    assert set(names.UNITS) - {names.REFUSALS} == set(values)
    assert values[names.BREAKER].gauge.data_points[0].as_int == 2
    assert values[names.TURN_FIRST_TOKEN].histogram.data_points[0].sum == pytest.approx(0.027)
    assert {name: values[name].unit for name in values} == {name: names.UNITS[name] for name in values}


def test_application_insights_is_sent_envelopes_with_the_identitys_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = certified(tmp_path)
    with receiving(context) as insights, receiving() as identity:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "cert.pem"))
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"http://127.0.0.1:{identity.port}/msi/token")
        monkeypatch.setenv("IDENTITY_HEADER", "secret")
        monkeypatch.setenv("APPLICATIONINSIGHTS_STATSBEAT_DISABLED_ALL", "true")
        monkeypatch.setenv("APPLICATIONINSIGHTS_SDKSTATS_DISABLED", "true")
        monkeypatch.setenv("APPLICATIONINSIGHTS_CONTROLPLANE_DISABLED", "true")
        address = f"https://127.0.0.1:{insights.port}/"
        key = "11111111-2222-3333-4444-555555555555"
        tell("azure", f"InstrumentationKey={key};IngestionEndpoint={address};LiveEndpoint={address}", "client-7")

    tracked = [(headers, orjson.loads(body)) for path, headers, body in insights.heard if path.endswith("/track")]
    envelopes: list[Json] = [envelope for _, sent in tracked for envelope in sent]
    data: dict[str, list[Json]] = {}
    for envelope in envelopes:
        data.setdefault(envelope["data"]["baseType"], []).append(envelope["data"]["baseData"])
    dependencies = {each["name"]: each["properties"] for each in data["RemoteDependencyData"]}
    metrics = {each["metrics"][0]["name"]: each["metrics"][0] for each in data["MetricData"]}
    assert {headers["authorization"] for headers, _ in tracked} == {"Bearer the-token"}
    assert "client_id=client-7" in identity.heard[0][0]
    assert {envelope["iKey"] for envelope in envelopes} == {key}
    assert {names.TURN, names.CONTEXT, "chat companion", "execute_tool clock"} <= set(dependencies)
    assert dependencies[names.TURN][names.RESPONSE_ID] == "resp_1"
    assert set(names.UNITS) - {names.REFUSALS} <= set(metrics)
    assert metrics[names.BREAKER]["value"] == 2


def certified(folder: Path) -> ssl.SSLContext:
    """A server's side of TLS, with a certificate that was made for this test: `cert.pem` in `folder`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context
