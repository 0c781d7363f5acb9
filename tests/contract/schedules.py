"""Every scheduler of `torch.optim.lr_scheduler` with its required arguments and the defaults of the rest."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler as torch_schedulers
from torch.optim.lr_scheduler import LRScheduler

__all__ = [
    "CYCLES",
    "LR",
    "SCHEDULERS",
    "STEPS",
    "exported_schedulers",
    "free_gradients",
    "rate",
    "tick",
]

LR = 0.05
STEPS = 13
"""As many steps as it takes until every scheduler has moved the rate: ReduceLROnPlateau waits for eleven bad ones."""

Scheduled = Callable[..., LRScheduler]


def _sequential(optimizer: torch.optim.Optimizer) -> LRScheduler:
    first, second = torch_schedulers.ConstantLR(optimizer), torch_schedulers.ExponentialLR(optimizer, 0.9)
    return torch_schedulers.SequentialLR(optimizer, [first, second], [4])


def _chained(optimizer: torch.optim.Optimizer) -> LRScheduler:
    first, second = torch_schedulers.ConstantLR(optimizer), torch_schedulers.ExponentialLR(optimizer, 0.9)
    return torch_schedulers.ChainedScheduler([first, second])


def _relative(cls: type[LRScheduler], **required: Any) -> Scheduled:
    """A scheduler of factors: whatever the rate is, it does the same to it."""
    return lambda optimizer, scale=1.0, **more: cls(optimizer, **required)


def _cyclic(optimizer: torch.optim.Optimizer, scale: float = 1.0, **more: Any) -> LRScheduler:
    return torch_schedulers.CyclicLR(optimizer, base_lr=0.01 * scale, max_lr=0.1 * scale, **more)


def _one_cycle(optimizer: torch.optim.Optimizer, scale: float = 1.0, **more: Any) -> LRScheduler:
    return torch_schedulers.OneCycleLR(optimizer, max_lr=0.1 * scale, total_steps=STEPS + 1, **more)


CYCLES: dict[str, Scheduled] = {"CyclicLR": _cyclic, "OneCycleLR": _one_cycle}
"""The schedulers that cycle momentum too, unless they get `cycle_momentum=False`."""

SCHEDULERS: dict[str, Scheduled] = {
    "LambdaLR": _relative(torch_schedulers.LambdaLR, lr_lambda=lambda step: 0.9**step),
    "MultiplicativeLR": _relative(torch_schedulers.MultiplicativeLR, lr_lambda=lambda step: 0.9),
    "StepLR": _relative(torch_schedulers.StepLR, step_size=3),
    "MultiStepLR": _relative(torch_schedulers.MultiStepLR, milestones=[2, 5]),
    "ConstantLR": _relative(torch_schedulers.ConstantLR),
    "LinearLR": _relative(torch_schedulers.LinearLR),
    "ExponentialLR": _relative(torch_schedulers.ExponentialLR, gamma=0.9),
    "SequentialLR": lambda optimizer, scale=1.0, **more: _sequential(optimizer),
    "CosineAnnealingLR": _relative(torch_schedulers.CosineAnnealingLR, T_max=6),
    "ChainedScheduler": lambda optimizer, scale=1.0, **more: _chained(optimizer),
    "ReduceLROnPlateau": _relative(torch_schedulers.ReduceLROnPlateau),
    "CosineAnnealingWarmRestarts": _relative(torch_schedulers.CosineAnnealingWarmRestarts, T_0=4),
    "PolynomialLR": _relative(torch_schedulers.PolynomialLR),
    **CYCLES,
}
"""Class -> a function of an optimizer. `scale` multiplies the rates of those that are told rates and no factors."""


def exported_schedulers() -> set[str]:
    """The names of all scheduler classes of the module, their common base left out."""
    found = {name: value for name, value in vars(torch_schedulers).items() if inspect.isclass(value)}
    return {
        name
        for name, value in found.items()
        if issubclass(value, LRScheduler) and value is not LRScheduler and not name.startswith("_")
    }


def tick(scheduler: LRScheduler) -> None:
    """One step of a scheduler; the one that watches a loss sees it stand still."""
    if isinstance(scheduler, torch_schedulers.ReduceLROnPlateau):
        scheduler.step(1.0)
    else:
        scheduler.step()


def rate(tensor: bool) -> float | Tensor:
    """The learning rate that optimizers start with, as a number or as a tensor."""
    return torch.tensor(LR, dtype=torch.float64) if tensor else LR


def free_gradients(module: nn.Module, step: int) -> None:
    """Gradients that depend on the step alone, and so are the same whatever the optimizer."""
    for place, parameter in enumerate(module.parameters()):
        parameter.grad = _draw(1000 * step + place, parameter.shape, parameter.dtype).clone()


@lru_cache(maxsize=1000)
def _draw(seed: int, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)
