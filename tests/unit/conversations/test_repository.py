"""What lists of turns read."""

from shared.conversations.repository import turns_of
from shared.models.offline import OfflineModel
from shared.telemetry import Tally
from tests.unit.turns.asking import CALLER, ask, conversation
from tests.unit.turns.conftest import MakeApp, make_app

__all__ = ["make_app"]


async def test_many_forks_in_a_row_are_read_in_whole_pages(make_app: MakeApp) -> None:
    """However few turns are asked for."""
    app = make_app(OfflineModel(word_delay=0.0))
    conv = await conversation(app)
    first = await ask(app, "one", conversation=conv)
    for number in range(30):
        await ask(app, f"fork {number}", previous_response_id=first.id)
    second = await ask(app, "two", conversation=conv)
    with Tally() as tally:
        found = await turns_of(app.store, CALLER.owner, conv, after=None, order="asc", limit=3)

    assert [turn.id for turn in found] == [first.id, second.id]
    assert tally.counts == {"query": 2}
