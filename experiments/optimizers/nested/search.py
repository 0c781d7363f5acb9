"""The search for settings: a grid, then steps from the best point along every axis, then halving.

A contender is searched on each task, and once more for the mean over the tasks, with the same number of trials each:
runs of a part of the horizon with one seed. A grid of both learning rates, of the matrices and of everything else,
comes first. From then on the neighbours of the best point are tried, one step up and down on every axis, then all steps
that helped at once; while nothing is better, steps become half as long, and at last the second best point has its turn.
Where the best value of an axis is the last tried, the next are tried on top of the budget.

The best few of each search then run longer and with more seeds, and the best of these again, up to the horizon. As
short runs favour rates that are good early, both rates beside the best are tried there once more, and what lies past
the end of any axis. What is best on a task is judged on it; what is best on average is carried to tasks that the search
has not seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from statistics import mean
from typing import Any

from experiments.optimizers.nested.plan import Entrant, Place, Plan, Rung, Searched, Values, spec_of
from nestlearn.comparison.course import Course
from nestlearn.comparison.grid import lr_grid, rounded
from nestlearn.contenders import BASELINE, CONTENDERS
from nestlearn.training import RunSpec

__all__ = ["Axes", "Tuning", "ends", "trials"]

Point = tuple[tuple[str, Any], ...]
Score = Callable[[Point], float]

EVERYWHERE = ""
"""The name of the setting that is best on average over the tasks."""

SMALLEST = 1 / 8
"""Steps are not halved below this part of the first ones: one short run with one seed cannot tell such points apart."""


class Axes:
    """What is searched of a contender, and the values next to a value.

    Attributes:
        grid: the points of the first batch.
    """

    def __init__(self, entrant: Entrant, how: Searched) -> None:
        self.how = how
        rate = entrant.contender.lr
        shrink = CONTENDERS[BASELINE].lr / rate
        self.lists: dict[str, tuple[Any, ...]] = {
            "nesterov": (False, True),
            "weight_decay": tuple(rounded(value * shrink) for value in how.weight_decays),
            "warmup": how.warmups,
        }
        start = {"retention": how.retention, "nesterov": True, "weight_decay": self.lists["weight_decay"][0]}
        known = {name: value for name, value in start.items() if name in entrant.takes} | {"warmup": how.warmups[0]}
        rates = product(lr_grid(rate, how.lr_points, how.lr_ratio), how.elementwise_lrs)
        self.grid = [_point({**known, "lr": lr, "elementwise_lr": elementwise}) for lr, elementwise in rates]

    def neighbours(self, point: Point, step: float) -> Iterator[tuple[str, Any]]:
        """Every axis with the values next to the point's own, ``step`` first steps away."""
        for name, value in point:
            for direction in (1, -1):
                beside = self._beside(name, value, direction * step)
                if beside is not None and beside != value:
                    yield name, beside

    def beyond(self, point: Point, at: Mapping[str, str]) -> list[Point]:
        """The points one step past the ends that a point is at."""
        return [
            _point(dict(point) | {name: value})
            for name, value in self.neighbours(point, 1.0)
            if name in at and (value > dict(point)[name]) == (at[name] == "high")
        ]

    def _beside(self, name: str, value: Any, step: float) -> Any:
        if name in ("lr", "elementwise_lr"):
            return rounded(value * self.how.lr_ratio**step)
        if name == "retention":
            return max(round(1 - (1 - value) * 2.0**-step, 4), 0.0)
        values = self.lists[name]
        # Halves of a place in a list do not exist: these axes are done after whole steps.
        place = values.index(value) + (int(math.copysign(1, step)) if abs(step) == 1 else 0)
        return values[place] if 0 <= place < len(values) else None


def _point(values: Values) -> Point:
    order = ("lr", "retention", "nesterov", "weight_decay", "warmup", "elementwise_lr")
    return tuple((name, values[name]) for name in order if name in values)


def ends(best: Point, tried: Sequence[Point]) -> dict[str, str]:
    """The axes on which the best point has the "low" or "high" end of all values tried, where there could be more."""
    found = {}
    for name, value in best:
        values = sorted({dict(point)[name] for point in tried})
        if name == "nesterov" or len(values) == 1:
            continue
        if value >= values[-1]:
            found[name] = "high"
        elif value <= values[0] and not (value == 0 and name in ("retention", "weight_decay", "warmup")):
            found[name] = "low"
    return found


def trials(axes: Axes, how: Searched, score: Score) -> Iterator[list[Point]]:
    """The batches of trials on one task.

    Args:
        score: of a point of an earlier batch, lower is better, infinite where training diverged.
    """
    tried = axes.grid[: how.trials]
    yield list(tried)
    step, rank, left = 1.0, 0, how.trials - len(tried)
    while left > 0 and rank < len(tried):
        best, *others = sorted(tried, key=score)
        centre = [best, *others][rank]
        around = [_point(dict(centre) | {name: value}) for name, value in axes.neighbours(centre, step)]
        batch = [point for point in dict.fromkeys(around) if point not in tried][:left]
        if batch:
            tried, left = tried + batch, left - len(batch)
            yield batch
        together = _together(centre, around, tried, score)
        if left > 0 and together not in tried:
            tried, left = [*tried, together], left - 1
            yield [together]
        if min(tried, key=score) != best:
            rank = 0
        elif step > SMALLEST:
            step /= 2
        else:
            step, rank = 1.0, rank + 1
    for _ in range(how.grow):
        best = min(tried, key=score)
        batch = [point for point in axes.beyond(best, ends(best, tried)) if point not in tried]
        if not batch:
            return
        tried = tried + batch
        yield batch


