"""What a few seeds can say: intervals, paired differences, and a correction for asking many questions.

Everything is Student's t, which assumes that losses, or differences of losses, scatter normally over the seeds. A
difference is taken seed by seed, because two runs of one seed share first weights and batches. With k contenders a
column of a table asks k questions, and 5% of idle differences would look real each time: **Holm's** correction keeps
the chance of even one false claim in the column below 5%, whatever the dependence between the tests (they share the
runs of the baseline).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import sqrt
from statistics import mean, stdev

from scipy.special import stdtr, stdtrit

from nestlearn.training.results import FEWEST, Difference, RunResult, Sample

__all__ = ["LEVEL", "correct", "figures", "holm", "interval", "paired", "spread"]

LEVEL = 0.05
"""The chance of a false claim in a column: what is called significant."""

ROUNDING = 1e-12  # of float64, where losses of about one size are subtracted


def spread(values: Sequence[float]) -> float | None:
    """The sample standard deviation; None for a single value."""
    return stdev(values) if len(values) > 1 else None


def figures(results: Sequence[RunResult], split: str) -> dict[str, Sample]:
    """Each figure of a split over the seeds; empty if one diverged."""
    if any(result.status != "finished" for result in results):
        return {}
    values = {name: tuple(getattr(result, split)[name] for result in results) for name in getattr(results[0], split)}
    return {name: Sample(mean(found), spread(found), found) for name, found in values.items()}


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The 95% interval (low, high) of the mean: mean ± t s / sqrt(n). None for a single value."""
    if len(values) < 2:
        return None
    half = float(stdtrit(len(values) - 1, 1 - LEVEL / 2)) * stdev(values) / sqrt(len(values))
    return mean(values) - half, mean(values) + half


def paired(mine: Sequence[float], others: Sequence[float]) -> Difference:
    """The differences ``mine - others``, seed by seed, with their interval and the two-sided p of a paired t-test.

    ``p_alone`` is that p before any correction; ``p`` and ``significant`` wait for ``correct``. One seed has no p.
    Differences that are all the same number (to rounding) have none either, as they say nothing about scatter, unless
    that number is zero: then p is 1.

    Raises:
        ValueError: the two have different lengths.
    """
    values = tuple(one - other for one, other in zip(mine, others, strict=True))
    deviation = spread(values)
    p_alone = None
    if deviation and deviation > ROUNDING * max(map(abs, [*mine, *others])):
        t = mean(values) / deviation * sqrt(len(values))
        p_alone = 2 * float(stdtr(len(values) - 1, -abs(t)))
    elif deviation is not None and not any(values):
        p_alone = 1.0
    return Difference(mean(values), deviation, values, interval(values), p_alone)


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's corrected p values: the i-th smallest of m times m - i + 1, never falling, at most 1."""
    order = sorted(range(len(ps)), key=ps.__getitem__)
    corrected, highest = [0.0] * len(ps), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[index]))
        corrected[index] = highest
    return corrected


def correct(differences: Sequence[Difference]) -> list[Difference]:
    """The differences of one column with ``p`` and, from ``FEWEST`` seeds on, ``significant``; those without a p of
    their own left as they are.
    """
    alone = [difference.p_alone for difference in differences if difference.p_alone is not None]
    corrected = iter(holm(alone))
    found = []
    for difference in differences:
        if difference.p_alone is not None:
            p = next(corrected)
            enough = len(difference.values) >= FEWEST
            difference = replace(difference, p=p, significant=p < LEVEL if enough else None)
        found.append(difference)
    return found
