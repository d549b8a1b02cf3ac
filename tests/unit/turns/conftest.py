"""A whole app in memory: SQLite in memory, a scripted model, the real engine."""

from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

from shared.app import App
from shared.bootstrap import build_app
from shared.clock import Clock, SystemClock
from shared.models.base import Model
from shared.models.router import Router
from shared.models.scripted import ScriptedModel
from shared.principal import Principal
from shared.settings import Settings
from shared.storage.sqlite import SqliteStore
from shared.tools.registry import ToolRegistry

CALLER = Principal(owner="ada")

type MakeApp = Callable[..., App]


@pytest.fixture
async def make_app() -> AsyncGenerator[MakeApp]:
    """`make_app(model, tools=…, clock=…, COMPANION_…="…")`; closed at the end of the test."""
    apps: list[App] = []
    shared_store = SqliteStore(":memory:", SystemClock())

    def make(
        model: Model | None = None, *, tools: ToolRegistry | None = None, clock: Clock | None = None, **environ: str
    ) -> App:
        settings = Settings.read({"COMPANION_TITLES": "off", "COMPANION_DELTA_INTERVAL": "0.01", **environ})
        overrides: dict[str, Any] = {name: given for name, given in (("tools", tools), ("clock", clock)) if given}
        router = Router.over(model or ScriptedModel())
        app = build_app(settings, store=shared_store, models=router, **overrides)
        apps.append(app)
        return app

    yield make
    for app in apps:
        await app.close(seconds=0.2)
