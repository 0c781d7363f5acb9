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
Key = tuple[int, str]
"""Of a lane: its level and its name."""

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


class _Block:
    """Rows of the same lanes, one behind the other: the surprise of each, then the update of each.

    Args:
        first: the number of the first row.
        keys: the lanes, None for one that is passed over.
    """

    def __init__(self, first: int, keys: list[Key | None]) -> None:
        self.first, self.keys, self.numbers = first, keys, array("f")
        self.silent = [i for i, key in enumerate(keys) if key is not None]
        known = [(key, i) for i, key in enumerate(keys) if key is not None]
        self.places = {(key, "surprise"): i for key, i in known} | {(key, "update"): i + len(keys) for key, i in known}

    @property
    def table(self) -> NDArray[np.float32]:
        """[rows, 2 lanes]."""
        return np.frombuffer(self.numbers, np.float32).reshape(-1, 2 * len(self.keys))


class Lanes:
    """What a run's memories did: a row a look, a column a lane and measure, float32 with NaN where there is nothing.

    Rows come whole, as a record has them (``add``), or number by number, as the looks of a training (``row``, ``put``).
    """

    def __init__(self) -> None:
        self.steps = array("d")
        self.facts: dict[Key, dict[str, Any]] = {}
        self._blocks: list[_Block] = []
        self._columns: dict[Key, array[float]] = {}
        self._surprised: set[Key] = set()

    def __len__(self) -> int:
        return len(self.steps)

    def add(self, step: Any, keys: list[Key | None], surprise: list[Any], update: list[Any]) -> None:
        """Take the row of a step behind the last one: a number a lane, as far as there are any."""
        number = _number(step)
        if not _follows(number, self.steps) or (self.steps and number == self.steps[-1]) or not keys:
            return
        if not self._blocks or self._blocks[-1].keys != keys:
            self._blocks.append(_Block(len(self), list(keys)))
        block, most = self._blocks[-1], len(keys)
        line = [*surprise[:most], *[None] * (most - len(surprise)), *update[:most], *[None] * (most - len(update))]
        block.numbers.extend([x if type(x) is float else _number(x) for x in line])
        if spoken := [i for i in block.silent if line[i] is not None]:
            self._surprised |= {key for i in spoken if (key := keys[i]) is not None}
            block.silent = [i for i in block.silent if i not in spoken]
        self.steps.append(number)

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

    def put(self, key: Key, value: Any) -> None:
        """Put the surprise of a lane into the row that was begun last."""
        column = self._columns.setdefault(key, array("f"))
        self._surprised.add(key)
        column.extend([NONE] * (len(self.steps) - len(column)))
        column[-1] = _number(value)

    def measure(self, key: Key) -> str:
        """What a lane is told by: its surprise if it keeps one."""
        return "surprise" if key in self._surprised else "update"

    def column(self, key: Key, measure: str, first: int, last: int) -> NDArray[np.float32]:
        """The numbers of a lane in rows [first, last)."""
        found = np.full(last - first, np.nan, np.float32)
        column = self._columns.get(key)
        if column is not None and measure == "surprise":
            some = np.frombuffer(column, np.float32)[first:last]
            found[: len(some)] = some
        for block in self._blocks:
            place, table = block.places.get((key, measure)), block.table
            start, stop = max(first, block.first), min(last, block.first + len(table))
            if place is not None and start < stop:
                found[start - first : stop - first] = table[start - block.first : stop - block.first, place]
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
