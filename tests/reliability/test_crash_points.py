"""A process dies before and after every call that it makes, in every flow; nothing is lost, doubled or stuck."""

import pytest

from tests.sim.flows import FLOWS
from tests.sim.sweep import pairs, points, run_flow

PAIRS = 12
"""Random pairs of deaths for each flow; `make soak` takes many more."""


@pytest.mark.parametrize("name", FLOWS)
def test_a_process_may_die_anywhere(name: str) -> None:
    flow = FLOWS[name]

    broken = {
        f"{number} ({label})": violations
        for number, label in enumerate(points(flow), start=1)
        if (violations := run_flow(flow, A=number).violations)
    }

    assert not broken


@pytest.mark.parametrize("name", FLOWS)
def test_the_process_that_goes_on_may_die_too(name: str) -> None:
    flow = FLOWS[name]

    broken = {
        (first, second): violations
        for first, second in pairs(flow, PAIRS, seed=name)
        if (violations := run_flow(flow, A=first, B=second).violations)
    }

    assert not broken
