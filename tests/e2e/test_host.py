"""Small functions on the real edge and the real runtime, over HTTP; everything on both HTTP extensions."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from localhost.host import FUNCTION_KEY, MASTER_KEY
from tests.processes import ROOT, free_port

EDGES = ROOT / "tests" / "e2e" / "apps" / "edges"
EXTENSIONS = ("starlette", "fastapi")
SECONDS = 15.0


@dataclass(frozen=True)
class Server:
    port: int
    process: subprocess.Popen[bytes]
    log: Path
    client: httpx.Client

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.client.get(path, **options)

    def state(self) -> dict[str, Any]:
        return self.get("/state").json()

    def printed(self) -> str:
        return self.log.read_text()


@contextmanager
def server(folder: Path, *arguments: str, port: int | None = None, **settings: str) -> Generator[Server]:
    """`python -m localhost` with the edges app, from when it serves until the block ends."""
    port = port or free_port()
    log = folder / f"{port}.log"
    command = [sys.executable, "-m", "localhost", "--app", str(EDGES), "--port", str(port), "--data", str(folder)]
    environment = {**os.environ, "TICK": "0 0 0 1 1 *", "COMPANION_MAX_BODY": "1000", **settings}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, *arguments], cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        wait_for(lambda: "ready in" in log.read_text() or process.poll() is not None, log)
        assert process.poll() is None, log.read_text()
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=SECONDS) as client:
            yield Server(port, process, log, client)
    finally:
        process.terminate()
        process.wait(SECONDS)


def run_to_end(command: list[str], **settings: str) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **settings}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, timeout=SECONDS, check=False)


def wait_for(happened: Any, log: Path | None = None) -> None:
    deadline = time.monotonic() + SECONDS
    while not happened():
        assert time.monotonic() < deadline, log.read_text() if log else "it did not happen"
        time.sleep(0.02)


@pytest.fixture(scope="module", params=EXTENSIONS)
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with server(tmp_path_factory.mktemp("host"), COMPANION_HTTP_EXTENSION=request.param) as running:
        yield running


@pytest.fixture(scope="module", params=EXTENSIONS)
def uri(request: pytest.FixtureRequest) -> Iterator[str]:
    """Where the extension's own server listens."""
    environment = {**os.environ, "COMPANION_HTTP_EXTENSION": request.param, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(EDGES.parent / "worker.py")]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        address = process.stdout.readline().decode().strip()
        wait_for(lambda: listens(int(address.rpartition(":")[2])))
        yield address
        process.kill()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def error_of(response: httpx.Response) -> dict[str, Any]:
    """The error inside a whole and correct envelope."""
    assert re.fullmatch(r"req_[0-9a-f]{32}", response.headers["x-request-id"])
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert body.keys() == {"error"}
    assert body["error"].keys() == {"message", "type", "param", "code"}
    return body["error"]


