"""The counts of bench/budgets.toml: what a turn costs in operations and request units, and what indexing imports."""

import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest

from shared.app import App
from shared.bootstrap import build_app
from shared.models.offline import OfflineModel
from shared.models.router import Router
from shared.settings import Settings
from shared.telemetry import Tally
from shared.turns.begin import begin_turn
from shared.turns.follow import follow_live
from shared.turns.prepare import TurnRequest
from shared.wire.responses import CreateResponse
from tests.unit.turns.asking import CALLER

ROOT = Path(__file__).parents[2]
BUDGETS: dict[str, Any] = tomllib.loads((ROOT / "bench/budgets.toml").read_text())

_INDEXED = "import sys, function_app; function_app.app.get_functions(); print(*sorted(sys.modules))"


@pytest.fixture(scope="module")
def indexed() -> set[str]:
    """Modules of a fresh process that has imported and indexed the app; the process before it kept the index."""
    _imported()
    return _imported()


def _imported() -> set[str]:
    command = [sys.executable, "-c", _INDEXED]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())


def test_indexing_imports_no_more_modules_than_budgeted(indexed: set[str]) -> None:
    assert len(indexed) <= BUDGETS["index"]["modules"]


@pytest.mark.parametrize("name", BUDGETS["index"]["never"])
def test_indexing_does_not_import(indexed: set[str], name: str) -> None:
    assert name not in indexed


async def test_a_plain_stored_turn_stays_within_its_operations_and_charge(tmp_path: Path) -> None:
    tally = await _streamed_turn(tmp_path, words=3, seconds=0.0)
    budget = BUDGETS["turn"]

    appends = tally.counts["batch"] - budget["batches"]
    assert appends <= budget["appends_short"]
    assert tally.operations - appends <= budget["operations"]
    assert tally.counts["read"] <= budget["reads"]
    assert tally.counts.get("query", 0) <= budget["queries"]
    assert tally.charge <= budget["charge_short"]


async def test_a_streamed_second_appends_once_an_interval_and_extrapolates_within_the_charge(tmp_path: Path) -> None:
    began = time.monotonic()
    short = await _streamed_turn(tmp_path / "short", words=3, seconds=0.0)
    longer = await _streamed_turn(tmp_path / "longer", words=100, seconds=1.0)
    seconds = time.monotonic() - began  # a busy machine takes longer over its pauses

    added = longer.counts["batch"] - short.counts["batch"]
    assert added <= seconds / (0.97 * Settings.read({}).turn.interval) + 1
    assert short.charge + (longer.charge - short.charge) * 10 / seconds <= BUDGETS["turn"]["charge_ten_seconds"]


async def _streamed_turn(data: Path, *, words: int, seconds: float) -> Tally:
    """What a stored turn outside a conversation costs while a client reads its stream."""
    settings = Settings.read({"COMPANION_DATA": str(data), "COMPANION_TITLES": "off"})
    app: App = build_app(settings, models=Router.over(OfflineModel(word_delay=seconds / words)))
    try:
        with Tally() as tally:
            create = CreateResponse.model_validate({"input": f"write {words} words", "model": "companion"})
            live = await begin_turn(app, CALLER, TurnRequest(create=create))
            async for _ in follow_live(app, CALLER.owner, live):
                pass
        return tally
    finally:
        await app.close()
