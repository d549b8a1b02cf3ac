"""The whole app on the real runtime, for tests with several owners: clients by key, and jobs run by hand."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson

from functions._edge import override_app
from localhost.testing import LOCAL, app_on_runtime
from shared.app import App
from shared.bootstrap import build_app
from shared.clock import Clock
from shared.jobs.store_queue import StoreQueue
from shared.models.base import Model
from shared.models.offline import OfflineModel
from shared.models.router import Router
from shared.privacy.service import run_message
from shared.settings import Settings

type Json = dict[str, Any]

ANN, BOB = "sk-ann-0123456789", "sk-bob-0123456789"
KEYS = f"{ANN}=ann,{BOB}=bob"


@dataclass(slots=True)
class Service:
    """A running app."""

    app: App
    transport: httpx.ASGITransport

    def client(self, token: str | None = ANN, **headers: str) -> httpx.AsyncClient:
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        return httpx.AsyncClient(transport=self.transport, base_url=LOCAL, headers=headers, timeout=30)

    async def run_jobs(self) -> int:
        """What the queue trigger would do; returns how many messages there were."""
        queue = self.app.queue
        assert isinstance(queue, StoreQueue)
        count = 0
        while (message := await queue.receive("jobs")) is not None:
            await run_message(self.app, orjson.loads(message.body))
            await queue.complete("jobs", message)
            count += 1
        return count


@asynccontextmanager
async def service(
    folder: Path, *, model: Model | None = None, clock: Clock | None = None, **environ: str
) -> AsyncGenerator[Service]:
    """An app with its state in `folder`, whose callers are `ANN` and `BOB` unless the settings say otherwise."""
    settings = Settings.read(
        {
            "COMPANION_DATA": str(folder),
            "COMPANION_API_KEYS": KEYS,
            "COMPANION_TITLES": "off",
            "COMPANION_DELTA_INTERVAL": "0.01",
            **environ,
        }
    )
    overrides: Json = {"clock": clock} if clock else {}
    app = build_app(settings, models=Router.over(model or OfflineModel(word_delay=0.0)), **overrides)
    try:
        async with app_on_runtime() as host:
            with override_app(app):
                yield Service(app, httpx.ASGITransport(host))
    finally:
        await app.close(seconds=1)


async def ask(client: httpx.AsyncClient, text: str, **fields: Any) -> Json:
    """One whole turn."""
    answer = await client.post("/v1/responses", json={"model": "companion", "input": text, **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def conversation(client: httpx.AsyncClient, **fields: Any) -> str:
    answer = await client.post("/v1/conversations", json=fields)
    assert answer.status_code == 200, answer.text
    return answer.json()["id"]
