"""Equal seconds and equal bytes: the chosen settings once more, with what the baseline had.

*Time*: every seed again, with as many steps as fit into the seconds of the baseline: its steps times its milliseconds
a step, over one's own. *Bytes*: every seed again with the task's network scaled by its ``width`` so that parameters,
gradients and optimizer state together take at most the bytes that the baseline's take; the state at a width is
measured by a run of one step. Settings are those chosen at the common number of steps and size: nothing is tuned
again, and nothing here chooses anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache

import torch

from nestlearn.comparison.course import Course
from nestlearn.comparison.search import Search
from nestlearn.contenders import BASELINE
from nestlearn.training import RunResult, RunSpec

__all__ = ["Matched", "plan_matched", "total_bytes"]


def total_bytes(spec: RunSpec, result: RunResult) -> int:
    """Bytes of parameters, gradients and optimizer state."""
    return 2 * result.parameters * _itemsize(spec) + result.state_bytes


def _itemsize(spec: RunSpec) -> int:
    size: int = getattr(torch, spec.dtype).itemsize
    return size


def _resized(spec: RunSpec, field: str, width: int) -> RunSpec:
    return replace(spec, size=tuple((dict(spec.size) | {field: width}).items()))


@lru_cache(maxsize=4096)
def _parameters(spec: RunSpec) -> int | None:
    """The parameters of the run's network; None if it cannot be built in this size."""
    try:
        return sum(parameter.numel() for parameter in spec.make_task().build(spec.seed).parameters())
    except ValueError:
        return None


def _widest(spec: RunSpec, field: str, ratio: float, fits: Callable[[int], bool], below: float) -> int | None:
    """The largest width under ``below`` whose number of parameters ``fits``, on a grid of steps of about 2%.

    ``ratio`` is about how many times the parameters of ``spec`` may be had. They grow with the width or its square.
    """
    own = getattr(spec.make_task(), field)
    step = max(1, own // 64)
    most = math.ceil(1.25 * own * max(ratio, math.sqrt(ratio)))
    for width in range(own + (most - own) // step * step, 0, -step):
        if width < below:
            parameters = _parameters(_resized(replace(spec, settings=(), fixed=(), seed=0), field, width))
            if parameters is not None and fits(parameters):
                return width
    return None


def _step_ms(search: Search) -> float:
    """Milliseconds a step as the table has them: the best over the finished runs."""
    return min(result.step_ms for result in search.results.values() if result.status == "finished")


class Matched(Course):
    """The runs at equal seconds and bytes of one search.

    Attributes:
        at_time, at_bytes: the runs, one a seed, once they are known; None where they were not asked for, where one of
            the two diverged, and at equal bytes where the network has one size or none is small enough.
    """

    def __init__(self, search: Search, baseline: Search, *, time: bool, space: bool) -> None:
        super().__init__({**baseline.results, **search.results})
        self.search, self.baseline = search, baseline
        self._time, self._space = time, space
        self.at_time: list[RunSpec] | None = None
        self.at_bytes: list[RunSpec] | None = None

    def _estimate(self) -> int:
        return len(self.search.settings.seeds) * (self._time + self._space)

    def _stages(self) -> Iterator[list[RunSpec]]:
        chosen, others = self.search.chosen(), self.baseline.chosen()
        if any(self.results[spec.key].status == "diverged" for spec in [*chosen, *others]):
            return
        if self._time:
            steps = max(1, math.floor(others[0].steps * _step_ms(self.baseline) / _step_ms(self.search)))
            self.at_time = [replace(spec, steps=steps) for spec in chosen]
            yield self.at_time
        if self._space:
            yield from self._bytes(chosen, total_bytes(others[0], self.results[others[0].key]))

    def _bytes(self, chosen: list[RunSpec], limit: int) -> Iterator[list[RunSpec]]:
        """Probes of one step, narrower and narrower, until one fits; then the runs."""
        first, field = chosen[0], chosen[0].make_task().width
        if field is None:
            return
        measured, item = self.results[first.key], 2 * _itemsize(first)
        full, width = measured.parameters, math.inf

        def fits(parameters: int) -> bool:
            """Whether so many parameters fit, if each has as many bytes of state as measured last."""
            return parameters * (item * measured.parameters + measured.state_bytes) <= limit * measured.parameters

        while True:
            ratio = limit / (item + measured.state_bytes / measured.parameters) / full
            found = _widest(first, field, ratio, fits, width)
            if found is None:
                return
            width, resized = found, [_resized(spec, field, found) for spec in chosen]
            if found == getattr(first.make_task(), field):
                resized, measured = chosen, self.results[first.key]
            else:
                probe = replace(resized[0], steps=1, full=False)
                yield [probe]
                measured = self.results[probe.key]
            if total_bytes(first, measured) <= limit:
                self.at_bytes = resized
                yield resized
                return


def plan_matched(searches: list[Search]) -> list[Matched]:
    """The runs at equal seconds and bytes that the settings ask for, of searches that are done."""
    wanted = searches[0].settings.matched if searches else ()
    baselines = {search.task: search for search in searches if search.contender.name == BASELINE}
    if not wanted:
        return []
    return [
        Matched(search, baselines[search.task], time="time" in wanted, space="bytes" in wanted) for search in searches
    ]
