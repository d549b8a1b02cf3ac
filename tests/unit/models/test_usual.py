"""What is usual of a deployment, beside the plain way to reckon it."""

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from shared.models import usual
from shared.models.usual import ENOUGH, KEPT, Usual

KIND = ("", False, 4)
SECONDS = st.integers(0, 40).map(lambda tenths: tenths / 10 + 1)
"""Few values, so that many are equal."""


@given(st.lists(st.one_of(SECONDS, st.just("lost")), min_size=ENOUGH, max_size=KEPT * 2))
def test_only_the_last_answers_count(told: list[float | str]) -> None:
    seen, plain = Usual(), deque[float](maxlen=KEPT)
    for each in told:
        if isinstance(each, float):
            seen.began(KIND, each)
            seen.ended(KIND, each)
            plain.append(each)
        else:
            seen.lost(KIND)
            if plain:
                plain.popleft()

    if len(plain) < ENOUGH:
        assert seen.first(KIND) is None
        assert seen.silence(KIND) is None
    else:
        most = sorted(plain)[int(len(plain) * 0.95) - 1]
        assert seen.first(KIND) == usual.TIMES_FIRST * most
        assert seen.silence(KIND) == usual.TIMES_SILENCE * max(plain)


def test_kinds_are_forgotten_when_there_are_too_many() -> None:
    seen = Usual()
    for size in range(usual.MOST_KINDS + 1):
        for _ in range(ENOUGH):
            seen.began(("", False, size), 1.0)

    assert seen.first(("", False, 0)) is None
    assert seen.first(("", False, 1)) == usual.TIMES_FIRST
