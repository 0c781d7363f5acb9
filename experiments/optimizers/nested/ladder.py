"""Steps to a loss, each method's schedule run at its own length.

A schedule that falls to zero says nothing about a shorter one on the way, so a length is a run of its own. Lengths are
found by halving: of all that the plan allows those that bracket the first at which the final validation loss is at the
target. Between the two the loss is taken as linear in the logarithm of the steps.

A seed that has not arrived at the longest length counts with that length: its true ratio is larger. One that has
arrived at the shortest counts with the shortest: its true ratio is smaller. Both are marked wherever they are shown.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from nestlearn.comparison.course import Course
from nestlearn.training import RunResult, RunSpec

__all__ = ["Arrival", "Ladder", "arrival", "wanted"]


@dataclass(frozen=True)
class Arrival:
    """When a loss was reached, as a ratio to the horizon.

    Attributes:
        ratio: of the steps, interpolated.
        bound: "" for a value, ">" where the target was not reached at the longest length, "<" where it was reached at
            the shortest.
    """

    ratio: float
    bound: str = ""


def wanted(lengths: Sequence[float], losses: Mapping[float, float], target: float) -> float | None:
    """The next length to run; None if those known bracket the target, or show that no length does.

    Args:
        lengths: all allowed, increasing, 1 among them.
        losses: final losses of those known.
    """
    if 1.0 not in losses:
        return 1.0
    low, high = _bracket(lengths, losses, target)
    if high - low <= 1:
        return None
    return lengths[(low + high) // 2]


def _bracket(lengths: Sequence[float], losses: Mapping[float, float], target: float) -> tuple[int, int]:
    """The places around the crossing: of the longest length known to miss the target below a length that reaches it,
    and of that length; -1 and ``len(lengths)`` where there is none.
    """
    low, high = -1, len(lengths)
    place = lengths.index(1.0)
    while place in range(low + 1, high) and lengths[place] in losses:
        if losses[lengths[place]] <= target:
            high = place
        else:
            low = place
        place = (low + high) // 2
    return low, high


def arrival(lengths: Sequence[float], losses: Mapping[float, float], target: float) -> Arrival:
    """When the target was reached, from all the losses that ``wanted`` asked for."""
    low, high = _bracket(lengths, losses, target)
    if high == len(lengths):
        return Arrival(lengths[-1], ">")
    if low == -1:
        return Arrival(lengths[0], "" if losses[lengths[0]] == target else "<")
    before, after = lengths[low], lengths[high]
    above, below = losses[before] - target, losses[before] - losses[after]
    share = above / below if math.isfinite(below) else 1.0  # a run that diverged says nothing about the way
    return Arrival(before * (after / before) ** share)


class Ladder(Course):
    """The runs of one contender, task and seed at the lengths that bracket each target.

    Args:
        spec: the run of a length.
        known: results at hand, by key.
        targets: final validation losses to reach.
    """

    def __init__(
        self,
        spec: Callable[[float], RunSpec],
        lengths: Sequence[float],
        targets: Sequence[float],
        known: Mapping[str, RunResult],
    ) -> None:
        found = {key: known[key] for length in lengths if (key := spec(length).key) in known}
        super().__init__(found)
        self.spec, self.lengths, self.targets = spec, tuple(lengths), tuple(targets)

    def _losses(self) -> dict[float, float]:
        keys = {length: self.spec(length).key for length in self.lengths}
        return {length: self.results[key].score for length, key in keys.items() if key in self.results}

    def _stages(self) -> Iterator[list[RunSpec]]:
        while True:
            losses = self._losses()
            lengths = {wanted(self.lengths, losses, target) for target in self.targets} - {None}
            if not lengths:
                return
            yield [self.spec(length) for length in sorted(length for length in lengths if length is not None)]

    def _estimate(self) -> int:
        return math.ceil(math.log2(len(self.lengths)))

    def arrivals(self) -> list[Arrival]:
        """When each target was reached; call it when the course is done."""
        losses = self._losses()
        return [arrival(self.lengths, losses, target) for target in self.targets]
