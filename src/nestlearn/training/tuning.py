"""Fair tuning: every contender, and every control, gets the same search.

One search has two stages, all on one task:

1. *trial*: every setting of the grid, a part of the steps, the first seed;
2. *shortlist*: the best few of them, all steps, every seed; the lowest mean over the seeds is chosen.

Every choice is made on the **validation** loss. The test split is looked at by runs of full length and never
consulted here. A search is a small state machine: it hands out specs, is told results, and knows when it is done; who
runs them is not its concern.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from nestlearn.training.config import Settings
from nestlearn.training.contenders import CONTENDERS, Contender
from nestlearn.training.spec import RunResult, RunSpec, Variant

__all__ = ["Search", "grid", "lr_grid", "plan"]


def lr_grid(centre: float, points: int, ratio: float) -> tuple[float, ...]:
    """``points`` learning rates, a factor ``ratio`` apart, their geometric middle at ``centre`` (three significant
    digits).
    """
    return tuple(float(f"{centre * ratio ** (i - (points - 1) / 2):.2g}") for i in range(points))


def grid(contender: Contender, control: bool, settings: Settings) -> dict[str, tuple[Any, ...]]:
    """The values tried for each tuned setting of a contender or of its control."""
    centre = (contender.control_lr or contender.lr) if control else contender.lr
    axes: dict[str, tuple[Any, ...]] = {"lr": lr_grid(centre, settings.lr_points, settings.lr_ratio)}
    for name in contender.control_tuned if control else contender.tuned:
        axes[name] = settings.retentions
    return axes


@dataclass
class Search:
    """The search for one contender, or its control, on one task."""

    task: str
    contender: Contender
    control: bool
    settings: Settings
    results: dict[str, RunResult] = field(default_factory=dict)
    _issued: set[str] = field(default_factory=set)

    @property
    def variant(self) -> Variant:
        return Variant(self.contender.name, self.control)

    @property
    def axes(self) -> dict[str, tuple[Any, ...]]:
        return grid(self.contender, self.control, self.settings)

    def _spec(self, values: tuple[Any, ...], seed: int, full: bool) -> RunSpec:
        s, steps = self.settings, self.settings.steps[self.task]
        fixed = dict(self.contender.fixed)
        if self.control and isinstance(self.contender.control, Mapping):
            fixed.update(self.contender.control)
        return RunSpec(
            task=self.task,
            variant=self.variant,
            settings=tuple(zip(self.axes, values, strict=True)),
            seed=seed,
            steps=steps if full else max(1, round(steps * s.trial_fraction)),
            full=full,
            fixed=tuple(fixed.items()),
            size=tuple(s.sizes.get(self.task, {}).items()),
            elementwise_lr=s.elementwise_lr,
            points=s.points,
            device=s.device,
            dtype=s.dtype,
        )

    def _values(self) -> list[tuple[Any, ...]]:
        return list(product(*self.axes.values()))

    def _trials(self) -> list[RunSpec]:
        return [self._spec(values, self.settings.seeds[0], full=False) for values in self._values()]

    def _shortlist(self) -> list[list[RunSpec]]:
        """The settings that did best in the trials, each with its runs, one a seed; needs all trials."""
        best = sorted(self._trials(), key=lambda spec: self.results[spec.key].score)[: self.settings.keep]
        values = [tuple(value for _, value in spec.settings) for spec in best]
        return [[self._spec(one, seed, full=True) for seed in self.settings.seeds] for one in values]

    def _stages(self) -> Iterator[list[RunSpec]]:
        """The specs of each stage; a stage is reached only when all results of the one before it are known."""
        yield self._trials()
        yield [spec for runs in self._shortlist() for spec in runs]

    def next(self) -> list[RunSpec]:
        """The specs that can be run now and have not been handed out before."""
        for stage in self._stages():
            if any(spec.key not in self.results for spec in stage):
                fresh = [spec for spec in stage if spec.key not in self._issued and spec.key not in self.results]
                self._issued.update(spec.key for spec in fresh)
                return fresh
        return []

    def record(self, result: RunResult) -> None:
        self.results[result.key] = result

    @property
    def planned(self) -> int:
        """How many runs the whole search takes."""
        trials = len(self._values())
        return trials + min(self.settings.keep, trials) * len(self.settings.seeds)

    def chosen(self) -> list[RunResult]:
        """The runs of the chosen setting, one a seed; call it when the search is done."""
        runs = [[self.results[spec.key] for spec in specs] for specs in self._shortlist()]
        return min(runs, key=lambda results: sum(result.score for result in results))

    def trials(self) -> list[RunResult]:
        """The runs of the first stage, in the order of the grid."""
        return [self.results[spec.key] for spec in self._trials()]


def _needs(contender: Contender) -> list[Variant]:
    """The variant itself, and the variant that is its control."""
    own = [Variant(contender.name)]
    if contender.control is None:
        return own
    return [*own, contender.control if isinstance(contender.control, Variant) else Variant(contender.name, True)]


def plan(contenders: list[Contender], settings: Settings) -> list[Search]:
    """The searches of a comparison: task by task, each contender and its control, each variant once."""
    variants = dict.fromkeys(variant for contender in contenders for variant in _needs(contender))
    return [
        Search(task, CONTENDERS[variant.contender], variant.control, settings)
        for task in settings.tasks
        for variant in variants
    ]
