"""Trials chosen by a library instead of a grid: optuna's TPE sampler, asked for batches of a fixed size.

The sampler hears of a batch only when all of it is known and in the order in which it was handed out, and its seed
comes from the name of the search. So the trials depend neither on the number of workers nor on who is first, and a
search can be resumed from known results.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from nestlearn.comparison.compare_settings import CompareSettings
from nestlearn.comparison.grid import NATURAL_ENDS, Axes, Score, Space, budget, lr_grid, rounded, to_pairs
from nestlearn.training.spec import Pairs

if TYPE_CHECKING:
    from optuna.trial import Trial

__all__ = ["BATCH", "near_ends", "ranges", "tpe_trials"]

BATCH = 4
MARGIN = 3.0  # every range reaches this factor beyond the values of the grid


def ranges(space: Space, settings: CompareSettings) -> dict[str, tuple[float, float]]:
    """The lowest and highest value of each setting that is searched; of a retention those of 1 - retention. A setting
    with a single value on the grid is not searched.
    """
    axes: Axes = {
        "lr": lr_grid(space.lr, settings.lr_points, settings.lr_ratio),
        "retention": tuple(1 - value for value in space.retention),
        "weight_decay": space.weight_decay,
        "inner_lr": space.inner_lr,
    }
    found = {}
    for name, axis in axes.items():
        positive = [value for value in axis if value > 0]
        if len(axis) > 1:
            found[name] = (rounded(min(positive) / MARGIN), rounded(max(positive) * MARGIN))
    if "retention" in found:
        found["retention"] = (found["retention"][0], 1.0)
    if "weight_decay" in found:
        found["weight_decay"] = (rounded(found["weight_decay"][0] / 10), found["weight_decay"][1])  # next to nothing
    return found


def near_ends(chosen: Mapping[str, float], limits: dict[str, tuple[float, float]]) -> dict[str, str]:
    """The settings whose chosen value lies in the lowest or highest twentieth of its range, natural ends apart."""
    found = {}
    for name, (low, high) in limits.items():
        value = 1 - chosen[name] if name == "retention" else chosen[name]
        place = math.log(value / low) / math.log(high / low)
        if name == "retention":
            place = 1 - place
        if place >= 0.95:
            found[name] = "high"
        elif place <= 0.05 and name not in NATURAL_ENDS:
            found[name] = "low"
    return found


def _point(trial: Trial, limits: dict[str, tuple[float, float]], space: Space) -> Pairs:
    point = {}
    for name, (low, high) in limits.items():
        value = trial.suggest_float(name, low, high, log=True)
        point[name] = round(1 - value, 4) if name == "retention" else rounded(value)
    return to_pairs(space.start() | point)


def tpe_trials(name: str, space: Space, settings: CompareSettings, score: Score) -> Iterator[list[Pairs]]:
    """The batches of a search by the sampler; as many trials as the grids have before they grow.

    Args:
        name: of the search, on which the sampler's seed depends.
        score: the score of a trial handed out earlier, lower is better, infinite if it diverged.
    """
    import optuna  # an extra; ``resolve`` has seen that it is there

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed))
    limits, left = ranges(space, settings), budget(settings)
    while left > 0:
        asked = [study.ask() for _ in range(min(BATCH, left))]
        batch = [_point(trial, limits, space) for trial in asked]
        left -= len(batch)
        yield batch
        for trial, point in zip(asked, batch, strict=True):
            value = score(point)
            if math.isinf(value):
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
            else:
                study.tell(trial, value)
