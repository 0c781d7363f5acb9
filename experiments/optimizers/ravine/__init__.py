"""Steps that momentum and delta momentum take to the bottom of a curved ravine ([NL] Figure 4, O2, O4).

A setting is judged by the steps until the loss stays below ``GOAL``, the mean over starts that are scattered around
the paper's: on a single start and with a fine enough grid either rule has a lucky trajectory. Tuning sees other starts
than the report. All settings of a grid and all starts are walked at once in float64; the chosen settings are
then tried with the optimizers of the library, and another loss on the first steps is an error.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import isclose
from pathlib import Path

import torch
from torch import Tensor

from experiments.harness import Outcome, markdown
from nestlearn.optim import DeltaMomentum, Momentum
from nestlearn.tasks import Task, make_task

__all__ = ["run"]

GOAL = 1e-6
CHECKED = 12  # steps at which the optimizers of the library are held against the formula
RETENTIONS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98)
# Either rule has as many settings: what delta momentum spends on inner_lr, momentum spends on finer learning rates.
INNER = (0.02, 0.05, 0.1, 0.3)


@dataclass(frozen=True)
class Size:
    """What differs between the sizes: learning rates of delta momentum, starts, steps, ravines (k, a, w)."""

    rates: int
    tuning: range
    test: range
    limit: int
    ravines: tuple[tuple[float, float, float], ...]


RAVINES = (
    (10.0, 0.0, 1.0),
    (10.0, 0.25, 2.0),
    (10.0, 0.5, 2.0),
    (10.0, 0.5, 4.0),
    (10.0, 1.0, 1.0),
    (30.0, 0.25, 4.0),
    (30.0, 0.5, 2.0),
    (100.0, 0.25, 1.0),
    (100.0, 0.5, 2.0),
)
SIZES = {
    "quick": Size(8, range(1, 4), range(6, 11), 600, ((10.0, 0.25, 2.0), (10.0, 0.5, 2.0), (30.0, 0.25, 4.0))),
    "full": Size(15, range(1, 6), range(6, 26), 2000, RAVINES),
}


def run(size: str, folder: Path, workers: int) -> Outcome:
    """Both rules on every ravine; ``folder`` and ``workers`` are not needed."""
    chosen = SIZES[size]
    rows, figures = [], {}
    for ravine in chosen.ravines:
        name = "k={:g} a={:g} w={:g}".format(*ravine)
        momentum = _tuned(ravine, chosen, chosen.rates * len(INNER), (0.0,))
        delta = _tuned(ravine, chosen, chosen.rates, INNER)
        rows.append([name, *_cells(momentum), *_cells(delta), f"{_mean(delta[1]) / _mean(momentum[1]):.2f}"])
        figures |= {f"{name}/momentum": _mean(momentum[1]), f"{name}/delta": _mean(delta[1])}
        figures[f"{name}/ratio"] = _mean(delta[1]) / _mean(momentum[1])
    wins = sum(figures[name] < 1 for name in figures if name.endswith("/ratio"))
    figures["delta_wins"], figures["ravines"] = wins, len(chosen.ravines)
    head = ["ravine", "momentum: steps [min, max]", "its settings", "delta momentum: steps [min, max]", "its settings"]
    title = (
        f"Steps until the loss stays below {GOAL:g}, mean over {len(chosen.test)} starts that tuning did not see; "
        f"{chosen.rates * len(INNER) * len(RETENTIONS)} settings of each rule, at most {chosen.limit} steps."
    )
    return Outcome((f"{title}\n\n{markdown([*head, 'ratio'], rows)}",), figures)


Setting = dict[str, float]


def _mean(steps: Tensor) -> float:
    return float(steps.double().mean())


def _cells(found: tuple[Setting, Tensor]) -> list[str]:
    setting, steps = found
    return [
        f"{_mean(steps):.0f} [{int(steps.min())}, {int(steps.max())}]",
        ", ".join(f"{name} {value:.3g}" for name, value in setting.items()),
    ]


def _starts(ravine: tuple[float, float, float], seeds: Iterable[int]) -> Tensor:
    """The points [starts, 2] from which the task starts with these seeds."""
    points = [_task(ravine).build(seed).point().detach()[0] for seed in seeds]  # type: ignore[operator]
    return torch.stack(points)


def _task(ravine: tuple[float, float, float]) -> Task:
    fields = dict(zip(("steepness", "amplitude", "frequency"), ravine, strict=True))
    return make_task("ravine", fields, "cpu", "float64")


def _tuned(
    ravine: tuple[float, float, float], size: Size, rates: int, inner: tuple[float, ...]
) -> tuple[Setting, Tensor]:
    """The setting with the fewest mean steps from the tuning starts, and its steps from each test start."""
    grid = torch.tensor(
        list(itertools.product(torch.logspace(-4, -0.5, rates, dtype=torch.float64).tolist(), RETENTIONS, inner)),
        dtype=torch.float64,
    )
    steps = _walk(ravine, _starts(ravine, size.tuning), grid, size.limit)
    best = grid[steps.double().mean(1).argmin()]
    setting = dict(zip(("lr", "retention", "inner_lr"), best.tolist(), strict=True))
    test = _walk(ravine, _starts(ravine, size.test), best[None], size.limit)[0]
    _check(ravine, size.test[0], setting)
    if inner == (0.0,):
        del setting["inner_lr"]
    return setting, test


def _walk(ravine: tuple[float, float, float], starts: Tensor, grid: Tensor, limit: int) -> Tensor:
    """Steps [settings, starts] until the loss stays below ``GOAL``; ``limit`` where it does not."""
    last = torch.zeros(len(grid), len(starts), dtype=torch.long)
    for step, loss in enumerate(itertools.islice(_losses(ravine, starts, grid), limit), start=1):
        last[~(loss < GOAL)] = step  # NaN is not below
    return (last + 1).clamp_max(limit)


def _losses(ravine: tuple[float, float, float], starts: Tensor, grid: Tensor) -> Iterator[Tensor]:
    """The losses [settings, starts] after every step.

    Args:
        starts: [starts, 2].
        grid: [settings, 3], each lr, retention and inner_lr; an inner_lr of 0 is momentum.
    """
    k, a, w = ravine
    lr, retention, inner = (column[:, None, None] for column in grid.T)
    point = starts.expand(len(grid), *starts.shape)
    memory = torch.zeros_like(point)
    while True:
        r, t = point.unbind(-1)
        across = r - t + a * torch.sin(w * r)
        slope = torch.stack([2 * r + 2 * k * across * (1 + a * w * torch.cos(w * r)), -2 * k * across], -1)
        key = slope / slope.norm(dim=-1, keepdim=True).clamp_min(1e-300)
        memory = retention * memory + slope - inner * (memory * key).sum(-1, keepdim=True) * key
        point = point - lr * memory
        r, t = point.unbind(-1)
        yield r.square() + k * (r - t + a * torch.sin(w * r)).square()


def _check(ravine: tuple[float, float, float], seed: int, setting: Setting) -> None:
    """The library's optimizer has the same losses on the first steps, before rounding has grown; else RuntimeError."""
    task, grid = _task(ravine), torch.tensor([list(setting.values())], dtype=torch.float64)
    model = task.build(seed)
    if setting["inner_lr"]:
        optimizer: torch.optim.Optimizer = DeltaMomentum(model.parameters(), **setting)
    else:
        optimizer = Momentum(model.parameters(), setting["lr"], retention=setting["retention"])
    for step, expected in enumerate(itertools.islice(_losses(ravine, _starts(ravine, [seed]), grid), CHECKED)):
        optimizer.zero_grad()
        task.loss(model, ()).backward()
        optimizer.step()
        found = task.loss(model, ()).item()
        if not isclose(found, expected.item(), rel_tol=1e-6):
            raise RuntimeError(
                f"{type(optimizer).__name__}{setting} on the ravine {ravine}: expected a loss of {expected.item():.9g} "
                f"after step {step + 1}, got {found:.9g}"
            )
