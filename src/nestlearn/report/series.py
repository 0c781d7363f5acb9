"""From runs to lines: what a row's seeds measured, gathered into a mean and a range."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

import numpy as np

from nestlearn.report.thinning import Line, thin
from nestlearn.training import Point, Row, RunResult
from nestlearn.training.series import Curve, Looks

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
    def mean(self) -> Sequence[float]:
        """The mean over the seeds at each x."""
        if len(self.series) < 2:
            return self.series[0] if self.series else ()
        averages: list[float] = np.mean([np.asarray(values) for values in self.series], axis=0).tolist()
        return averages


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
        seconds = [Curve.of(run.curve).seconds[: len(self.validation.x)] for run in self.runs]
        return Points([fmean(at) for at in zip(*seconds, strict=True)], self.validation.series).line

    @cached_property
    def training(self) -> Points | None:
        """The training loss against steps, up to the first divergence."""
        return _gather([run.train for run in self.runs])

    @cached_property
    def surprises(self) -> dict[str, Points]:
        """The surprise of each memory against steps, by the memory's name, at the steps that all seeds looked at."""
        seeds = [run.surprises if isinstance(run.surprises, Looks) else Looks(run.surprises) for run in self.runs]
        found = {}
        for memory in dict.fromkeys(name for looks in seeds for name in looks.names):
            columns = [looks.of(memory) for looks in seeds if memory in looks.names]
            steps = columns[0][0]
            if any(other != steps for other, _ in columns):
                seen = [dict(zip(*column, strict=True)) for column in columns]
                steps = array("q", sorted(set(seen[0]).intersection(*seen[1:])))
                columns = [(steps, array("d", [values[step] for step in steps])) for values in seen]
            if steps:
                found[memory] = Points(steps, [values for _, values in columns])
        return found


def measure(rows: Iterable[Row], runs: Mapping[str, RunResult]) -> dict[str, Measured]:
    """What was measured of each row, by its name."""
    return {row.name: Measured(row, runs) for row in rows}


def _gather(curves: Sequence[Sequence[Point]]) -> Points | None:
    """The losses of several seeds over the steps, as far as all of them reach and are numbers."""
    found = [Curve.of(curve) for curve in curves]
    length = min((curve.reached for curve in found), default=0)
    if not length:
        return None
    return Points(found[0].steps[:length], [curve.losses[:length] for curve in found])
