"""Rules of every kind, and a loop that steps with one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor

import nestlearn as nl
from nestlearn.rules import (
    Link,
    adam,
    average,
    averaged_weights,
    cautious,
    chain,
    constant_norm,
    deep,
    deep_adam,
    delta,
    every,
    features,
    floor,
    gradient,
    keep_length,
    muon,
    newton,
    orthogonal,
    outer,
    parallel,
    precondition,
    preconditioner,
    radial,
    regress,
    row_norm,
    scale,
    secant,
    second_moment,
    slow,
    sum,
    sum_of_squares,
    unit_rows,
    whiten,
    within,
)

__all__ = ["EVERY", "RULES", "SMALL", "UNSEEN", "composed", "every_other", "loop", "stepped"]

SMALL: dict[str, Link] = {
    "nothing": chain(),
    "gradient": gradient(),
    "sum": sum(0.9, nesterov=True),
    "adam": adam((0.8, 0.95), 1e-6),
    "rmsprop": second_moment(0.9),
    "adagrad": sum_of_squares(0.5, 1e-6),
    "adagrad, eps beside the root": sum_of_squares(0.5, 1e-6, under_root=False),
    "slow": chain(average(0.9), slow(0.9, 0.5)),
    "slow, at the weights": chain(average(0.9), slow(0.9, 0.5, ahead=False)),
    "slow, of displacements": chain(average(0.9), slow(0.9, 0.5, of="displacements")),
    "averaged weights": chain(sum(0.5), averaged_weights(0.9, start=4)),
    "even average of weights": chain(adam((0.8, 0.95), 1e-6), averaged_weights(1.0)),
    "every": every(3, average(0.5)),
    "outer": chain(average(0.8), outer(3, sum(0.6))),
}
"""Rules that act on single entries."""

RULES: dict[str, Link] = {
    **SMALL,
    "muon": muon(0.7),
    "muon in four steps": chain(average(0.7), orthogonal(4, coefficients="fitted")),
    "delta": delta(0.8, 0.3),
    "features": chain(features(), sum(0.5)),
    "unit rows": chain(unit_rows(), scale("rows")),
    "preconditioner": chain(average(0.9), preconditioner()),
    "kronecker": chain(precondition("kronecker"), sum(0.9)),
    "before and after": chain(
        average(0.65, nesterov=True), within(whiten("root", 0.9, refresh=3), orthogonal()), slow(0.9, 0.3)
    ),
    "before": chain(average(0.9), whiten(retention=0.9, side="inputs"), orthogonal()),
    "soap": chain(average(0.8, corrected=True), within(whiten("eigen", 0.9, refresh=3), second_moment(0.7))),
    "an eigenbasis alone": chain(average(0.9), whiten("eigen", 0.9, refresh=2, side="errors"), orthogonal()),
    "each side through the other": chain(average(0.9), whiten("kl", 0.9, power=-0.5), orthogonal()),
    "a side too large": within(whiten("root", 0.9, largest_side=3), orthogonal()),
    "regression": chain(average(0.9), regress(0.9, of="gradient")),
    "cautious": chain(adam((0.8, 0.95), 1e-6), cautious()),
    "rows": chain(muon(0.7), row_norm(0.9)),
    "row floor": chain(average(0.8), floor(0.3)),
    "brake": chain(muon(0.7), radial(0.25)),
    "brake of rows": chain(average(0.8), radial(0.0, of="rows"), floor(0.5, of="matrix")),
    "hyperball": chain(adam((0.8, 0.95), 1e-6), cautious(), constant_norm()),
    "everything beside the weights": chain(
        muon(0.7), cautious(), slow(0.9, 0.4, of="displacements"), averaged_weights(0.8)
    ),
    "constant rows": chain(sum(0.5), constant_norm("rows")),
    "two speeds": parallel(
        chain(average(0.8, name="fast"), orthogonal()),
        every(4, chain(average(0.5, name="slow"), orthogonal())),
        weights=(1.0, 0.3),
    ),
    "deep": chain(deep(4, beside=average(0.8)), orthogonal()),
    "deep, hypergradient": deep(4, retention=0.9, objective="hypergradient", beside=average(0.8)),
    "deep behind Adam": deep(4, written_by=chain(deep(3, written_by=adam()), keep_length())),
    "deep Adam": deep_adam(4),
    "secant": chain(secant(0.8, keys="all"), orthogonal()),
    "matrix by a forecast": deep(4, model="matrix", target="next_gradient"),
}
"""Rules for matrices that look at gradients and weights alone."""

UNSEEN: dict[str, Link] = {
    "layers": chain(average(0.9), within(whiten(of="layers"), orthogonal())),
    "curvature": newton(4),
    "hessian": chain(precondition("hessian"), sum(0.9)),
}
"""Rules that look at something else."""

EVERY = {**RULES, **UNSEEN}


def stepped(
    make: Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer],
    shape: tuple[int, ...] = (4, 3),
    steps: int = 12,
    dtype: torch.dtype = torch.float64,
) -> list[Tensor]:
    """The weights after each of some steps on a noisy quadratic."""
    generator = torch.Generator().manual_seed(3)
    weight = torch.nn.Parameter(torch.randn(shape, generator=generator, dtype=dtype))
    optimizer = make([weight])
    path = []
    for _ in range(steps):
        weight.grad = 0.5 * weight.detach() + torch.randn(shape, generator=generator, dtype=dtype)
        optimizer.step()
        path.append(weight.detach().clone())
    return path


def loop(write: Callable[[Tensor, Tensor, int], Tensor], steps: int = 12) -> list[Tensor]:
    """``stepped`` with the step written by hand: ``write(weights, gradient, time)`` gives the new weights."""
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    path = []
    for time in range(steps):
        weight = write(weight, 0.5 * weight + torch.randn(4, 3, generator=generator, dtype=torch.float64), time)
        path.append(weight)
    return path


def composed(rule: Link, lr: float = 0.1, **common: object) -> Callable[[list[torch.nn.Parameter]], nl.optim.Optimizer]:
    """An optimizer of one rule for everything, as an argument of ``stepped``."""
    return lambda weights: nl.optim.Optimizer(weights, lr, matrix=rule, **common)  # type: ignore[arg-type]


def every_other(names: Iterable[str]) -> list[Any]:
    """Cases of a test that takes every name of a long list; every other one is slow."""
    return [pytest.param(name, marks=pytest.mark.slow if place % 2 else ()) for place, name in enumerate(names)]
