"""Four real processes on one folder behind a proxy, under fire; `make soak` does the same with a thousand turns."""

import asyncio
from pathlib import Path

import pytest

from tests.processes import EMULATOR_KEY, cosmos_emulator
from tests.soak.chaos import Plan, run


@pytest.mark.timeout(300)
def test_no_turn_is_lost_whatever_happens_to_the_processes(tmp_path: Path) -> None:
    """Killed, stopped past their leases, asked to end; connections cut; three in ten calls of the model go wrong."""
    result = asyncio.run(run(Plan(turns=60, users=8, gap=0.6), tmp_path))

    assert not result.figures.violations
    assert result.figures.turns == 60
    assert result.figures.breaks > 0
    assert result.notes["Taken over from a host that stopped"] > 0


@pytest.mark.timeout(300)
def test_turns_survive_hang_ups_and_a_troubled_model_on_cosmos_db(tmp_path: Path) -> None:
    """On the npm emulator, whose failed batches are not atomic: so one process, and no death of it.

    What two processes do to one another is shown on SQLite, and on the simulation's store.
    """
    with cosmos_emulator() as endpoint:
        cosmos = {"COSMOS_ENDPOINT": endpoint, "COSMOS_KEY": EMULATOR_KEY}
        result = asyncio.run(run(Plan(turns=12, users=4, hosts=1, settings=cosmos), tmp_path))

    assert not result.figures.violations
    assert result.figures.turns == 12
    assert result.figures.hang_ups > 0
