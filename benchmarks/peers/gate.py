"""What is right before a time is printed: a contender trains, and equals a closed form where it has one.

Each check runs in a process of its own. A contender that does not train gets no time. One that trains but misses its
closed form is marked in every table: the name promises something else than it does, which is no question of speed.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.optim.gate import Check
from benchmarks.peers.contenders import CONTENDERS
from benchmarks.peers.isolation import isolated
from benchmarks.peers.problems import advance, network, seed_everything

__all__ = ["Verdict", "judge"]

RATES = (3e-4, 3e-3, 3e-2, 3e-1, 3.0)
STEPS = 60
SHAPE = (12, 20)


@dataclass(frozen=True)
class Verdict:
    """``trained`` is the best final loss relative to the first, over ``RATES``; at most a half is training."""

    trained: float | None
    problem: str | None
    form: Check | None

    @property
    def trains(self) -> bool:
        return self.trained is not None and self.trained <= 0.5

    @property
    def exact(self) -> bool:
        return self.form is None or self.form.passed

    def record(self) -> dict[str, Any]:
        return {
            "trains": self.trains,
            "relative_loss": self.trained,
            "problem": self.problem,
            "closed_form": None if self.form is None else self.form.record(),
        }


def judge(keys: Iterable[str]) -> dict[str, Verdict]:
    """A verdict for every contender."""
    return {key: _judge(key) for key in keys}


def _judge(key: str) -> Verdict:
    trained = isolated(relative_loss, key)
    form = None
    if key in FORMS:
        name, error, tolerance = FORMS[key]
        outcome = isolated(error, key)
        found = math.nan if outcome.problem else outcome.value
        form = Check(name if outcome.problem is None else f"{name}: {outcome.problem}", found, tolerance)
    return Verdict(trained.value, trained.problem, form)


def relative_loss(key: str) -> float:
    """Mean loss of the last tenth of the steps over that of the first step, at the best of the rates."""
    best = math.inf
    for rate in RATES:
        seed_everything(1)
        model = network()
        try:
            losses = advance(model, CONTENDERS[key].build(model.parameters(), model, lr=rate), range(STEPS))
        except (FloatingPointError, torch.linalg.LinAlgError):
            continue  # diverged at this rate
        last = sum(losses[-STEPS // 10 :]) / (STEPS // 10)
        best = min(best, last / losses[0] if math.isfinite(last) else math.inf)
    return best


def _gradients(steps: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(SHAPE, generator=generator) for _ in range(steps)]


def _run(optimizer: Any, parameter: nn.Parameter, steps: int = 20) -> Tensor:
    for gradient in _gradients(steps):
        parameter.grad = gradient.clone()
        optimizer.step()
    return parameter.detach()


def _weight() -> nn.Parameter:
    return nn.Parameter(torch.randn(SHAPE, generator=torch.Generator().manual_seed(4)))


def _difference_to_torch(
    build: Callable[[list[nn.Parameter]], torch.optim.Optimizer], options: dict[str, Any], key: str
) -> float:
    """The largest difference to an optimizer of torch."""
    ours, theirs = _weight(), _weight()
    found = _run(CONTENDERS[key].build([ours], lr=0.01, **options), ours)
    return float((found - _run(build([theirs]), theirs)).abs().max())


def _adamw(params: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(params, lr=0.01, betas=(0.9, 0.99), weight_decay=0.0)


def _adamw_999(params: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(params, lr=0.01, betas=(0.9, 0.999), weight_decay=0.0)


def _sgd(params: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(params, lr=0.01, momentum=0.9)


def _difference_to(update: Callable[[Tensor, dict[str, Tensor]], Tensor], key: str) -> float:
    """The largest difference to ``W <- W - lr update(gradient, memory)`` in float64."""
    theirs, truth, memory = _weight(), _weight().detach().double(), dict[str, Tensor]()
    found = _run(CONTENDERS[key].build([theirs], lr=0.01), theirs)
    for gradient in _gradients(20):
        truth -= 0.01 * update(gradient.double(), memory)
    return float((found - truth).abs().max())


def _average(name: str, value: Tensor, retention: float, memory: dict[str, Tensor]) -> Tensor:
    memory[name] = retention * memory.get(name, torch.zeros_like(value)) + (1 - retention) * value
    return memory[name]


def _lion(gradient: Tensor, memory: dict[str, Tensor]) -> Tensor:
    update = (0.9 * memory.get("momentum", torch.zeros_like(gradient)) + 0.1 * gradient).sign()
    _average("momentum", gradient, 0.99, memory)
    return update


def _adan(gradient: Tensor, memory: dict[str, Tensor]) -> Tensor:
    change = gradient - memory.get("before", gradient)
    memory["before"] = gradient
    step = memory["step"] = memory.get("step", torch.zeros(())) + 1
    first = _average("first", gradient, 0.98, memory) / (1 - 0.98**step)
    second = _average("second", change, 0.92, memory) / (1 - 0.92**step)
    third = _average("third", (gradient + 0.92 * change).square(), 0.99, memory) / (1 - 0.99**step)
    return (first + 0.92 * second) / (third.sqrt() + 1e-8)


def _tanh(gradient: Tensor, memory: dict[str, Tensor]) -> Tensor:
    return _average("momentum", gradient.tanh(), 0.9, memory)


def _divided(gradient: Tensor, memory: dict[str, Tensor]) -> Tensor:
    second = _average("second", gradient.square(), 0.999, memory)
    return _average("momentum", gradient / (second.sqrt() + 1e-8), 0.9, memory)


def spread_of_the_first_update(key: str) -> float:
    """Largest over smallest singular value of the first displacement, for a gradient where that ratio is 100.

    Newton-Schulz with Muon's coefficients leaves singular values between about 0.7 and 1.2.
    """
    generator = torch.Generator().manual_seed(6)
    u, _ = torch.linalg.qr(torch.randn(16, 16, generator=generator))
    v, _ = torch.linalg.qr(torch.randn(16, 16, generator=generator))
    parameter = nn.Parameter(torch.zeros(16, 16))
    optimizer = CONTENDERS[key].build([parameter], lr=0.01)
    parameter.grad = u @ torch.diag(torch.logspace(0, -2, 16)) @ v
    optimizer.step()
    values = torch.linalg.svdvals(parameter.detach().double())
    return float(values[0] / values[-1])


_ORTHOGONAL = ("first update is orthogonal: spread of its singular values", spread_of_the_first_update, 3.0)

FORMS: dict[str, tuple[str, Callable[[str], float], float]] = {
    "nestlearn Adam": ("torch AdamW, 20 steps", partial(_difference_to_torch, _adamw_999, {}), 1e-6),
    "nestlearn Momentum": (
        "torch SGD with momentum, 20 steps",
        partial(_difference_to_torch, _sgd, {"retention": 0.9}),
        1e-6,
    ),
    "torch Muon": _ORTHOGONAL,
    "nestlearn Muon": _ORTHOGONAL,
    "heavyball AdamW": ("torch AdamW, 20 steps", partial(_difference_to_torch, _adamw, {}), 1e-6),
    "heavyball SGD": ("torch SGD with momentum, 20 steps", partial(_difference_to_torch, _sgd, {}), 1e-6),
    "heavyball Muon": _ORTHOGONAL,
    "pytorch-optimizer Muon": _ORTHOGONAL,
    "pytorch-optimizer Lion": ("sign of two averages, 20 steps", partial(_difference_to, _lion), 1e-6),
    "pytorch-optimizer Adan": ("Adan's recurrence in float64, 20 steps", partial(_difference_to, _adan), 1e-6),
    "nested-learning DeepMomentum dmgd": ("average of tanh(g), 20 steps", partial(_difference_to, _tanh), 1e-6),
    "nested-learning DeepMomentum muon": _ORTHOGONAL,
    "nested-learning DeepMomentum preconditioned": (
        "average of g / sqrt(average of g^2), 20 steps",
        partial(_difference_to, _divided),
        1e-6,
    ),
}
"""Contender -> what it has to equal, the function that measures the error, the largest error that passes."""
