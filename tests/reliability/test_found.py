"""Bugs that the sweep and the simulation have found, each as the shortest story that shows it."""

import pytest

from tests.sim.flows import FLOWS
from tests.sim.sweep import run_flow


def test_a_turn_ends_though_its_conversation_was_deleted() -> None:
    """Its commit used to fail for ever: the header that it wants to let go of is not there any more."""
    assert not run_flow(FLOWS["conversation deleted"]).violations


@pytest.mark.parametrize("name", ["tool with an effect", "idempotent tool"])
def test_no_call_of_a_resumed_tool_loop_is_shown_what_was_torn(name: str) -> None:
    """The first one was not; those after a tool's output were."""
    assert not run_flow(FLOWS[name], A=("model.ArgumentsDelta after", 1)).violations


@pytest.mark.parametrize("number", [2, 3, 4, 5])
def test_torn_text_stays_torn_when_the_next_host_dies_too(number: int) -> None:
    """That it was torn was known to that host alone, so the third one took it for the answer."""
    outcome = run_flow(FLOWS["streamed"], A=("model.TextDelta after", 3), B=("store.batch after", number))

    assert not outcome.violations


def test_a_response_that_was_half_deleted_can_be_deleted_again() -> None:
    """Its record went first, so the retry found nothing, and its events stayed for a day."""
    for number in range(1, 9):
        assert not run_flow(FLOWS["delete"], A=("store.erase after", 1), B=number).violations
        assert not run_flow(FLOWS["delete"], A=("store.erase before", 1), B=number).violations


def test_a_stream_is_whole_when_a_turn_was_taken_twice_before_its_end() -> None:
    """The follower had taken the turn over, lost it to a canceller, and skipped what that one had appended."""
    outcome = run_flow(FLOWS["cancel, canceller dies"], A=("store.batch after", 3), B=("model.TextDelta after", 1))

    assert not outcome.violations
