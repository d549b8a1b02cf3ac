"""The chat page when things go wrong, and when there is a lot of it."""

from pathlib import Path

import pytest

from tests.web import seeds
from tests.web.browser import Browser
from tests.web.conftest import Shared
from tests.web.servers import serving

SCENARIOS = {
    "reload": "A reload in the middle of an answer shows it, still running.",
    "killed": "A message whose page was killed is sent once by the next.",
    "unheard": "A message whose acceptance was never heard of is not sent a second time.",
    "double": "Two taps are one message.",
    "switching": "An answer goes on while another conversation is looked at.",
    "tabs": "Two tabs and another device show one stream.",
    "restoredElsewhere": "A conversation that another tab deleted and had back is shown again.",
    "forgotten": "A key that is forgotten in one of two tabs leaves both able to send.",
    "contention": "Two browsers that ask at once are answered one after the other.",
    "unwell": "A server that answers 429 or 5xx is not called one that cannot be reached.",
    "offline": "Offline is said; the message is kept, can be taken back, and is sent once.",
    "stopOffline": "Stop is said to wait while offline, and stops the answer once the connection is back.",
    "leftBehind": "A refused message that was left behind is offered by the next page, not sent.",
    "searchOffline": "A search that could not be made is not called one that found nothing.",
    "undoBeside": "What can be undone is offered beside the composer, not on it.",
    "undoOffline": "An undo that did not reach the server is said, and can be tried again.",
    "firstLoad": "A page that could not load anything does so once the connection is back.",
    "dropped": "A connection that breaks in the middle of an answer is taken up again.",
    "drafts": "What was typed survives, each conversation its own.",
    "large": "A 100 KB answer streams while the main thread has time to spare.",
}
CONVERSATIONS = 130
TURNS = 2000


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_page(browser: Browser, shared: Shared, scenario: str) -> None:
    browser.play(scenario, shared.base, key=f"key-{shared.next_owner()}")


def test_a_server_killed_in_the_middle_of_an_answer(browser: Browser, tmp_path: Path) -> None:
    """No key here: this is the page as `make run` serves it."""
    with serving(tmp_path) as server:
        browser.play("restart", server.base, answers={"kill": server.kill, "start": server.start})


async def test_the_list_goes_on_as_one_scrolls(browser: Browser, shared: Shared) -> None:
    owner = shared.next_owner()
    await seeds.write(shared.data, owner, seeds.many_conversations(CONVERSATIONS))

    browser.play("endless", shared.base, key=f"key-{owner}", conversations=CONVERSATIONS)


async def test_what_is_found_far_down_can_be_changed(browser: Browser, shared: Shared) -> None:
    owner = shared.next_owner()
    await seeds.write(shared.data, owner, seeds.many_conversations(CONVERSATIONS))

    browser.play("foundFarDown", shared.base, key=f"key-{owner}", conversations=CONVERSATIONS)


async def test_two_thousand_turns_scroll_smoothly(browser: Browser, shared: Shared) -> None:
    owner = shared.next_owner()
    records = seeds.long_conversation(owner, TURNS)
    await seeds.write(shared.data, owner, records)

    browser.play("long", shared.base, key=f"key-{owner}", conversation=records[0].id, turns=TURNS)