class TestRouting:
    @pytest.mark.parametrize(
        ("path", "function", "params"),
        [
            ("/items/special", "special", {}),
            ("/items/SPECIAL/", "special", {}),
            ("/items/5", "by_number", {"number": "5"}),
            ("/items/five", "by_name", {"name": "five"}),
            ("/items/a%20b", "by_name", {"name": "a b"}),
            ("/items/a%2Fb", "by_name", {"name": "a%2Fb"}),
            ("/items/a/b/c", "catch_all", {"rest": "a/b/c"}),
            ("/pages", "page", {}),
            ("/pages/2", "page", {"page": "2"}),
            ("/files/report.pdf", "mixed", {"stem": "report", "extension": "pdf"}),
            ("/openapi.json", "reserved", {}),
        ],
    )
    def test_the_most_specific_route_answers(self, host: Server, path: str, function: str, params: Any) -> None:
        assert host.get(path).json() == {"function": function, "params": params}

    def test_an_unknown_route_is_404_in_the_envelope(self, host: Server) -> None:
        response = host.get("/v1/nowhere")

        assert response.status_code == 404
        assert error_of(response)["message"] == "Invalid URL (GET /v1/nowhere)"

    def test_a_known_route_with_another_method_is_405_and_says_which_are_allowed(self, host: Server) -> None:
        response = host.client.post("/items/special")

        assert (response.status_code, response.headers["allow"]) == (405, "GET")
        assert error_of(response)["code"] == "method_not_allowed"

    def test_names_that_the_vendor_extension_would_take_are_ours(self, host: Server) -> None:
        assert [host.get(path).status_code for path in ("/docs", "/redoc")] == [404, 404]

    @pytest.mark.parametrize(
        ("path", "key", "status"),
        [
            ("/keyed", "", 401),
            ("/keyed", "wrong", 401),
            ("/keyed", FUNCTION_KEY, 200),
            ("/keyed", MASTER_KEY, 200),
            ("/admins", FUNCTION_KEY, 401),
            ("/admins", MASTER_KEY, 200),
        ],
    )
    def test_function_keys_are_asked_for(self, host: Server, path: str, key: str, status: int) -> None:
        by_header = host.get(path, headers={"x-functions-key": key})
        by_query = host.get(path, params={"code": key})

        assert (by_header.status_code, by_query.status_code) == (status, status)

    def test_the_platforms_headers_cannot_be_sent_by_a_client(self, host: Server) -> None:
        sent = {"x-ms-invocation-id": "00000000-0000-0000-0000-000000000000", "x-ms-client-principal-id": "admin"}

        received = host.get("/headers", headers={**sent, "x-own": "1"}).json()

        assert received["x-own"] == "1"
        assert "x-ms-client-principal-id" not in received
        assert received["x-ms-invocation-id"] != sent["x-ms-invocation-id"]

    def test_a_trace_goes_through(self, host: Server) -> None:
        parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

        assert host.get("/trace", headers={"traceparent": parent}).json()["parent"] == parent
        assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-00", host.get("/trace").json()["parent"])


class TestAnswers:
    def test_every_answer_carries_our_request_id_and_the_customary_headers(self, host: Server) -> None:
        response = host.get("/me", headers={"x-request-id": "mine"})

        assert response.json() == {"owner": "local", "request_id": response.headers["x-request-id"]}
        assert response.headers["openai-version"] == "2020-10-01"
        assert response.headers["openai-processing-ms"].isdecimal()
        assert response.headers["x-content-type-options"] == "nosniff"
        assert "server" not in response.headers

    def test_a_body_is_read(self, host: Server) -> None:
        assert host.client.post("/body", json={"a": [1, "ä"]}).json() == {"a": [1, "ä"]}

    @pytest.mark.parametrize(
        "body", [b"", b"  ", b"{", b"[1]", b'"text"', b"\xff\xfe", b'{"a":' * 150 + b"1" + b"}" * 150]
    )
    def test_a_body_that_is_not_an_object_is_400(self, host: Server, body: bytes) -> None:
        response = host.client.post("/body", content=body, headers={"content-type": "application/json"})

        assert response.status_code == 400
        assert error_of(response)["code"] == "invalid_json"

    def test_a_body_of_another_type_is_400(self, host: Server) -> None:
        response = host.client.post("/body", content=b"{}", headers={"content-type": "text/plain"})

        assert response.status_code == 400
        assert "application/json" in error_of(response)["message"]

    def test_a_body_announced_too_large_is_413(self, host: Server) -> None:
        response = host.client.post("/body", content=b'{"a":"' + b"x" * 1000 + b'"}')

        assert (response.status_code, error_of(response)["code"]) == (413, "payload_too_large")

    def test_a_chunked_body_is_413_as_soon_as_it_is_too_large(self, host: Server) -> None:
        response = host.client.post("/body", content=iter([b'{"a":"', *[b"x" * 400] * 5, b'"}']))

        assert (response.status_code, error_of(response)["code"]) == (413, "payload_too_large")
        assert host.get("/healthz").status_code == 200  # the connection is still good

    def test_a_limit_says_when_to_come_back(self, host: Server) -> None:
        response = host.get("/limited")

        assert (response.status_code, error_of(response)["type"]) == (429, "requests")
        assert (response.headers["retry-after"], response.headers["retry-after-ms"]) == ("2", "1250")
        assert response.headers["x-ratelimit-remaining-requests"] == "0"

    @pytest.mark.parametrize("path", ["/bug", "/bug/outside", "/nothing"])
    def test_a_bug_is_500_with_an_id_that_the_log_has_too_and_no_detail(self, host: Server, path: str) -> None:
        response = host.get(path)

        assert response.status_code == 500
        assert response.headers["x-request-id"] in error_of(response)["message"]
        assert "secret" not in response.text
        assert "RuntimeError: secret detail" in host.printed() or path == "/nothing"

    def test_ready_says_which_part_is_not(self, host: Server) -> None:
        before = host.get("/readyz")
        host.client.post("/down/true")
        during = host.get("/readyz")
        host.client.post("/down/false")

        assert (before.status_code, before.json()["checks"]) == (200, {"store": "ok", "blobs": "ok"})
        assert (during.status_code, during.json()["checks"]["store"]) == (503, "unavailable")

    def test_head_has_no_body(self, host: Server) -> None:
        response = host.client.head("/healthz")

        assert (response.status_code, response.content) == (200, b"")

    def test_nothing_of_a_request_is_kept(self, host: Server) -> None:
        for _ in range(1000):
            host.get("/healthz")

        assert host.state()["entries"] == 0


