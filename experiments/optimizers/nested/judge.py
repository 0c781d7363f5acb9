"""What the seeds say about ratios of steps: geometric means, intervals, tests on logarithms, Holm over the parts.

Everything is done on the logarithm of the ratio, where "twice as long" and "half as long" are equally far from "as
long". The test is a paired t-test: both runs of a seed share first weights and batches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp, log
from statistics import mean

from experiments.optimizers.nested.ladder import Arrival
from nestlearn.training.results import Difference
from nestlearn.training.statistics import holm, interval, paired

__all__ = ["Ratio", "corrected", "over_tasks", "ratio"]


@dataclass(frozen=True)
class Ratio:
    """A ratio of steps over the seeds.

    Attributes:
        mean: geometric mean.
        interval: 95%, of the geometric mean; None for one seed.
        p: of the test that the ratio is 1; None where there is nothing to judge by, and where a seed never arrived.
        never: seeds that were not there at the longest length; the mean is then too low, and nothing is claimed.
        early: seeds that were there at the shortest length; the mean is then too high.
        logs: the logarithm of each seed's ratio.
        holm: ``p`` corrected, where it was.
    """

    mean: float
    interval: tuple[float, float] | None
    p: float | None
    never: int
    early: int
    logs: tuple[float, ...]
    holm: float | None = None

    @property
    def above_one(self) -> bool:
        """Whether it counts as slower: the mean says so, or a seed never arrived."""
        return self.mean > 1 or self.never > 0

    def times(self, factor: float) -> Ratio:
        """The ratio of something that is this much more for a step: seconds, say."""
        return _ratio([value + log(factor) for value in self.logs], self.never, self.early)


def _ratio(logs: Sequence[float], never: int, early: int) -> Ratio:
    found: Difference = paired(logs, [0.0] * len(logs))
    ends = interval(logs)
    return Ratio(
        mean=exp(found.mean),
        interval=None if ends is None else (exp(ends[0]), exp(ends[1])),
        p=None if never else found.p_alone,
        never=never,
        early=early,
        logs=tuple(logs),
    )


def ratio(mine: Sequence[Arrival], others: Sequence[Arrival] | None = None) -> Ratio:
    """The steps of one contender over those of another, or over the horizon, seed by seed.

    Raises:
        ValueError: the two have different lengths.
    """
    others = [Arrival(1.0)] * len(mine) if others is None else others
    logs = [log(one.ratio / other.ratio) for one, other in zip(mine, others, strict=True)]
    # Over a bound from below stands one from above.
    never = sum(one.bound == ">" or other.bound == "<" for one, other in zip(mine, others, strict=True))
    early = sum(one.bound == "<" or other.bound == ">" for one, other in zip(mine, others, strict=True))
    return _ratio(logs, never, early)


def over_tasks(ratios: Sequence[Ratio]) -> Ratio:
    """The geometric mean over tasks, each with one weight; for the test, that of every seed.

    Raises:
        ValueError: no task, or tasks with different numbers of seeds.
    """
    if not ratios:
        raise ValueError("expected ratios of at least one task, got none")
    logs = [mean(values) for values in zip(*(one.logs for one in ratios), strict=True)]
    return _ratio(logs, sum(one.never for one in ratios), sum(one.early for one in ratios))


def corrected(parts: Mapping[str, Ratio]) -> dict[str, Ratio]:
    """The ratios with p by Holm's method over those that have a p."""
    claims = {name: one.p for name, one in parts.items() if one.p is not None}
    adjusted = dict(zip(claims, holm(list(claims.values())), strict=True))
    return {name: replace(one, holm=adjusted.get(name)) for name, one in parts.items()}
