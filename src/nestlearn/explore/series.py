"""Long series in little memory, and fewer points of them than there are, without losing a peak."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Curve", "Lanes", "extremes", "ranges"]

Numbers = NDArray[np.float64]
NONE = float("nan")
LATEST = 1 << 53
"""Steps that a number of JSON can count."""


class Curve:
    """Points of a loss: ``steps``, ``seconds`` and ``values``."""

    def __init__(self) -> None:
        self.steps, self.seconds, self.values = array("d"), array("d"), array("d")

    def __len__(self) -> int:
        return len(self.steps)

    def add(self, step: Any, seconds: Any, value: Any) -> None:
        """Take a point, unless it is none."""
        number = _number(step)
        if _follows(number, self.steps):
            self.steps.append(number)
            self.seconds.append(_number(seconds))
            self.values.append(_number(value))

    def after(self, step: float) -> int:
        """How many points there are up to a step."""
        return bisect_right(self.steps, step)


class Lanes:
    """What a run's memories did: a row a look, a column a lane and measure, float32 with NaN where there is nothing."""

    def __init__(self) -> None:
        self.steps = array("d")
        self.facts: dict[tuple[int, str], dict[str, Any]] = {}
        self._columns: dict[tuple[int, str, str], array[float]] = {}

    def __len__(self) -> int:
        return len(self.steps)

    def after(self, step: float) -> int:
        """How many rows there are up to a step."""
        return bisect_right(self.steps, step)

    def row(self, step: Any) -> bool:
        """Begin the row of a step, unless it is the one that was begun last; False for what is no step."""
        number = _number(step)
        if not _follows(number, self.steps):
            return False
        if not self.steps or self.steps[-1] != number:
            self.steps.append(number)
        return True

    def put(self, key: tuple[int, str], measure: str, value: Any) -> None:
        """Put a number into the row that was begun last."""
        number = _number(value)
        column = self._columns.get((*key, measure))
        if column is None:
            if number != number:
                return
            column = self._columns[(*key, measure)] = array("f")
        missing = len(self.steps) - 1 - len(column)
        if missing > 0:
            column.extend([NONE] * missing)
        if missing >= 0:
            column.append(_single(number))
        else:
            column[-1] = _single(number)

    def measure(self, key: tuple[int, str]) -> str:
        """What a lane is told by: its surprise if it keeps one."""
        return "surprise" if (*key, "surprise") in self._columns else "update"

    def column(self, key: tuple[int, str], measure: str, first: int, last: int) -> NDArray[np.float32]:
        """The numbers of a lane in rows [first, last)."""
        found = np.full(last - first, np.nan, np.float32)
        column = self._columns.get((*key, measure))
        if column is not None:
            some = np.frombuffer(column, np.float32)[first:last]
            found[: len(some)] = some
        return found


def _follows(step: float, steps: array[float]) -> bool:
    """Whether this is a step that may come next; NaN is none."""
    return (steps[-1] if steps else 0) <= step < LATEST


def _number(value: Any) -> float:
    """A number; NaN of what is none, or too large to be one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return NONE
    try:
        return float(value)
    except OverflowError:
        return NONE


def _single(number: float) -> float:
    """What float32 can hold; the largest of what it cannot."""
    return max(-3e38, min(3e38, number)) if number == number else number


def extremes(steps: Numbers, values: Numbers, most: int) -> tuple[Numbers, Numbers]:
    """At most ``most`` of the points, the lowest and the highest of each bin of neighbours, in order.

    Example:
        >>> steps, values = extremes(np.arange(6.0), np.array([0.0, 9.0, 1.0, 2.0, -7.0, 3.0]), 4)
        >>> steps.tolist(), values.tolist()
        ([0.0, 1.0, 4.0, 5.0], [0.0, 9.0, -7.0, 3.0])
    """
    if len(steps) <= most:
        return steps.copy(), values.copy()
    size = -(-len(steps) // max(1, most // 2))
    bins = -(-len(steps) // size)
    padded = np.full(bins * size, np.nan)
    padded[: len(values)] = values
    table = padded.reshape(bins, size)
    lowest = np.where(np.isnan(table), np.inf, table).argmin(1)
    highest = np.where(np.isnan(table), -np.inf, table).argmax(1)
    start = np.arange(bins) * size
    places = np.unique(np.minimum(np.concatenate([start + lowest, start + highest]), len(steps) - 1))
    return steps[places], values[places]


def ranges(values: NDArray[np.float32], starts: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The lowest and the highest of each bin, which begin at ``starts``; NaN where there is nothing."""
    if not len(starts):
        return values[:0], values[:0]
    return np.fmin.reduceat(values, starts), np.fmax.reduceat(values, starts)
