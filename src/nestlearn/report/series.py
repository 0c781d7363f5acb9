"""From runs to lines: what a row's seeds measured, gathered into a mean and a range."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

from nestlearn.report.thinning import Line, thin
from nestlearn.training import Point, Row, RunResult

__all__ = ["Measured", "Points", "measure"]


@dataclass(frozen=True)
class Points:
    """Series of several seeds over one x, every point of them."""

    x: Sequence[float]
    series: Sequence[Sequence[float]]

    @property
    def line(self) -> Line:
        """What to draw of them."""
        return thin(self.x, self.series)

    @cached_property
    def mean(self) -> list[float]:
        """The mean over the seeds at each x."""
        return [fmean(values) for values in zip(*self.series, strict=True)]


class Measured:
    """The runs of a row that are in the folder, one a seed, and their lines, each gathered when it is first asked for.

    Attributes:
        runs: the runs.
        finished: whether every run of the row is there and came to its end.
    """

    def __init__(self, row: Row, runs: Mapping[str, RunResult]) -> None:
        self.runs = [runs[key] for key in row.runs if key in runs]
        self.finished = len(self.runs) == len(row.runs) and all(run.status == "finished" for run in self.runs)

    @cached_property
    def validation(self) -> Points | None:
        """The validation loss against steps; None without a point, or if a seed diverged: a mean over the others
        would flatter.
        """
        return _gather([run.curve for run in self.runs]) if self.finished else None

    @cached_property
    def by_steps(self) -> Line | None:
        """What to draw of it."""
        return self.validation.line if self.validation else None

    @cached_property
    def by_seconds(self) -> Line | None:
        """The same against seconds of training, the mean of the seeds'."""
        if not self.validation:
            return None
        seconds = [[point.seconds for point in run.curve[: len(self.validation.x)]] for run in self.runs]
        return Points([fmean(at) for at in zip(*seconds, strict=True)], self.validation.series).line

    @cached_property
    def training(self) -> Points | None:
        """The training loss against steps, up to the first divergence."""
        return _gather([run.train for run in self.runs])

    @cached_property
    def surprises(self) -> dict[str, Points]:
        """The surprise of each memory against steps, by the memory's name, at the steps that all seeds looked at."""
        by_memory: dict[str, list[dict[float, float]]] = {}
        for run in self.runs:
            seen: dict[str, dict[float, float]] = {}
            for step, memory, value in run.surprises:
                if value is not None:
                    seen.setdefault(memory, {})[step] = value
            for memory, values in seen.items():
                by_memory.setdefault(memory, []).append(values)
        found = {}
        for memory, seeds in by_memory.items():
            steps = sorted(set(seeds[0]).intersection(*seeds[1:]))
            if steps:
                found[memory] = Points(steps, [[values[step] for step in steps] for values in seeds])
        return found


def measure(rows: Iterable[Row], runs: Mapping[str, RunResult]) -> dict[str, Measured]:
    """What was measured of each row, by its name."""
    return {row.name: Measured(row, runs) for row in rows}


def _gather(curves: Sequence[Sequence[Point]]) -> Points | None:
    """The losses of several seeds over the steps, as far as all of them reach and are numbers."""
    losses = [list(_numbers(curve)) for curve in curves]
    length = min(map(len, losses), default=0)
    if not length:
        return None
    return Points([point.step for point in curves[0][:length]], [found[:length] for found in losses])


def _numbers(curve: Sequence[Point]) -> Iterator[float]:
    """The losses up to the first that is none."""
    for point in curve:
        if point.loss is None:
            return
        yield point.loss
