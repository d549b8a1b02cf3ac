"""Flags: sticky, targeted by owner, plan and percentage; a change is seen within a minute."""

import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from shared.clock import ManualClock
from shared.flags.app_config import AppConfigFlags, load_flags
from shared.flags.base import Assignment
from shared.flags.evaluate import Evaluator
from shared.flags.file import FileFlags
from shared.principal import Principal


def flag(id_: str, **parts: Any) -> dict[str, Any]:
    return {"id": id_, "enabled": True, **parts}


def canary(percent: float, *, enabled: bool = True) -> dict[str, Any]:
    return flag(
        "model.companion",
        enabled=enabled,
        variants=[
            {"name": "old", "configuration_value": "companion"},
            {"name": "new", "configuration_value": "companion-fast"},
        ],
        allocation={
            "percentile": [{"variant": "new", "from": 0, "to": percent}],
            "default_when_enabled": "old",
            "default_when_disabled": "old",
        },
    )


def flags_of(*flags: dict[str, Any]) -> dict[str, Any]:
    return {"feature_management": {"feature_flags": list(flags)}}


OWNERS = [Principal(owner=f"owner-{number}") for number in range(2000)]


class TestEvaluator:
    def test_a_flag_that_is_not_there_is_none(self) -> None:
        assert Evaluator(flags_of()).assign("titles", OWNERS[0]) is None

    def test_a_plain_flag_is_on_or_off(self) -> None:
        flags = Evaluator(flags_of(flag("a"), flag("b", enabled=False)))

        assert [getattr(flags.assign(name, OWNERS[0]), "variant", None) for name in "ab"] == ["on", "off"]

    def test_a_percentage_gets_its_share_of_owners(self) -> None:
        flags = Evaluator(flags_of(canary(5)))
        new = [who for who in OWNERS if (got := flags.assign("model.companion", who)) and got.variant == "new"]

        assert 60 <= len(new) <= 140

    def test_an_assignment_is_the_same_on_another_host(self) -> None:
        one, two = Evaluator(flags_of(canary(50))), Evaluator(flags_of(canary(50)))

        assert [one.assign("model.companion", who) for who in OWNERS] == [
            two.assign("model.companion", who) for who in OWNERS
        ]

    def test_who_was_in_at_five_percent_stays_in_at_twenty(self) -> None:
        few, many = Evaluator(flags_of(canary(5))), Evaluator(flags_of(canary(20)))
        new = [who for who in OWNERS if (got := few.assign("model.companion", who)) and got.variant == "new"]

        assert {many.assign("model.companion", who) for who in new} == {Assignment("new", "companion-fast")}

    def test_the_kill_switch_gives_everybody_the_old_one(self) -> None:
        flags = Evaluator(flags_of(canary(100, enabled=False)))

        assert {getattr(flags.assign("model.companion", who), "variant", None) for who in OWNERS} == {"old"}

    @pytest.mark.parametrize(
        ("who", "variant"),
        [
            (Principal(owner="ada"), "new"),
            (Principal(owner="bob", plan="pro"), "new"),
            (Principal(owner="carl", is_guest=True), "old"),
            (Principal(owner="dora"), "old"),
        ],
    )
    def test_owners_and_plans_are_targeted(self, who: Principal, variant: str) -> None:
        targeted = flag(
            "prompt.companion",
            variants=[{"name": "old", "configuration_value": "1"}, {"name": "new", "configuration_value": "2"}],
            allocation={
                "user": [{"variant": "new", "users": ["ada"]}],
                "group": [{"variant": "new", "groups": ["pro"]}, {"variant": "old", "groups": ["guest"]}],
                "default_when_enabled": "old",
            },
        )
        got = Evaluator(flags_of(targeted)).assign("prompt.companion", who)

        assert got is not None and got.variant == variant

    def test_a_percentage_turned_down_to_nothing_leaves_the_rest_of_the_flag(self) -> None:
        targeted = canary(0)
        targeted["allocation"]["user"] = [{"variant": "new", "users": ["ada"]}]
        flags = Evaluator(flags_of(targeted))

        variants = {getattr(flags.assign("model.companion", who), "variant", None) for who in OWNERS}

        assert variants == {"old"}
        assert flags.assign("model.companion", Principal(owner="ada")) == Assignment("new", "companion-fast")

    def test_a_flag_nobody_can_evaluate_counts_as_none(self) -> None:
        broken = flag("titles", conditions={"client_filters": [{"name": "No.Such.Filter"}]})
        flags = Evaluator(flags_of(broken, flag("other")))

        assert flags.assign("titles", OWNERS[0]) is None
        assert flags.names == {"other"}


