"""The grids of a search: the same number of trials for every contender, and more of them only beyond an edge.

*Coarse*: learning rates times retentions. *Fine*: around each of the best few coarse settings, inner learning rates
times weight decays. A setting that a contender lacks is spent on learning rates: an axis of n values that is missing
becomes n learning rates which divide a step of the learning-rate axis by n. So the number of trials depends on the
settings of the comparison alone.

*Growing*: while one of the settings that would be run at full length has an extreme value of an axis, one value beyond
it is tried with the other settings as they are. Learning rates, inner learning rates and weight decays grow by a
factor, retentions by a factor of 1 - retention; retention and weight decay end naturally at 0.

A course of trials is a generator of batches. It may be asked for the next batch once all scores of the one before are
known, and depends on nothing else, so it is the same whatever the order in which runs end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from nestlearn.comparison.compare_settings import CompareSettings
from nestlearn.contenders import BASELINE, CONTENDERS, Contender
from nestlearn.training.spec import Pairs

__all__ = [
    "NATURAL_ENDS",
    "Axes",
    "Score",
    "Space",
    "axes_of",
    "budget",
    "edges",
    "grid_trials",
    "lr_grid",
    "rounded",
    "to_pairs",
]

Score = Callable[[Pairs], float]
Axes = dict[str, tuple[float, ...]]

FACTOR = 3.0  # by which inner learning rates and weight decays grow
RETENTION_FACTOR = 2.0  # by which 1 - retention does
NATURAL_ENDS = ("retention", "weight_decay")  # at 0
ORDER = ("lr", "retention", "weight_decay", "inner_lr")


def rounded(value: float) -> float:
    """Three significant digits: what tables can show is what was tried."""
    return float(f"{value:.3g}")


def to_pairs(values: Mapping[str, float]) -> Pairs:
    """Tuned settings as a run has them, in one order."""
    return tuple((name, values[name]) for name in ORDER if name in values)


def lr_grid(centre: float, points: int, ratio: float) -> tuple[float, ...]:
    """``points`` learning rates, a factor ``ratio`` apart, their geometric middle at ``centre``."""
    return tuple(rounded(centre * ratio ** (i - (points - 1) / 2)) for i in range(points))


@dataclass(frozen=True)
class Space:
    """What is tuned for a contender, or for its control: the middle of its learning rates, and the values of the rest.

    ``retention``, ``weight_decay`` and ``inner_lr`` are empty for a setting that it lacks. ``weight_decay`` is that of
    AdamW divided by the ratio of the two middles, so that all shrink the weights at a like pace.
    """

    lr: float
    retention: tuple[float, ...]
    weight_decay: tuple[float, ...]
    inner_lr: tuple[float, ...]
    inner_default: float | None

    @classmethod
    def of(cls, contender: Contender, control: bool, settings: CompareSettings) -> Space:
        """The space of a contender or of its control; what the settings fix is not tuned."""
        fixed = settings.fixed.get(contender.name, {})
        names = [name for name in (contender.control_tuned if control else contender.tuned) if name not in fixed]
        lr = (contender.control_lr or contender.lr) if control else contender.lr
        shrink = CONTENDERS[BASELINE].lr / lr
        inner = contender.inner_lr if "inner_lr" in names else None
        return cls(
            lr,
            settings.retentions if "retention" in names else (),
            tuple(rounded(v * shrink) for v in settings.weight_decays) if "weight_decay" in names else (),
            tuple(rounded(inner * factor) for factor in settings.inner_factors) if inner else (),
            inner,
        )

    def start(self) -> dict[str, float]:
        """Where the coarse grid has the settings of the fine one, and what is not searched stays."""
        found = {name: values[0] for name in NATURAL_ENDS if (values := getattr(self, name))}
        return found | ({"inner_lr": rounded(self.inner_default)} if self.inner_default else {})


def budget(settings: CompareSettings) -> int:
    """The trials of every search, before growing."""
    fine = len(settings.inner_factors) * len(settings.weight_decays) - 1
    coarse = settings.lr_points * len(settings.retentions)
    return coarse + min(settings.refine, coarse) * fine


def _coarse(space: Space, settings: CompareSettings) -> list[Pairs]:
    divide = 1 if space.retention else len(settings.retentions)
    rates = lr_grid(space.lr, settings.lr_points * divide, settings.lr_ratio ** (1 / divide))
    axes = {"lr": rates} | ({"retention": space.retention} if space.retention else {})
    values = [dict(zip(axes, point, strict=True)) for point in product(*axes.values())]
    return [to_pairs(space.start() | point) for point in values]


def _fine(space: Space, settings: CompareSettings, around: Pairs) -> list[Pairs]:
    """The fine grid around a coarse setting, without that setting itself."""
    base = dict(around)
    step = settings.lr_ratio ** (1 if space.retention else 1 / len(settings.retentions))
    divide = (1 if space.inner_lr else len(settings.inner_factors)) * (
        1 if space.weight_decay else len(settings.weight_decays)
    )
    rates = [rounded(base["lr"] * step ** ((i - divide // 2) / divide)) for i in range(divide)]
    axes: dict[str, Iterable[float]] = {"lr": rates}
    for name, values in (("weight_decay", space.weight_decay), ("inner_lr", space.inner_lr)):
        if values:
            axes[name] = values
    points = [base | dict(zip(axes, point, strict=True)) for point in product(*axes.values())]
    return [to_pairs(point) for point in points if point != base]


def axes_of(trials: Iterable[Pairs]) -> Axes:
    """All values tried of each setting, in increasing order."""
    values: dict[str, set[float]] = {}
    for trial in trials:
        for name, value in trial:
            values.setdefault(name, set()).add(value)
    return {name: tuple(sorted(found)) for name, found in values.items()}


def edges(chosen: dict[str, Any], axes: Axes) -> dict[str, str]:
    """The settings whose chosen value is the "low" or "high" end of those tried, natural ends and single values
    apart.
    """
    found = {}
    for name, values in axes.items():
        if len(values) == 1 or chosen[name] not in (values[0], values[-1]):
            continue
        end = "low" if chosen[name] == values[0] else "high"
        if not (end == "low" and name in NATURAL_ENDS and values[0] == 0):
            found[name] = end
    return found


def _beyond(name: str, value: float, end: str, lr_ratio: float) -> float:
    up = end == "high"
    if name == "retention":
        gap = (1 - value) * (1 / RETENTION_FACTOR if up else RETENTION_FACTOR)
        return min(max(round(1 - gap, 4), 0.0), 0.9999)
    factor = lr_ratio if name == "lr" else FACTOR
    return rounded(value * (factor if up else 1 / factor))


def _grow(tried: list[Pairs], score: Score, settings: CompareSettings) -> Iterator[list[Pairs]]:
    """Batches beyond the edges at which one of the settings for the shortlist lies, added to ``tried``."""
    for _ in range(settings.grow):
        axes = axes_of(tried)
        fresh: dict[Pairs, None] = {}
        for best in sorted(tried, key=lambda trial: (score(trial), dict(trial)["lr"]))[: settings.keep]:
            ends = edges(dict(best), axes) if math.isfinite(score(best)) else {"lr": "low"}  # only smaller steps help
            for name, end in ends.items():
                point = dict(best)
                point[name] = _beyond(name, point[name], end, settings.lr_ratio)
                fresh[to_pairs(point)] = None
        batch = [trial for trial in fresh if trial not in tried]
        if not batch:
            return
        tried += batch
        yield batch


def grid_trials(space: Space, settings: CompareSettings, score: Score) -> Iterator[list[Pairs]]:
    """The batches of a search by grids.

    Args:
        score: the score of a trial handed out earlier, lower is better, infinite if it diverged.
    """
    tried = _coarse(space, settings)
    yield list(tried)
    yield from _grow(tried, score, settings)
    best = sorted(tried, key=score)[: settings.refine]
    fine = [point for around in best for point in _fine(space, settings, around) if point not in tried]
    if fine:
        tried += fine
        yield fine
        yield from _grow(tried, score, settings)
