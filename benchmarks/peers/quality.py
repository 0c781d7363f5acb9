"""How well networks train: test loss after tuning by one procedure for everybody.

As in ``nestlearn compare`` the contender has the hidden matrices, and everything else (vectors, embeddings, the head)
follows torch's AdamW at one fixed rate in every run. The learning rate falls linearly to zero. A seed fixes the first
weights and the batches.

Tuning is the same search for everyone, with the first seed and on the validation split: the learning rates of a coarse
grid that spans five decades, with the retention at its first value; then the best of them and its neighbours, at both
retentions. Without a retention the second stage has as many learning rates instead. Trials are as long as the runs
that are reported, since shorter ones choose rates that are good early. The best setting is then run with the other
seeds, and the test split is looked at once.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import nn

from benchmarks.peers.contenders import CONTENDERS, Contender
from benchmarks.peers.isolation import isolated
from benchmarks.peers.problems import seed_everything
from nestlearn.optim import tables
from nestlearn.tasks import Task, make_task

__all__ = ["BUDGETS", "COARSE", "RETENTIONS", "SAME", "Budget", "interval", "refined", "search"]

COARSE = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
RETENTIONS = (0.9, 0.7)
ELEMENTWISE_LR = 1e-2


@dataclass(frozen=True)
class Budget:
    """Steps of every run, the seeds, and the size of the task."""

    steps: int
    seeds: tuple[int, ...]
    size: Mapping[str, int]


_SPEECHES = {"dim": 32, "heads": 2, "context": 32, "batch": 16, "validation_windows": 128, "test_windows": 512}
BUDGETS = {
    "digits": Budget(120, (0, 1, 2), {}),
    "speeches": Budget(80, (0, 1, 2), _SPEECHES),
}

SAME = {
    "nestlearn Adam": "torch AdamW",
    "nestlearn Momentum": "torch SGD",
    "heavyball SGD": "torch SGD",
    "heavyball AdamW": "torch AdamW",
}
"""Contenders that the gate finds equal to another one; they are not trained twice."""

Setting = tuple[float, float | None]
"""lr and retention."""


def refined(lr: float, retentions: Sequence[float | None]) -> list[Setting]:
    """Settings around ``lr``, five of them new: three rates at two retentions, or five rates without a retention."""
    if len(retentions) == 2:
        return [(lr * factor, retention) for retention in retentions for factor in (1 / 3, 1.0, 3.0)]
    return [(lr * factor, retentions[0]) for factor in (1 / 5, 1 / 3, 1 / 2, 2.0, 3.0)]


def search(key: str, task: str, budget: Budget, seconds: int = 900) -> dict[str, Any]:
    """Tune, run with every seed, and return plain data; a contender that fails has a reason and no loss."""
    outcome = isolated(_search, key, task, budget, seconds=seconds)
    return {"contender": key, "task": task, **(outcome.value or {"problem": outcome.problem})}


def _search(key: str, name: str, budget: Budget) -> dict[str, Any]:
    contender, task = CONTENDERS[key], make_task(name, dict(budget.size), "cpu", "float32")
    retentions = (None,) if contender.retention is None else RETENTIONS
    trials: dict[Setting, dict[str, float]] = {}

    def run(setting: Setting, seed: int) -> dict[str, float]:
        return _train(task, contender, setting, seed, budget.steps)

    def best_of(settings: Sequence[Setting]) -> Setting:
        for setting in settings:
            if setting not in trials:
                trials[setting] = run(setting, budget.seeds[0])
        return min(trials, key=lambda setting: trials[setting]["validation"])

    coarse = best_of([(lr, retentions[0]) for lr in COARSE])
    best = best_of(refined(coarse[0], retentions))
    if trials[best]["validation"] == math.inf:
        return {"problem": "diverged at every learning rate"}
    tests = [trials[best]["test"], *(run(best, seed)["test"] for seed in budget.seeds[1:])]
    if not all(map(math.isfinite, tests)):
        return {"problem": f"diverged with another seed at its best, lr {best[0]:.2g}"}
    return {
        "problem": None,
        "lr": best[0],
        "retention": best[1],
        "edge": best[0] in (min(lr for lr, _ in trials), max(lr for lr, _ in trials)),
        "trials": len(trials),
        "test": tests,
        "mean": statistics.fmean(tests),
        "interval": interval(tests),
    }


def _train(task: Task, contender: Contender, setting: Setting, seed: int, steps: int) -> dict[str, float]:
    """Losses on both held-out splits after some steps; infinite if the run diverged."""
    seed_everything(seed)
    model = task.build(seed)
    optimizers = _optimizers(task, model, contender, setting)
    rates = [[group["lr"] for group in _groups(optimizer)] for optimizer in optimizers]
    for step, batch in enumerate(islice(task.batches(seed), steps)):
        model.zero_grad()
        loss = task.loss(model, batch)
        loss.backward()
        if not math.isfinite(loss.item()):
            return {"validation": math.inf, "test": math.inf}
        for optimizer, base in zip(optimizers, rates, strict=True):
            for group, lr in zip(_groups(optimizer), base, strict=True):
                group["lr"] = lr * (1 - step / steps)
        try:
            for optimizer in optimizers:
                optimizer.step()
        except (FloatingPointError, torch.linalg.LinAlgError):
            return {"validation": math.inf, "test": math.inf}
    losses = {split: task.evaluate(model, split)["loss"] for split in ("validation", "test")}
    return losses if math.isfinite(losses["validation"]) else dict.fromkeys(losses, math.inf)


def _groups(optimizer: Any) -> list[dict[str, Any]]:
    """What holds the learning rates: the parameter groups, or the attributes of what has no groups."""
    found: list[dict[str, Any]] = optimizer.param_groups if hasattr(optimizer, "param_groups") else [vars(optimizer)]
    return found


def _optimizers(task: Task, model: nn.Module, contender: Contender, setting: Setting) -> list[Any]:
    """The contender for the hidden matrices, AdamW for everything else."""
    apart = set(map(id, tables(model, output=task.ends(model))))
    hidden = [p for p in model.parameters() if p.ndim >= 2 and id(p) not in apart]
    chosen = {id(parameter) for parameter in hidden}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    lr, retention = setting
    return [
        contender.build(hidden, model, lr=lr, retention=retention),
        torch.optim.AdamW(rest, lr=ELEMENTWISE_LR, weight_decay=0.0),
    ]


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """95% for the mean by Student's t; None for fewer than two values or more than ten."""
    quantile = STUDENT.get(len(values) - 1)
    if quantile is None:
        return None
    middle = statistics.fmean(values)
    half = quantile * statistics.stdev(values) / math.sqrt(len(values))
    return middle - half, middle + half


STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
"""97.5% quantiles of Student's t by degrees of freedom; no library for nine numbers."""
