"""Why this answer, and the engineer's walk: canary, figures, promote, roll back; over HTTP, without a restart."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from evals.report import terminal_table
from evals.run import evaluate, read_dataset
from evals.targets import Target
from functions._edge import override_app
from localhost.testing import LOCAL, app_on_runtime, serving
from shared.app import App
from shared.bootstrap import build_app
from shared.clock import SystemClock
from shared.models.base import Finished, ModelRequest
from shared.settings import Settings
from shared.storage.sqlite import SqliteStore
from shared.telemetry.signals import signals

type Json = dict[str, Any]

HELLO: Json = {"type": "message", "role": "user", "content": "hello"}
OFFLINE = {"endpoint": "offline", "model": "companion"}


@asynccontextmanager
async def companion(**variables: str) -> AsyncGenerator[tuple[httpx.AsyncClient, App]]:
    store = SqliteStore(":memory:", SystemClock())
    environ = {"COMPANION_LOCAL_OWNER": "local", "COMPANION_OFFLINE_DELAY": "0", "COMPANION_TITLES": "off"}
    app = build_app(Settings.read({**environ, **variables}), store=store)
    async with (
        app_on_runtime() as host,
        httpx.AsyncClient(transport=httpx.ASGITransport(host), base_url=LOCAL) as client,
    ):
        with override_app(app):
            yield client, app
        await app.close(seconds=1)


async def ask(client: httpx.AsyncClient, **body: Any) -> Json:
    answer = await client.post("/v1/responses", json={"input": "hello", **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def trace_of(client: httpx.AsyncClient, response: Json, **headers: str) -> Json:
    answer = await client.get(f"/v1/responses/{response['id']}/trace", headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_trace_says_what_the_turn_did() -> None:
    async with companion() as (client, _):
        first = await ask(client, instructions="Be brief.")
        second = await ask(client, previous_response_id=first["id"])
        trace = await trace_of(client, second)

    call = trace["calls"][0]
    assert (trace["status"], trace["deployment"], trace["attempt"]) == ("completed", "offline", 1)
    assert (call["deployment"], call["reason"], call["outcome"]) == ("offline", "primary", "ok")
    assert trace["context"]["history_turns"] == 1
    assert 0 < trace["context"]["input"] < trace["context"]["budget"] < trace["context"]["window"]
    assert (trace["model"], trace["route"], call["provider"]) == ("companion", "companion", "offline")
    timings = trace["timings"]
    assert 0 <= timings["prepare_ms"] <= timings["accept_ms"] <= timings["total_ms"]
    assert timings["first_token_ms"] >= 0
    assert trace["storage"]["request_charge"] > 0
    assert trace["storage"]["operations"]["read"] >= 1
    assert trace["usage"] == second["usage"]


async def test_a_tool_that_ran_here_is_in_the_trace() -> None:
    async with companion() as (client, _):
        tools = [{"type": "mcp", "server_label": "companion", "require_approval": "never"}]
        response = await ask(client, input="call current_time {}", tools=tools)
        trace = await trace_of(client, response)

    assert [(tool["name"], tool["failed"]) for tool in trace["tools"]] == [("current_time", False)]
    assert len(trace["calls"]) == 2


async def test_what_is_not_yours_is_not_there() -> None:
    async with companion(COMPANION_API_KEYS="a=ada,b=bob", COMPANION_LOCAL_OWNER="") as (client, _):
        ada, bob = {"authorization": "Bearer a"}, {"authorization": "Bearer b"}
        response = (await client.post("/v1/responses", json={"input": "hi"}, headers=ada)).json()
        yours = await client.get(f"/v1/responses/{response['id']}/trace", headers=ada)
        others = await client.get(f"/v1/responses/{response['id']}/trace", headers=bob)
        nobody = await client.get(f"/v1/responses/{response['id']}x/trace", headers=ada)

    assert [answer.status_code for answer in (yours, others, nobody)] == [200, 404, 404]


async def test_cost_is_on_the_trace_and_in_the_usage() -> None:
    async with companion() as (client, app):
        prices = {"input": 1000.0, "output": 1000.0}
        routes = {
            "deployments": {"main": {**OFFLINE, "prices": prices}},
            "models": {"companion": {"chain": ["main"]}},
        }
        assert (await client.put("/v1/admin/routes", json=routes)).status_code == 200
        response = await ask(client)
        trace = await trace_of(client, response)
        figures = (await client.get("/v1/admin/routes")).json()
        assert app.models.price("companion", 1000, 0) == 1.0

    assert trace["cost"] == pytest.approx(response["usage"]["total_tokens"] / 1000)
    assert response["usage"]["cost"] == trace["usage"]["cost"] == trace["cost"]
    assert figures["deployments"]["main"]["cost"] == pytest.approx(trace["cost"], rel=1e-3)


async def test_every_answer_says_what_it_cost() -> None:
    priced = {"deployments": {"main": {**OFFLINE, "prices": {"input": 1000.0, "output": 1000.0}}}}
    messages = [{"role": "user", "content": "hello"}]
    streamed = {"stream": True, "stream_options": {"include_usage": True}}
    async with companion() as (client, _):
        routes = {**priced, "models": {"companion": {"chain": ["main"]}}}
        assert (await client.put("/v1/admin/routes", json=routes)).status_code == 200
        plain = await ask(client)
        events = await client.post("/v1/responses", json={"input": "hello", "stream": True})
        completion = await client.post("/v1/chat/completions", json={"model": "companion", "messages": messages})
        chunks = await client.post(
            "/v1/chat/completions", json={"model": "companion", "messages": messages, **streamed}
        )
        read = (await client.get(f"/v1/responses/{plain['id']}")).json()

    usages = [
        plain["usage"],
        sent(events.text)[-1]["response"]["usage"],
        completion.json()["usage"],
        sent(chunks.text)[-1]["usage"],
        read["usage"],
    ]
    assert [usage["cost"] for usage in usages] == [pytest.approx(usage["total_tokens"] / 1000) for usage in usages]


def sent(stream: str) -> list[Json]:
    """The payloads of a stream, its end mark aside."""
    lines = [line.removeprefix("data: ") for line in stream.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


@pytest.mark.parametrize("way", [{}, {"stream": True}, {"background": True}])
async def test_what_no_deployment_can_do_is_refused_before_anything_is_accepted(way: Json) -> None:
    async with companion() as (client, _):
        routes = {
            "deployments": {"main": {**OFFLINE, "capabilities": {"tools": False}}},
            "models": {"companion": {"chain": ["main"]}},
        }
        assert (await client.put("/v1/admin/routes", json=routes)).status_code == 200
        tools = [{"type": "custom", "name": "f"}]
        refused = await client.post("/v1/responses", json={"input": "hello", "tools": tools, **way})

    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["param"]) == (400, "unsupported_parameter", "tools")


async def test_the_engineers_walk() -> None:
    """docs/howto/canary.md, step by step."""
    old = {**OFFLINE, "prices": {"input": 2.0, "output": 8.0}}
    new = {**OFFLINE, "prices": {"input": 1.0, "output": 4.0}}

    async with companion() as (client, _):

        async def put(model: Json, others: Json | None = None) -> Json:
            routes = {"deployments": {"old": old, "new": new}, "models": {"companion": model, **(others or {})}}
            answer = await client.put("/v1/admin/routes", json=routes)
            assert answer.status_code == 200, answer.text
            return answer.json()

        async def deployments(count: int) -> list[str]:
            turns = [await ask(client, input=f"hello {number}") for number in range(count)]
            return [(await trace_of(client, turn))["deployment"] for turn in turns]

        await put({"chain": ["old"]})
        before = await deployments(5)
        # a canary at 5 %: whole conversations, and the rest stays where it is
        await put({"chain": ["old"], "canary": {"deployment": "new", "percent": 5}})
        during = await deployments(120)
        figures = (await client.get("/v1/admin/routes")).json()["deployments"]
        # its evaluation and cost beside the old one's
        await put({"chain": ["old"]}, {"candidate": {"chain": ["new"]}})
        async with app_on_runtime() as host, serving(host) as url:
            targets = [Target.parse(f"{url}/v1/{name}") for name in ("companion", "candidate")]
            runs = [await evaluate(read_dataset("basics"), target) for target in targets]
        # promote, then roll back
        await put({"chain": ["new", "old"]})
        promoted = await deployments(5)
        await put({"chain": ["old"]})
        rolled_back = await deployments(5)

    assert set(before) == {"old"}
    assert 1 <= during.count("new") <= 20
    assert figures["new"]["calls"] == during.count("new")
    assert figures["new"]["first_token_ms"]["p50"] is not None
    assert figures["new"]["cost_per_call"] == pytest.approx(figures["old"]["cost_per_call"] / 2, rel=0.2)
    assert [run.mean for run in runs] == [1.0, 1.0]
    assert runs[1].usd == pytest.approx((runs[0].usd or 0) / 2)
    assert "no difference shown" in terminal_table(runs)
    assert set(promoted) == {"new"}
    assert set(rolled_back) == {"old"}


async def test_another_host_follows_the_walk_without_a_restart(tmp_path: Path) -> None:
    """Two hosts over one store: routes that one is given are in force on the other too, within its refresh."""
    settings = {"COMPANION_DATA": str(tmp_path), "COMPANION_ROUTES_REFRESH": "0.2"}
    environ = {"COMPANION_LOCAL_OWNER": "local", "COMPANION_OFFLINE_DELAY": "0", "COMPANION_TITLES": "off"}
    other = build_app(Settings.read({**environ, **settings}))
    routes = {"deployments": {"new": OFFLINE}, "models": {"companion": {"chain": ["new"]}}}

    async def answered_by() -> str:
        events = [event async for event in other.models.stream(ModelRequest(model="companion", items=[HELLO]))]
        await asyncio.sleep(0.3)
        return events[-1].deployment if isinstance(events[-1], Finished) else ""

    before = await answered_by()
    mine = build_app(Settings.read({**environ, **settings}))
    async with (
        app_on_runtime() as host,
        httpx.AsyncClient(transport=httpx.ASGITransport(host), base_url=LOCAL) as client,
    ):
        with override_app(mine):
            assert (await client.put("/v1/admin/routes", json=routes)).status_code == 200
            during = [await answered_by() for _ in range(3)][-1]
            assert (await client.delete("/v1/admin/routes")).status_code == 200
            after = [await answered_by() for _ in range(3)][-1]
    await mine.close(seconds=1)
    await other.close(seconds=1)

    assert (before, during, after) == ("offline", "new", "offline")


async def test_routes_that_cannot_be_used_are_refused_and_nothing_changes() -> None:
    async with companion() as (client, _):
        refused = await client.put("/v1/admin/routes", json={"deployments": {}, "models": {}})
        after = (await client.get("/v1/admin/routes")).json()

    assert refused.status_code == 400
    error = refused.json()["error"]
    assert (error["code"], error["param"]) == ("invalid_routes", "deployments")
    assert after["source"] == "settings"


async def test_only_operators_see_and_change_routes() -> None:
    keys = {"COMPANION_API_KEYS": "a=ada,b=bob", "COMPANION_LOCAL_OWNER": "", "COMPANION_OPERATORS": "bob"}
    async with companion(**keys) as (client, _):
        ada, bob = {"authorization": "Bearer a"}, {"authorization": "Bearer b"}
        statuses = [
            (await client.get("/v1/admin/routes", headers=ada)).status_code,
            (await client.put("/v1/admin/routes", headers=ada, json={})).status_code,
            (await client.delete("/v1/admin/routes", headers=ada)).status_code,
            (await client.get("/v1/admin/routes", headers=bob)).status_code,
            (await client.delete("/v1/admin/routes", headers=bob)).status_code,
        ]

    assert statuses == [403, 403, 403, 200, 200]


async def test_the_local_page_shows_the_last_turns_and_nothing_that_was_said() -> None:
    signals.close()
    async with companion() as (client, _):
        response = await ask(client, input="<script>secret words</script>")
        page = await client.get("/traces")

    assert response["id"] in page.text
    assert "secret words" not in page.text
    assert "<script" not in page.text
    assert page.headers["content-security-policy"].startswith("default-src 'none'")


async def test_there_is_no_local_page_on_a_server_with_keys() -> None:
    async with companion(COMPANION_API_KEYS="a=ada", COMPANION_LOCAL_OWNER="") as (client, _):
        assert (await client.get("/traces", headers={"authorization": "Bearer a"})).status_code == 404
