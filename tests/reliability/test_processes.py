"""Four real processes on one folder behind a proxy, under fire; `make soak` does the same with a thousand turns."""

import asyncio
import random
import signal
from pathlib import Path

import pytest

from tests.processes import EMULATOR_KEY, cosmos_emulator
from tests.soak.chaos import Plan, run, settings_of
from tests.soak.fleet import running
from tests.soak.upstream import TroubledModel, serving
from tests.soak.users import Figures, User


@pytest.mark.timeout(300)
def test_no_turn_is_lost_whatever_happens_to_the_processes(tmp_path: Path) -> None:
    """Killed, stopped past their leases, asked to end; connections cut; three in ten calls of the model go wrong."""
    result = asyncio.run(run(Plan(turns=60, users=8, gap=0.6), tmp_path))

    assert not result.figures.violations
    assert result.figures.turns == 60
    assert result.figures.breaks > 0
    assert result.notes["Taken over from a host that stopped"] > 0


@pytest.mark.timeout(300)
async def test_a_server_that_is_asked_to_end_breaks_each_stream_at_most_once(tmp_path: Path) -> None:
    """Answers take longer than its drain: another goes on with them, and clients are shown every event once."""
    patience = {"COMPANION_MODEL_TIMEOUT": "60"}
    plan, figures = Plan(users=6, hosts=2, words=90, pace=0.1, settings=patience), Figures()
    model = TroubledModel(trouble=0, words=plan.words, pace=plan.pace, seed="drain")
    async with serving(model) as upstream, running(plan.hosts, tmp_path, settings_of(plan, upstream)) as fleet:
        users = [User(fleet.url, f"key{n}", figures, random.Random(n), hang_ups=0) for n in range(plan.users)]
        for user in users:
            await user.begin("drain")
        asked = [asyncio.create_task(user.take_turn("drain", background=False)) for user in users]
        await asyncio.sleep(1.5)
        leaving = fleet.members[0]
        leaving.is_ready = False
        leaving.send(signal.SIGTERM)
        await leaving.ended()
        await asyncio.gather(*asked)
        replays = [await user.replay(user.turns[0]) for user in users]
        for user in users:
            await user.close()

    turns = [user.turns[0] for user in users]
    assert not figures.violations
    assert [turn.status for turn in turns] == ["completed"] * plan.users
    assert replays == [turn.blocks for turn in turns]
    assert {turn.breaks for turn in turns} == {0, 1}


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
