"""Routes as they are written, and put in force without a restart."""

import asyncio
from pathlib import Path

import orjson
import pytest

from shared.clock import ManualClock, SystemClock
from shared.ids import CountedIds
from shared.models.base import Finished, Json, ModelRequest
from shared.models.build import build_router
from shared.models.operator import delete_routes, find_routes, put_routes, routes_reader
from shared.models.router import Router
from shared.models.routes import parse_routes
from shared.models.shadow import OPERATOR, shadow_keeper
from shared.settings import ModelSettings, Settings, SettingsError
from shared.storage.base import STATE, Query
from shared.storage.sqlite import SqliteStore
from shared.usage.meter import month_id

OFFLINE = {"endpoint": "offline", "model": "companion"}
SMALL: Json = {"deployments": {"main": OFFLINE}, "models": {"companion": {"chain": ["main"]}}}


def settings(routes: str = "", **variables: str) -> ModelSettings:
    return Settings.read({"COMPANION_OFFLINE_DELAY": "0", "COMPANION_ROUTES": routes, **variables}).model


def text(**changes: object) -> str:
    return orjson.dumps({**SMALL, **changes}).decode()


async def deployment_of(router: Router, model: str = "companion") -> str:
    item: Json = {"type": "message", "role": "user", "content": "hi"}
    events = [event async for event in router.stream(ModelRequest(model=await router.resolve(model), items=[item]))]
    assert isinstance(events[-1], Finished)
    return events[-1].deployment


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"models": {"m": {"chain": ["nowhere"]}}}, "'nowhere', which is none of the deployments"),
        ({"models": {"m": {"chain": []}}}, "models.m.chain"),
        ({"models": {"m": {"chain": [{"main": 0}]}}}, "weights"),
        ({"aliases": {"a": "b"}}, "alias 'a'"),
        ({"deployments": {"main": {**OFFLINE, "prize": 1}}}, "deployments.main.prize"),
        ({"deployments": {"main": {"endpoint": "x", "model": "m"}}}, "deployments.main"),
        ({"deployments": {"main": {**OFFLINE, "key": "NO_SUCH_KEY"}}}, "NO_SUCH_KEY"),
        ({"models": {"m": {"chain": ["main"], "canary": {"deployment": "main", "percent": 101}}}}, "percent"),
        ({"deployments": {"main": {**OFFLINE, "model": ""}}}, "deployments.main.model"),
        ({"models": {"": {"chain": ["main"]}}}, "models"),
        ({"deployments": {"main": {"endpoint": "http://user:pass@host/v1", "model": "m"}}}, "plain URL"),
        ({"deployments": {"main": {"endpoint": "http://host/v1\r\nX: y", "model": "m"}}}, "plain URL"),
        ({"deployments": {"main": {**OFFLINE, "key": "PATH"}}}, "'PATH'"),
        ({"deployments": {"main": {**OFFLINE, "key": "COSMOS_KEY"}}}, "'COSMOS_KEY'"),
    ],
)
def test_what_cannot_be_used_is_refused_naming_the_place(changes: Json, complaint: str) -> None:
    with pytest.raises(SettingsError, match="COMPANION_ROUTES") as caught:
        parse_routes(text(**changes))
    assert complaint in str(caught.value)


def test_yaml_is_as_good_as_json() -> None:
    written = "deployments:\n  main: {endpoint: offline, model: companion}\nmodels:\n  companion: {chain: [main]}\n"

    assert parse_routes(written) == parse_routes(text())


@pytest.mark.parametrize(
    "written",
    [
        "deployments: {a: {endpoint: offline, model: m}}\nmodels: {x: {chain: [{a: .inf}]}}",
        "deployments: {a: {endpoint: offline, model: m, prices: {input: .inf, output: 1}}}\nmodels: {x: {chain: [a]}}",
        "[" * 100_000,
        "!!python/object/apply:os.system ['true']",
    ],
)
def test_numbers_without_end_depths_without_end_and_foreign_tags_are_refused(written: str) -> None:
    with pytest.raises(SettingsError):
        parse_routes(written)


