"""What a few seeds can say: intervals, paired differences, and a correction for asking many questions.

Everything is Student's t, which assumes that losses, or differences of losses, scatter normally over the seeds. A
difference is taken seed by seed, because two runs of one seed share first weights and batches. With k contenders a
column of a table asks k questions, and 5% of idle differences would look real each time: **Holm's** correction keeps
the chance of even one false claim in the column below 5%, whatever the dependence between the tests (they share the
runs of the baseline).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from statistics import mean, stdev
from typing import Any

from scipy.special import stdtr, stdtrit

__all__ = ["LEVEL", "correct", "holm", "interval", "paired", "spread"]

LEVEL = 0.05
"""The chance of a false claim in a column: what is called significant."""

ROUNDING = 1e-12  # of float64, where losses of about one size are subtracted


def spread(values: Sequence[float]) -> float | None:
    """The sample standard deviation; None for a single value."""
    return stdev(values) if len(values) > 1 else None


def interval(values: Sequence[float]) -> list[float] | None:
    """The 95% interval [low, high] of the mean: mean ± t s / sqrt(n). None for a single value."""
    if len(values) < 2:
        return None
    half = float(stdtrit(len(values) - 1, 1 - LEVEL / 2)) * stdev(values) / sqrt(len(values))
    return [mean(values) - half, mean(values) + half]


def paired(mine: Sequence[float], others: Sequence[float]) -> dict[str, Any]:
    """The differences ``mine - others``, seed by seed, with their interval and the two-sided p of a paired t-test.

    ``p_alone`` is that p before any correction; ``p`` and ``significant`` wait for ``correct``. One seed has no p.
    Differences that are all the same number (to rounding) have none either, as they say nothing about scatter, unless
    that number is zero: then p is 1.

    Raises:
        ValueError: the two have different lengths.
    """
    values = [one - other for one, other in zip(mine, others, strict=True)]
    deviation = spread(values)
    p_alone = None
    if deviation and deviation > ROUNDING * max(map(abs, [*mine, *others])):
        t = mean(values) / deviation * sqrt(len(values))
        p_alone = 2 * float(stdtr(len(values) - 1, -abs(t)))
    elif deviation is not None and not any(values):
        p_alone = 1.0
    return {
        "mean": mean(values),
        "spread": deviation,
        "values": values,
        "interval": interval(values),
        "p_alone": p_alone,
        "p": None,
        "significant": None,
    }


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's corrected p values: the i-th smallest of m times m - i + 1, never falling, at most 1."""
    order = sorted(range(len(ps)), key=ps.__getitem__)
    corrected, highest = [0.0] * len(ps), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[index]))
        corrected[index] = highest
    return corrected


def correct(differences: Sequence[dict[str, Any]]) -> None:
    """Fill in ``p`` and ``significant`` of one column's differences, those without a p of their own left as they
    are.
    """
    tested = [difference for difference in differences if difference["p_alone"] is not None]
    for difference, p in zip(tested, holm([difference["p_alone"] for difference in tested]), strict=True):
        difference["p"], difference["significant"] = p, p < LEVEL
