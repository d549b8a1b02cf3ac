"""Two runs of one dataset: how much better, and whether that could be chance."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

RESAMPLES = 5000
LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and where it lies with 95 % confidence."""

    mean: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """Of a difference."""
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "no difference shown"


def interval(values: Sequence[float], *, seed: int = 0) -> Interval:
    """Percentile bootstrap of the mean; the same values give the same interval."""
    if not values:
        return Interval(0.0, 0.0, 0.0)
    count = len(values)
    mean = sum(values) / count
    if len(set(values)) == 1:
        return Interval(mean, mean, mean)
    source = random.Random(seed)  # noqa: S311 - statistics, not secrets
    means = sorted(sum(source.choices(values, k=count)) / count for _ in range(RESAMPLES))
    edge = int(RESAMPLES * (1 - LEVEL) / 2)
    return Interval(mean, means[edge], means[-1 - edge])


def difference(now: Mapping[str, float], before: Mapping[str, float]) -> Interval:
    """Case by case, over the cases that both runs have: a hard case is hard for both."""
    return interval([now[case] - before[case] for case in now if case in before])