class TestFile:
    def write(self, path: Path, *flags: dict[str, Any]) -> None:
        path.write_text(json.dumps(flags_of(*flags)))

    async def test_a_change_is_seen_after_half_a_minute(self, tmp_path: Path) -> None:
        path, clock = tmp_path / "flags.json", ManualClock()
        self.write(path, canary(100))
        flags = FileFlags(str(path), clock)
        await flags.fresh()
        before = flags.assign("model.companion", OWNERS[0])
        self.write(path, canary(100, enabled=False))
        await clock.sleep(30)
        await flags.fresh()
        after = flags.assign("model.companion", OWNERS[0])

        assert (before and before.variant, after and after.variant) == ("new", "old")

    @pytest.mark.parametrize(
        "content",
        ["{", "[]", "", '{"feature_management": 5}', '{"feature_management": {"feature_flags": [5]}}', "[" * 100_000],
    )
    async def test_a_broken_file_leaves_the_flags_as_they_were(self, tmp_path: Path, content: str) -> None:
        path, clock = tmp_path / "flags.json", ManualClock()
        self.write(path, flag("titles"))
        flags = FileFlags(str(path), clock)
        await flags.fresh()
        path.write_text(content)
        await clock.sleep(31)
        await flags.fresh()

        assert flags.assign("titles", OWNERS[0]) is not None

    async def test_a_file_that_comes_later_is_found(self, tmp_path: Path) -> None:
        path, clock = tmp_path / "flags.json", ManualClock()
        flags = FileFlags(str(path), clock)
        await flags.fresh()
        self.write(path, flag("titles"))
        await clock.sleep(31)
        await flags.fresh()

        assert flags.assign("titles", OWNERS[0]) is not None


class Store:
    """As much of App Configuration as its own client asks for."""

    def __init__(self) -> None:
        self.flags: list[dict[str, Any]] = []
        self.fails = False
        self.reads = 0

    async def list(self, request: web.Request) -> web.Response:
        if self.fails:
            return web.json_response({}, status=403)
        is_flags = request.query.get("key", "").startswith(".appconfig.featureflag")
        self.reads += is_flags
        etag = f'"{hash(json.dumps(self.flags)) if is_flags else 0}"'
        if request.headers.get("if-none-match") == etag:
            return web.Response(status=304, headers={"etag": etag})
        items: list[dict[str, Any]] = [
            {
                "key": f".appconfig.featureflag/{entry['id']}",
                "value": json.dumps(entry),
                "content_type": "application/vnd.microsoft.appconfig.ff+json;charset=utf-8",
                "etag": etag,
                "locked": False,
                "last_modified": "2026-11-21T00:00:00+00:00",
                "tags": {},
            }
            for entry in self.flags
        ]
        return web.json_response(
            {"items": items if is_flags else []},
            headers={"etag": etag},
            content_type="application/vnd.microsoft.appconfig.kvset+json",
        )


class TestAppConfiguration:
    async def test_flags_are_read_and_a_kill_switch_seen_and_an_outage_survived(
        self, unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One store through its own client: read, changed, gone."""
        store, clock = Store(), ManualClock()
        app = web.Application()
        app.router.add_get("/kv", store.list)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", unused_tcp_port).start()
        secret = f"Endpoint=http://127.0.0.1:{unused_tcp_port};Id=x;Secret=c2VjcmV0"
        flags = AppConfigFlags("http://store", clock, open_=lambda: load_flags(connection_string=secret))
        # The client's own timer has no other clock.
        monkeypatch.setattr("azure.appconfiguration.provider._refresh_timer.time.time", clock.now)
        try:
            seen: list[str | None] = []
            store.flags = [canary(100)]
            await self._look(flags, seen)
            store.flags = [canary(100, enabled=False)]
            await clock.sleep(56)
            await self._look(flags, seen)
            store.fails = True
            await clock.sleep(56)
            await self._look(flags, seen)
        finally:
            await flags.close()
            await runner.cleanup()

        assert seen == ["new", "old", "old"]

    async def _look(self, flags: AppConfigFlags, seen: list[str | None]) -> None:
        await flags.fresh()
        got = flags.assign("model.companion", OWNERS[0])
        seen.append(got.variant if got else None)

    async def test_a_store_that_was_never_reached_means_no_flags(self) -> None:
        async def refuse() -> None:
            raise OSError

        flags = AppConfigFlags("http://store", ManualClock(), open_=refuse)
        await flags.fresh()

        assert flags.assign("titles", OWNERS[0]) is None
