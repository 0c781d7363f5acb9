"""Fair tuning: every contender, and every control, gets the same search.

One search has two parts, all on one task:

1. *trials*, of a part of the steps with the first seed, chosen by grids (``grid.py``) or by a sampler (``sampler.py``);
2. *shortlist*: the best few of them, all steps, every seed; the lowest mean over the seeds is chosen.

Every choice is made on the **validation** loss. The test split is looked at by runs of full length and never
consulted here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nestlearn.comparison.compare_settings import CompareSettings
from nestlearn.comparison.course import Course
from nestlearn.comparison.grid import Axes, Space, axes_of, budget, edges, grid_trials
from nestlearn.comparison.sampler import near_ends, ranges, tpe_trials
from nestlearn.contenders import Contender, Variant, find_contender
from nestlearn.training import RunResult, RunSpec
from nestlearn.training.spec import Pairs

__all__ = ["Search", "plan"]


class Search(Course):
    """The search for one contender, or its control, on one task."""

    def __init__(self, task: str, contender: Contender, control: bool, settings: CompareSettings) -> None:
        super().__init__({})
        self.task, self.contender, self.control, self.settings = task, contender, control, settings
        self.variant = Variant(contender.name, control)
        self.space = Space.of(contender, control, settings)
        self._tried: list[Pairs] = []

    def spec(self, values: Pairs, seed: int, full: bool) -> RunSpec:
        """The run with these settings: of full length, or a trial."""
        s, steps = self.settings, self.settings.steps_of(self.task)
        fixed = {**self.contender.fixed, **s.fixed.get(self.contender.label, {})}
        if self.control and isinstance(self.contender.control, Mapping):
            fixed.update(self.contender.control)
        return RunSpec(
            task=self.task,
            variant=self.variant,
            settings=values,
            seed=seed,
            steps=steps if full else max(1, round(steps * s.trial_fraction)),
            full=full,
            fixed=tuple(fixed.items()),
            size=tuple(s.sizes.get(self.task, {}).items()),
            elementwise_lr=s.elementwise_lr,
            points=s.points,
            device=s.device,
            dtype=s.dtype,
            schedule=s.schedule,
        )

    def _trial(self, values: Pairs) -> RunSpec:
        return self.spec(values, self.settings.seeds[0], full=False)

    def _score(self, values: Pairs) -> float:
        return self.trial(values).score

    def _shortlist(self) -> list[list[RunSpec]]:
        """The settings that did best in the trials, each with its runs, one a seed; needs all trials."""
        best = sorted(dict.fromkeys(self._tried), key=self._score)[: self.settings.keep]
        return [[self.spec(values, seed, full=True) for seed in self.settings.seeds] for values in best]

    def _stages(self) -> Iterator[list[RunSpec]]:
        if self.settings.search == "tpe":
            batches = tpe_trials(f"{self.task}/{self.variant.name}", self.space, self.settings, self._score)
        else:
            batches = grid_trials(self.space, self.settings, self._score)
        for batch in batches:
            self._tried += batch
            yield [self._trial(values) for values in batch]
        yield [spec for runs in self._shortlist() for spec in runs]

    def _estimate(self) -> int:
        trials = budget(self.settings)
        return max(trials, len(self._tried)) + min(self.settings.keep, trials) * len(self.settings.seeds)

    def chosen(self) -> list[RunSpec]:
        """The runs of the chosen setting, one a seed; call it when the search is done."""
        return min(self._shortlist(), key=lambda specs: sum(self.results[spec.key].score for spec in specs))

    def trial(self, values: Pairs) -> RunResult:
        """The trial of these settings."""
        return self.results[self._trial(values).key]

    def trials(self) -> list[RunResult]:
        """The trials, in the order in which they were handed out."""
        return [self.trial(values) for values in self._tried]

    @property
    def axes(self) -> Axes:
        """All values tried of each setting."""
        return axes_of(self._tried)

    def edges(self) -> dict[str, str]:
        """The settings whose chosen value is at the "low" or "high" end of what was searched, natural ends apart."""
        chosen = dict(self.chosen()[0].settings)
        if self.settings.search == "tpe":
            return near_ends(chosen, ranges(self.space, self.settings))
        return edges(chosen, self.axes)


def _needs(contender: Contender) -> list[Variant]:
    """The variant itself, and the variant that is its control."""
    own = [Variant(contender.name)]
    if contender.control is None:
        return own
    return [*own, contender.control if isinstance(contender.control, Variant) else Variant(contender.name, True)]


def plan(contenders: list[Contender], settings: CompareSettings) -> list[Search]:
    """The searches of a comparison: task by task, each contender and its control, each variant once."""
    variants = dict.fromkeys(variant for contender in contenders for variant in _needs(contender))
    return [
        Search(task, find_contender(variant.contender), variant.control, settings)
        for task in settings.tasks
        for variant in variants
    ]
