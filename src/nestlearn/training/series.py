"""Long series in little memory: the points of a curve and the looks at memories as columns of numbers.

A training of some 100,000 rows has as many points; as objects they would take a hundred bytes each, in an array they
take twenty-four. Both classes are sequences of what they stand for, so whoever reads a few of them need not know.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, overload

import numpy as np

__all__ = ["Curve", "Looks", "Point"]


class Point(NamedTuple):
    """A point of a curve: after how many steps and how many seconds of training the loss was what it was.

    The loss is None where a file could not hold it, because it was not finite.
    """

    step: int
    seconds: float
    loss: float | None


class Curve(Sequence[Point]):
    """Points as three columns: ``steps``, ``seconds``, and ``losses`` with NaN where there is none."""

    def __init__(self, points: Sequence[Point] = ()) -> None:
        self.steps, self.seconds, self.losses = array("q"), array("d"), array("d")
        for step, seconds, loss in points:
            self.steps.append(step)
            self.seconds.append(seconds)
            self.losses.append(math.nan if loss is None else loss)

    def __len__(self) -> int:
        return len(self.steps)

    @classmethod
    def of(cls, points: Sequence[Point]) -> Curve:
        """The same points as columns, if they are not already."""
        return points if isinstance(points, cls) else cls(points)

    @property
    def reached(self) -> int:
        """How many points there are before the first without a loss."""
        missing = np.flatnonzero(np.isnan(np.asarray(self.losses)))
        return int(missing[0]) if len(missing) else len(self)

    @overload
    def __getitem__(self, index: int) -> Point: ...

    @overload
    def __getitem__(self, index: slice) -> list[Point]: ...

    def __getitem__(self, index: int | slice) -> Point | list[Point]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        return Point(self.steps[index], self.seconds[index], _given(self.losses[index]))

    def __iter__(self) -> Iterator[Point]:
        for step, seconds, loss in zip(self.steps, self.seconds, self.losses, strict=True):
            yield Point(step, seconds, _given(loss))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # it grows

    def __repr__(self) -> str:
        return repr(list(self))


class Looks(Sequence[list[Any]]):
    """``[step, memory, surprise]`` rows as columns: ``steps``, ``values`` with NaN for None, and by ``places`` which of
    the ``names`` each is of.
    """

    def __init__(self, rows: Sequence[Sequence[Any]] = ()) -> None:
        self.steps, self.places, self.values = array("q"), array("L"), array("d")
        self.names: list[str] = []
        for step, name, value in rows:
            self.steps.append(step)
            self.places.append(self.place(name))
            self.values.append(math.nan if value is None else value)

    def place(self, name: str) -> int:
        """The number of a memory's name, a new one if need be."""
        if name not in self.names:
            self.names.append(name)
        return self.names.index(name)

    def of(self, name: str) -> tuple[array[int], array[float]]:
        """Steps and surprises of one memory, those that are numbers."""
        wanted = self.names.index(name)
        steps, values = np.asarray(self.steps), np.asarray(self.values)
        kept = (np.asarray(self.places) == wanted) & ~np.isnan(values)
        return array("q", steps[kept].tobytes()), array("d", values[kept].tobytes())

    def __len__(self) -> int:
        return len(self.steps)

    @overload
    def __getitem__(self, index: int) -> list[Any]: ...

    @overload
    def __getitem__(self, index: slice) -> list[list[Any]]: ...

    def __getitem__(self, index: int | slice) -> list[Any]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        return [self.steps[index], self.names[self.places[index]], _given(self.values[index])]

    def __iter__(self) -> Iterator[list[Any]]:
        for step, place, value in zip(self.steps, self.places, self.values, strict=True):
            yield [step, self.names[place], _given(value)]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # it grows

    def __repr__(self) -> str:
        return repr(list(self))


def _given(value: float) -> float | None:
    return value if value == value else None