def _together(best: Point, around: Sequence[Point], tried: Sequence[Point], score: Score) -> Point:
    """The best point with, on every axis, the neighbour that was better than it."""
    found = dict(best)
    better = [point for point in around if point in tried and score(point) < score(best)]
    for point in sorted(better, key=score, reverse=True):  # of two on one axis the better one comes last
        found |= {name: value for name, value in point if value != dict(best)[name]}
    return _point(found)


class Tuning(Course):
    """The search for one contender on all tasks of the search, and for the mean over them."""

    def __init__(self, entrant: Entrant, plan: Plan) -> None:
        super().__init__({})
        self.entrant, self.plan, self.how = entrant, plan, plan.search
        self.tried: dict[str, list[Point]] = {name: [] for name in [*plan.searched, EVERYWHERE]}
        self._pools: dict[str, list[Point]] = {}

    def _runs(self, rung: Rung, name: str, point: Point) -> list[RunSpec]:
        """The runs of a setting in a rung: on a task, or (EVERYWHERE) on all of them."""
        places: list[Place] = [self.plan.searched[each] for each in ([name] if name else self.plan.searched)]
        values = dict(point)
        return [spec_of(place, self.entrant, values, seed, rung.part) for place in places for seed in rung.seeds]

    def _on(self, rung: Rung, name: str, point: Point) -> float:
        """The mean validation loss of those runs."""
        return mean(self.results[spec.key].score for spec in self._runs(rung, name, point))

    def _best(self, name: str) -> Point:
        return min(self._pools[name], key=partial(self._on, self.how.rungs[-1], name))

    def _stages(self) -> Iterator[list[RunSpec]]:
        axes = Axes(self.entrant, self.how)
        first = Rung(part=self.how.part, seeds=(self.how.seed,), keep=1)
        searches = {name: trials(axes, self.how, partial(self._on, first, name)) for name in self.tried}
        while batches := {name: batch for name, search in searches.items() if (batch := next(search, None))}:
            for name, batch in batches.items():
                self.tried[name] += batch
            yield self._join(first, batches)
        rung = first
        for after in self.how.rungs:
            best = {name: sorted(points, key=partial(self._on, rung, name)) for name, points in self._pools.items()}
            rung, self._pools = after, {}
            yield self._join(rung, {name: points[: rung.keep] for name, points in best.items()})
        for _ in range(self.how.polishes):
            fresh = {
                name: [*self._beside(name), *axes.beyond(self._best(name), self.edges(name))] for name in self._pools
            }
            if any(fresh.values()):
                yield self._join(rung, fresh)

    def _join(self, rung: Rung, fresh: Mapping[str, Sequence[Point]]) -> list[RunSpec]:
        """The runs of points that join the pools. What runs everywhere has run on every task."""
        for name, points in fresh.items():
            for each in [name] if name else self.tried:
                pool = self._pools.setdefault(each, [])
                pool += [point for point in points if point not in pool]
        runs = [spec for name, points in fresh.items() for point in points for spec in self._runs(rung, name, point)]
        return list({spec.key: spec for spec in runs}.values())

    def _beside(self, name: str) -> list[Point]:
        """The best setting with the rates next to its own that have not been tried with it."""
        best = dict(self._best(name))
        alike = [dict(point) for point in self._pools[name]]
        found = []
        for axis in ("lr", "elementwise_lr"):
            known = [other[axis] for other in alike if other | {axis: best[axis]} == best]
            rates = [rounded(best[axis] * factor) for factor in self.how.polish]
            # There and back again is the same rate but for rounding.
            new = [rate for rate in rates if not any(math.isclose(rate, other, rel_tol=0.02) for other in known)]
            found += [_point(best | {axis: rate}) for rate in new]
        return found

    def _estimate(self) -> int:
        tasks = len(self.plan.searched)
        runs = [rung.keep * 2 * tasks * len(rung.seeds) for rung in self.how.rungs]
        polish = 2 * len(self.how.polish) * 2 * tasks * len(self.how.rungs[-1].seeds)
        return 2 * tasks * self.how.trials + sum(runs) + polish

    def chosen(self, name: str = EVERYWHERE) -> Values:
        """The setting that is best on a task, or on average over them; call it when the course is done."""
        return dict(self._best(name))

    def loss(self, name: str, chosen: str = EVERYWHERE) -> float:
        """Mean validation loss at the horizon on a task, of the setting ``chosen`` there or on average."""
        return self._on(self.how.rungs[-1], name, self._best(chosen))

    def edges(self, name: str) -> Mapping[str, str]:
        """The axes on which what was chosen for a task, or on average, lies at an end of what was tried for it."""
        return ends(self._best(name), [*self.tried[name], *self._pools[name]])
