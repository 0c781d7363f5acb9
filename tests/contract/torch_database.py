"""Torch's database of optimizers, with our members entered as `OptimizerInfo` records, and the problem they run on."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ExponentialLR, LinearLR, ReduceLROnPlateau, StepLR
from torch.testing._internal import common_optimizers
from torch.testing._internal.common_optimizers import (
    OptimizerInfo,
    OptimizerInput,
    get_error_inputs_for_all_optims,
)

from .members import MEMBERS, Member
from .selections import CLASSES, COVER, MANY_KINDS

__all__ = ["MemberInfo", "build", "free_of", "ours", "problem", "sign_of"]

COMMON: list[dict[str, Any]] = [
    {},
    {"lr": 0.01},
    {"weight_decay": 0.1},
    {"maximize": True},
    {"lr": torch.tensor(0.001)},
]


FAST = [member for member in CLASSES if member.name in MANY_KINDS]


def inputs_of(member: Member) -> list[OptimizerInput]:
    """The settings of the member; for the first member of its class also with each common keyword."""
    settings = {**member.settings, **({"model": None} if member.model else {})}
    first = next(each for each in MEMBERS if each.name == member.name) is member
    # Climbing is no promise of O12, which decays the weights along its keys whatever the gradient says.
    extra = [common for common in COMMON if member.rests or "maximize" not in common] if first else [{}]
    return [OptimizerInput(params=None, kwargs={**settings, **common}, desc=str(common)) for common in extra]


class MemberInfo(OptimizerInfo):
    """An entry of torch's database for one member, so that each member gets its own tests."""

    def __init__(self, member: Member) -> None:
        super().__init__(
            member.cls,
            optim_inputs_func=lambda device, dtype=None: inputs_of(member),
            optim_error_inputs_func=get_error_inputs_for_all_optims,
            scheduler_inputs=(
                [lambda o: StepLR(o, step_size=10, gamma=0.9)],
                [lambda o: LinearLR(o, start_factor=0.4, total_iters=4), lambda o: ExponentialLR(o, 0.95)],
                [lambda o: StepLR(o, step_size=10, gamma=0.9), lambda o: ReduceLROnPlateau(o)],
            ),
            supported_impls=(),
            not_og_supported_flags=(),
            decorators=[] if member in FAST else [pytest.mark.slow],
        )
        self.member = member

    @property
    def name(self) -> str:
        return re.sub(r"\W+", "_", str(self.member))


common_optimizers.optim_db[:] = [MemberInfo(member) for member in MEMBERS if not member.closure]
_asked = count()


def ours(resting: bool = False) -> list[OptimizerInfo]:
    """Every class, and a third of its further settings: for each test, which asks for them here, another third.

    Args:
        resting: those alone whose weights stay where they are at a zero gradient.
    """
    turn = next(_asked)
    further = [info for info in common_optimizers.optim_db if info.member.extra]
    left = {info.name for place, info in enumerate(further) if (place + turn) % COVER}
    every = [info for info in common_optimizers.optim_db if info.name not in left]
    return [info for info in every if info.member.rests] if resting else every


def problem(device: str, dtype: torch.dtype) -> tuple[nn.Linear, Callable[..., Tensor]]:
    """A linear layer 5 -> 4 and a closure that computes the gradients of a least-squares loss."""
    generator = torch.Generator().manual_seed(3)
    module = nn.Linear(5, 4).to(device=device, dtype=dtype)
    draws = [torch.randn(shape, generator=generator) for shape in ((4, 5), (4,), (12, 5), (12, 4))]
    weight, bias, inputs, targets = (draw.to(device=device, dtype=dtype) for draw in draws)
    with torch.no_grad():
        module.weight.copy_(weight)
        module.bias.copy_(bias)

    def loss(sign: float = 1.0) -> Tensor:
        module.zero_grad()
        value = sign * (module(inputs) - targets).square().mean()
        value.backward()
        return value.detach()

    return module, loss


def build(info: MemberInfo, module: nn.Module, kwargs: dict[str, Any], params: Any = None) -> torch.optim.Optimizer:
    filled = {key: module if key == "model" else copy.deepcopy(value) for key, value in kwargs.items()}
    return info.optim_cls(module.parameters() if params is None else params, **filled)


def free_of(params: Any) -> dict[str, Any]:
    """Arguments with which an optimizer that reads layers takes parameters that belong to none."""
    entries = params if isinstance(params, list) else [params]
    pairs = [entry["params"] if isinstance(entry, dict) else entry for entry in entries]
    flat = [each for pair in pairs for each in (pair if isinstance(pair, list | tuple) else [pair])]
    tensors = [each[1] if isinstance(each, tuple) else each for each in flat if not isinstance(each, str)]
    return {"model": nn.Linear(1, 1), "elementwise": tensors}


def sign_of(kwargs: dict[str, Any]) -> float:
    return -1.0 if kwargs.get("maximize") else 1.0