class TestStreams:
    def test_each_event_arrives_when_it_is_sent(self, host: Server) -> None:
        with host.client.stream("GET", "/stream/slow?count=3&gap=0.3") as response:
            began = time.monotonic()
            arrived = [time.monotonic() - began for chunk in response.iter_raw() if chunk]

        assert len(arrived) == 3 + 1, "and the end"
        assert arrived[1] - arrived[0] > 0.2 < arrived[2] - arrived[1]

    def test_headers_tell_what_is_on_the_way_not_to_touch_it(self, host: Server) -> None:
        headers = host.get("/stream/plain").headers

        assert headers["content-type"] == "text/event-stream"
        assert headers["cache-control"] == "no-cache"
        assert headers["x-accel-buffering"] == "no"
        assert headers["x-request-id"].startswith("req_")

    def test_silence_is_broken_by_comments(self, host: Server) -> None:
        text = host.get("/stream/quiet?count=2&gap=0.5&heartbeat=0.15").text

        assert text.count(": heartbeat\n\n") == pytest.approx(6, abs=2)
        assert [line for line in text.splitlines() if line.startswith("data")] == [
            'data: {"sequence_number": 0}',
            'data: {"sequence_number": 1}',
            "data: [DONE]",
        ]

    def test_a_late_error_is_the_last_event(self, host: Server) -> None:
        text = host.get("/stream/told?fails=2").text

        assert text.endswith("\n\ndata: [DONE]\n\n")
        assert text.count("[DONE]") == 1
        assert 'event: error\ndata: {"type":"error","sequence_number":2,"message":"Slow down.",' in text
        assert '"error":{"message":"Slow down.","type":"requests",' in text

    def test_a_late_bug_shows_no_detail(self, host: Server) -> None:
        response = host.get("/stream/bug?fails=1")

        assert "secret" not in response.text
        assert response.headers["x-request-id"] in response.text

    def test_an_error_before_the_first_event_is_a_status(self, host: Server) -> None:
        response = host.get("/stream/told?fails=0")

        assert (response.status_code, error_of(response)["message"]) == (429, "Slow down.")

    def test_the_source_is_closed_when_the_client_leaves(self, host: Server) -> None:
        with host.client.stream("GET", "/stream/left?count=1000&gap=0.05") as response:
            next(response.iter_raw())

        wait_for(lambda: "left" in host.state()["closed"])
        wait_for(lambda: host.state()["entries"] == 0)

    def test_the_source_is_closed_when_the_client_leaves_in_silence(self, host: Server) -> None:
        with host.client.stream("GET", "/stream/silent?count=2&gap=60") as response:
            next(response.iter_raw())

        wait_for(lambda: "silent" in host.state()["closed"])

    def test_a_client_that_leaves_before_the_answer_leaves_nothing_behind(self, host: Server) -> None:
        with socket.create_connection(("127.0.0.1", host.port)) as connection:
            connection.sendall(b"POST /body HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 100\r\n\r\n{")
            wait_for(lambda: host.state()["entries"] == 1)

        wait_for(lambda: host.state()["entries"] == 0)


