"""The chat page in a real browser: talking, answers, and everybody's way of using it."""

import pytest

from tests.web.browser import Browser
from tests.web.conftest import Shared

SCENARIOS = {
    "conversation": "A conversation is held, named, listed; each answer says its model, time and cost.",
    "list": "Conversations are found, renamed, pinned, deleted and had back.",
    "openChanged": "A new title or a pin of the open conversation shows at once, and stays.",
    "share": "A conversation is shared by a link that anybody can open, until it is taken back.",
    "sharedBefore": "The links of a conversation are shown again, and each can be taken back.",
    "stop": "An answer can be stopped by button and by key; what was said stays.",
    "stopAway": "An answer that was stopped and left leaves the next one stoppable.",
    "stopAgain": "After an answer that was stopped, the next message can be stopped while it is on its way.",
    "stopRefused": "Stopping a message that is then refused does not stop the next one.",
    "regenerate": "Another answer to the same question, and the way between them.",
    "versionsBusy": "The way to another version is closed while an answer is written.",
    "branches": "An edited question begins a branch; each branch keeps its own past and future.",
    "editFailed": "An edited question whose answer failed is found again after a reload.",
    "editBusy": "An edit that is sent while an answer is written waits, and keeps its words.",
    "attach": "Images and files by button, paste and drop; a draft keeps them.",
    "models": "The model can be chosen, and the choice stays.",
    "markdown": "Tables, coloured code, formulas and links; code and answers can be copied.",
    "prices": "Amounts of money are not formulas, character references are characters.",
    "hostile": "An answer full of hostile markdown does nothing but stand there.",
    "errors": "Errors are said in plain words, and trying again is one turn, however often one clicks.",
    "refused": "A message that was refused can be changed and sent.",
    "spent": "A spent allowance is called that, not a busy model.",
    "lost": "An address of nothing says so.",
    "keyboard": "Everything works without a mouse.",
    "deletedByKey": "What is deleted by keyboard leaves the focus with its neighbour.",
    "escaped": "Escape closes the list on a phone, after what is open in it.",
    "phone": "Everything fits a phone.",
    "zoomed": "At 200 % a long draft leaves room for the conversation and its own buttons.",
    "axe": "axe-core finds nothing serious, light and dark, wide and narrow.",
    "spoken": "A screen reader is told of an answer and its text.",
    "languages": "The page speaks German, and text runs in the direction of its letters.",
    "motion": "Nothing moves for those who asked for that.",
    "colours": "Light and dark by the system, or as chosen.",
    "firstView": "The first view loads less than 250 KB of script, and no highlighter.",
    "firstToken": "The first words are shown in the frame after they arrived.",
}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_page(browser: Browser, shared: Shared, scenario: str) -> None:
    browser.play(scenario, shared.base, key=f"key-{shared.next_owner()}")


def test_a_key_is_asked_for_and_forgotten(browser: Browser, shared: Shared) -> None:
    browser.play("key", shared.base, entered=f"key-{shared.next_owner()}")
