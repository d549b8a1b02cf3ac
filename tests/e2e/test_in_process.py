"""The whole app on the real runtime inside the test's process, as most scenarios use it."""

from types import SimpleNamespace
from typing import Any, cast

import httpx

from functions._edge import override_app
from localhost.testing import LOCAL, app_on_runtime, serving
from shared.settings import Settings

stub = cast(Any, SimpleNamespace(settings=Settings.read({"COMPANION_LOCAL_OWNER": "local"})))


async def test_it_answers_an_asgi_client() -> None:
    async with app_on_runtime() as app, httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=LOCAL) as client:
        with override_app(stub):
            alive, missing = await client.get("/healthz"), await client.get("/v1/nowhere")

    assert (alive.status_code, missing.status_code) == (200, 404)
    assert missing.json()["error"]["code"] == "unknown_url"


async def test_it_answers_on_a_port_in_another_event_loop() -> None:
    async with app_on_runtime() as app, serving(app) as base_url, httpx.AsyncClient(base_url=base_url) as client:
        with override_app(stub):
            assert (await client.get("/healthz")).json() == {"status": "ok"}