@pytest.mark.parametrize("extension", EXTENSIONS)
class TestEnd:
    def test_a_running_stream_ends_properly_before_the_process_does(self, extension: str, tmp_path: Path) -> None:
        with (
            server(tmp_path, COMPANION_HTTP_EXTENSION=extension) as running,
            running.client.stream("GET", "/stream/last?count=5&gap=0.2") as response,
        ):
            chunks = response.iter_raw()
            first = next(chunks)
            running.process.send_signal(signal.SIGTERM)
            rest = b"".join(chunks)
            running.process.wait(SECONDS)

        assert [b'"sequence_number": %d' % number in first + rest for number in range(5)] == [True] * 5
        assert running.process.returncode == 0
        assert "app closed" in running.printed()

    def test_a_stream_that_takes_too_long_is_told_so(self, extension: str, tmp_path: Path) -> None:
        with (
            server(tmp_path, "--drain", "1", COMPANION_HTTP_EXTENSION=extension) as running,
            running.client.stream("GET", "/stream/endless?count=10000&gap=0.1") as response,
        ):
            chunks = response.iter_raw()
            next(chunks)
            running.process.send_signal(signal.SIGTERM)
            rest = b"".join(chunks)
            running.process.wait(SECONDS)

        assert rest.endswith(b"data: [DONE]\n\n")
        assert b'"code":"server_restarting"' in rest
        assert "app closed" in running.printed()

    def test_the_second_signal_ends_it_at_once(self, extension: str, tmp_path: Path) -> None:
        with (
            server(tmp_path, COMPANION_HTTP_EXTENSION=extension) as running,
            running.client.stream("GET", "/stream/endless?count=10000&gap=0.1") as response,
        ):
            chunks = response.iter_raw()  # kept: its end would be the connection's
            next(chunks)
            running.process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            running.process.send_signal(signal.SIGTERM)
            running.process.wait(2)

        assert running.process.returncode == 128 + signal.SIGTERM


class TestInvocationIds:
    """On the extension's own server, where in the cloud a forged header could arrive."""

    def test_a_request_with_its_invocation_is_answered(self, uri: str) -> None:
        response = httpx.get(f"{uri}/anything", headers={"x-ms-invocation-id": str(uuid.uuid4())})

        assert (response.status_code, response.headers["openai-version"]) == (200, "2020-10-01")

    @pytest.mark.parametrize("ids", [[], [str(uuid.uuid4()), str(uuid.uuid4())], ["1"], ["x" * 36], ["../" * 12], [""]])
    def test_an_id_that_cannot_be_the_hosts_is_400(self, uri: str, ids: list[str]) -> None:
        response = httpx.get(f"{uri}/anything", headers=[("x-ms-invocation-id", id_) for id_ in ids])

        assert response.status_code == 400
        assert "x-ms-invocation-id" in error_of(response)["message"]

    def test_a_request_that_no_invocation_asks_for_is_400_after_a_while(self, uri: str) -> None:
        forged = str(uuid.uuid4()).upper()

        response = httpx.get(f"{uri}/anything", headers={"x-ms-invocation-id": forged})

        assert response.status_code == 400
        assert "No invocation" in error_of(response)["message"]


