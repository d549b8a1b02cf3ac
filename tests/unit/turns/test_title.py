"""A conversation's title: paid whatever becomes of it."""

import pytest

from shared.app import App
from shared.conversations.service import delete_conversation, update_conversation
from shared.models.offline import OfflineModel
from shared.privacy.service import erase_once
from shared.storage.base import STATE
from shared.turns.title import make_title
from shared.usage import limits
from shared.usage.meter import month_id
from shared.usage.records import UsageRecord
from tests.unit.turns.asking import CALLER, ask, conversation
from tests.unit.turns.conftest import MakeApp

PRICES = '{"*": {"input": 1, "output": 2}}'


async def cost(app: App) -> float:
    stored = await app.store.read(STATE, CALLER.owner, month_id(app.clock.now()))
    assert stored is not None
    return limits.totals(UsageRecord.model_validate(stored.body)).cost


@pytest.mark.parametrize("is_deleted", [False, True])
async def test_a_title_that_comes_too_late_is_paid_all_the_same(make_app: MakeApp, is_deleted: bool) -> None:
    """Its owner was faster with one, or deleted the conversation."""
    app = make_app(OfflineModel(word_delay=0.0), COMPANION_PRICES=PRICES)
    conv = await conversation(app)
    turn = await ask(app, "hello", conversation=conv)
    before = await cost(app)
    await update_conversation(app, CALLER.owner, conv, title="Mine")
    if is_deleted:
        await delete_conversation(app, CALLER.owner, conv)

    await make_title(app, CALLER.owner, turn)

    assert await cost(app) > before


async def test_a_title_that_comes_after_an_erasure_leaves_nothing(make_app: MakeApp) -> None:
    """Of a month that was erased bare sums are kept until it ends; as they were, or they would stay for ever."""
    app = make_app(OfflineModel(word_delay=0.0), COMPANION_PRICES=PRICES)
    turn = await ask(app, "hello", conversation=await conversation(app))
    while await erase_once(app, CALLER.owner, nobody):
        pass
    bare = [stored.body for stored in await app.store.scan(STATE, CALLER.owner)]
    await make_title(app, CALLER.owner, turn)
    after = [stored.body for stored in await app.store.scan(STATE, CALLER.owner)]
    await app.store.erase(STATE, CALLER.owner)
    await make_title(app, CALLER.owner, turn)

    assert [body["kind"] for body in bare] == ["usage"]
    assert after == bare
    assert await app.store.scan(STATE, CALLER.owner) == []


async def nobody(_: dict[str, int]) -> None:
    """Is told what an erasure found."""
