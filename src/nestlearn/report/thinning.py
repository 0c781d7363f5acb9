"""Fewer points than were measured, without lying about them: bins of neighbours that keep mean and range."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

__all__ = ["BINS", "Line", "thin"]

BINS = 160  # points of a drawn line: about one for each two pixels of the widest panel


@dataclass(frozen=True)
class Line:
    """A line to draw: x, and the mean, lowest and highest y there."""

    x: Sequence[float]
    mean: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


def thin(x: Sequence[float], series: Sequence[Sequence[float]], bins: int = BINS) -> Line:
    """Several series over one x as one line of at most ``bins`` points, each of which stands for as many neighbours.

    Mean and range are those of all values in a bin, of all series: no peak is lost, and none is invented. A point
    lies at the middle of its bin; the last one keeps the last x, since that is where a line is read off.
    """
    size = -(-len(x) // bins) or 1
    if size == 1:
        columns = list(zip(*series, strict=True))
        return Line(x, [fmean(c) for c in columns], [min(c) for c in columns], [max(c) for c in columns])
    starts = range(0, len(x), size)
    places = [fmean((x[i], x[min(i + size, len(x)) - 1])) for i in starts]
    places[-1] = x[-1]
    parts = [[one[i : i + size] for one in series] for i in starts]
    return Line(
        places,
        [fmean(map(fmean, part)) for part in parts],
        [min(map(min, part)) for part in parts],
        [max(map(max, part)) for part in parts],
    )