class TestCallers:
    def test_with_keys_only_they_get_in(self, tmp_path: Path) -> None:
        with server(tmp_path, COMPANION_API_KEYS="key-of-ann-000=ann,key-of-bob-000=bob") as running:
            answers = {
                key: running.get("/me", headers={"authorization": f"Bearer {key}"} if key else {})
                for key in ("key-of-bob-000", "key-of-eve-000", "")
            }

        assert answers["key-of-bob-000"].json()["owner"] == "bob"
        assert answers["key-of-eve-000"].status_code == answers[""].status_code == 401
        assert "Incorrect API key provided: key********-000" in error_of(answers["key-of-eve-000"])["message"]

    def test_a_page_of_another_site_gets_nothing_of_the_local_owner(self, tmp_path: Path) -> None:
        with server(tmp_path) as running:
            own = running.get("/me", headers={"origin": f"http://localhost:{running.port}"})
            foreign = running.get("/me", headers={"origin": "https://evil.example"})
            rebound = running.get("/me", headers={"host": "evil.example"})

        assert [answer.status_code for answer in (own, foreign, rebound)] == [200, 403, 403]

    def test_it_listens_for_others_only_with_keys(self, tmp_path: Path) -> None:
        command = [sys.executable, "-m", "localhost", "--app", str(EDGES), "--port", "0", "--data", str(tmp_path)]

        refused = run_to_end([*command, "--host", "0.0.0.0"])

        assert refused.returncode == 2
        assert b"COMPANION_API_KEYS" in refused.stderr

    def test_a_taken_port_is_said_so(self, tmp_path: Path) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            command = [sys.executable, "-m", "localhost", "--app", str(EDGES), "--data", str(tmp_path)]

            refused = run_to_end([*command, "--port", str(taken.getsockname()[1])])

        assert refused.returncode == 2
        assert b"Choose another with --port" in refused.stderr


class TestTimers:
    def test_a_timer_fires_each_second_it_names(self, tmp_path: Path) -> None:
        with server(tmp_path, TICK="* * * * * *") as running:
            wait_for(lambda: len(running.state()["ticks"]) >= 3)

            assert set(running.state()["ticks"]) == {False}

    def test_a_missed_run_is_made_up_for_and_called_past_due(self, tmp_path: Path) -> None:
        (tmp_path / "timers.json").write_text('{"tick": {"last": 1.0, "next": 2.0}}')

        with server(tmp_path) as running:
            wait_for(lambda: running.state()["ticks"] == [True])

    def test_a_schedule_that_cannot_be_read_is_said_at_the_start(self, tmp_path: Path) -> None:
        command = [sys.executable, "-m", "localhost", "--app", str(EDGES), "--port", "0", "--data", str(tmp_path)]

        ended = run_to_end(command, TICK="every now and then")

        assert ended.returncode == 2
        assert b"not a schedule: 'every now and then'" in ended.stderr

    def test_one_of_several_processes_runs_the_timers_and_another_takes_over(self, tmp_path: Path) -> None:
        with server(tmp_path, TICK="* * * * * *") as first:
            wait_for(lambda: first.state()["ticks"])
            with server(tmp_path, TICK="* * * * * *") as second:
                wait_for(lambda: len(first.state()["ticks"]) >= 3)
                before = second.state()["ticks"]
                first.process.terminate()
                wait_for(lambda: second.state()["ticks"])

        assert before == []


class TestQueues:
    def test_a_message_is_worked_on_until_it_succeeds_or_has_failed_too_often(self) -> None:
        ended = run_to_end([sys.executable, str(EDGES.parent / "queued.py")])

        assert ended.returncode == 0, ended.stderr.decode()
        result = json.loads(ended.stdout)
        assert (result["completed"], result["buried"]) == (["m0"], ["m1"])
        assert sorted(result["jobs"]) == [["bad", "m1", 1], ["bad", "m1", 2], ["bad", "m1", 3], ["good", "m0", 1]]