def test_what_is_neither_is_refused() -> None:
    with pytest.raises(SettingsError, match="neither JSON nor YAML"):
        parse_routes("{a: [}")


async def test_models_and_aliases_are_listed_and_lead_somewhere() -> None:
    router = build_router(settings(text(aliases={"gpt-4o": "companion"})))

    assert [model["id"] for model in await router.models()] == ["companion", "gpt-4o"]
    assert await deployment_of(router, "gpt-4o") == "main"


async def test_companion_is_the_first_model_where_nothing_else_is() -> None:
    router = build_router(settings(text(models={"other": {"chain": ["main"]}})))

    assert await deployment_of(router) == "main"


async def test_an_azure_endpoint_without_a_key_is_keyless_and_another_takes_the_named_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MY_KEY", "k")
    routes = text(
        deployments={
            "main": {"endpoint": "https://x.openai.azure.com", "model": "gpt"},
            "spare": {"endpoint": "https://api.openai.com/v1", "model": "gpt", "key": "MY_KEY"},
        }
    )

    router = build_router(settings(routes))

    assert [each.upstream for each in (await router.route("companion")).deployments] == ["gpt"]
    await router.close()


async def test_a_file_that_changes_is_in_force_without_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "routes.json"
    path.write_text(text())
    router = build_router(settings(str(path), COMPANION_ROUTES_REFRESH="0.05"))
    before = await deployment_of(router)
    path.write_text(text(deployments={"next": OFFLINE}, models={"companion": {"chain": ["next"]}}))
    await asyncio.sleep(0.06)
    await router.resolve("companion")
    await asyncio.sleep(0.02)

    assert (before, await deployment_of(router)) == ("main", "next")
    await router.close()


async def test_a_change_that_cannot_be_used_leaves_the_old_in_force(tmp_path: Path) -> None:
    path = tmp_path / "routes.json"
    path.write_text(text())
    router = build_router(settings(str(path)))
    path.write_text("{}")

    with pytest.raises(SettingsError):
        await router.refresh()
    assert await deployment_of(router) == "main"
    await router.close()


def test_a_file_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="COMPANION_ROUTES"):
        build_router(settings(str(tmp_path / "none.json")))


async def test_evidence_survives_a_change_elsewhere() -> None:
    store = SqliteStore(":memory:", SystemClock())
    router = build_router(settings(text()), read_routes=routes_reader(store))
    await deployment_of(router)
    await put_routes(store, text(aliases={"a": "companion"}), by="op", now=1.0)
    await router.refresh()

    assert router.figures()["deployments"]["main"]["calls"] == 1
    await router.close()
    await store.close()


async def test_stored_routes_are_in_force_from_the_first_call_and_go_back_when_deleted() -> None:
    store = SqliteStore(":memory:", SystemClock())
    await put_routes(store, text(), by="op", now=1.0)
    router = build_router(settings(), read_routes=routes_reader(store))
    stored = await deployment_of(router)
    await delete_routes(store)
    await delete_routes(store)
    await router.refresh()

    assert (stored, await deployment_of(router)) == ("main", "offline")
    assert await find_routes(store) is None
    await router.close()
    await store.close()


async def test_routes_that_cannot_be_used_are_not_stored() -> None:
    store = SqliteStore(":memory:", SystemClock())

    with pytest.raises(SettingsError):
        await put_routes(store, "{}", by="op", now=1.0)
    assert await find_routes(store) is None
    await store.close()


async def test_what_a_shadow_said_is_its_owners_data_and_the_operators_cost() -> None:
    store = SqliteStore(":memory:", SystemClock())
    keep = shadow_keeper(store, ManualClock(), CountedIds())

    await keep("ada", {"turn": "resp_1", "model": "m", "deployment": "new", "text": "hi", "seconds": 1.0, "cost": 0.5})

    kept = await store.query(STATE, "ada", Query(kind="shadow", group="shadow"))
    charged = await store.read(STATE, OPERATOR, month_id(ManualClock().now()))
    assert [record.body["text"] for record in kept] == ["hi"]
    assert charged is not None
    assert next(iter(charged.body["days"].values()))["new"]["cost"] == 0.5
    await store.close()
