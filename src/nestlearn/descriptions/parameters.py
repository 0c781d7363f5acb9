"""What every description says of parameters and of tensors in a state: which of them count, how many, how large."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nestlearn.descriptions.data import WEIGHTS
from nestlearn.memory.described import Described
from nestlearn.memory.state import state_bytes

__all__ = [
    "covered",
    "frozen_parameters",
    "outermost",
    "written_parameters",
]


def written_parameters(optimizer: torch.optim.Optimizer, group: Mapping[str, Any]) -> list[Tensor]:
    """The parameters of a group that can get a gradient, or once had one."""
    return [p for p in group["params"] if p.requires_grad or p.grad is not None or optimizer.state.get(p)]


def frozen_parameters(optimizer: torch.optim.Optimizer, group: Mapping[str, Any]) -> list[Tensor]:
    """The other parameters of a group."""
    written = {id(parameter) for parameter in written_parameters(optimizer, group)}
    return [parameter for parameter in group["params"] if id(parameter) not in written]


def outermost(parameters: Sequence[Tensor]) -> Described:
    """The weights, the memory that all others serve, before anything is said of their rule."""
    return Described(
        WEIGHTS,
        symbol="W",
        model="the model's parameters",
        objective="the loss",
        key="inputs",
        value="targets",
        home="weights",
        holds="map",
        initial="",
        count=len(parameters),
        parameters=sum(parameter.numel() for parameter in parameters),
        bytes=state_bytes(parameters),
    )


def covered(parameters: Iterable[Tensor]) -> str:
    """Parameters in words: '4 matrices and 6 vectors, 12,640 entries'."""
    chosen = list(parameters)
    matrices = sum(parameter.ndim > 1 for parameter in chosen)
    kinds = ((matrices, "matrix", "matrices"), (len(chosen) - matrices, "vector", "vectors"))
    words = [f"{count} {one if count == 1 else many}" for count, one, many in kinds if count]
    return f"{' and '.join(words) or 'no parameters'}, {sum(p.numel() for p in chosen):,} entries"
