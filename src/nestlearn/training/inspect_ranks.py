"""What each of many ranks would do in a step: a dry run on the meta device, for parameters that are sharded by rows.

FLOPs are counted by a step of each kind of matrix alone. Matrices are then handed out as `nestlearn.optim.owners` does
it under FSDP2, and bytes follow from shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from nestlearn.memory.state import state_bytes
from nestlearn.optim.exchange import divided
from nestlearn.optim.optimizer import Optimizer
from nestlearn.optim.owners import hand_out
from nestlearn.optim.settings import Group

__all__ = ["RankLoad", "Work", "loads", "works"]


@dataclass(frozen=True)
class Work:
    """What a step does to one parameter, on one process.

    Attributes:
        tensor: its shape and dtype; on the meta device.
        flops: of matrix products.
        state_bytes: what is remembered behind it.
        matrix: whether one rank owns it; else every rank acts on its part.
        sends_weight: whether the owner is sent the weight as well as the gradient.
    """

    tensor: Tensor
    flops: float
    state_bytes: int
    matrix: bool
    sends_weight: bool


@dataclass(frozen=True)
class RankLoad:
    """What one rank does in a step of the optimizer.

    Attributes:
        matrices: how many it owns.
        flops: of matrix products.
        state_bytes: what it remembers: of its matrices, and of its parts of everything else.
        sent_bytes: gradients to owners, and what owners send to others; what is observed besides is not in it.
    """

    matrices: int
    flops: float
    state_bytes: int
    sent_bytes: int


def works(optimizers: Iterable[torch.optim.Optimizer], differentiate: Callable[[], Any], steps: int) -> list[Work]:
    """What a step does to each parameter.

    Args:
        optimizers: of parameters on the meta device; those that are not ours act on parts.
        differentiate: gives every parameter a gradient, and returns what a step's closure does, or None.
        steps: over how many FLOPs are means.
    """
    found = []
    for optimizer in optimizers:
        flops: dict[Any, float] = {}
        for parameter, group in _parameters(optimizer):
            if not isinstance(optimizer, Optimizer):
                found.append(Work(parameter, 0.0, state_bytes(optimizer.state.get(parameter, {})), False, False))
                continue
            state = state_bytes(optimizer.fresh_state(parameter, group, device="meta"))
            if optimizer.entry(parameter, group).flat:
                found.append(Work(parameter, 0.0, state, False, False))
                continue
            kind = (id(group), parameter.shape, parameter.dtype)
            if kind not in flops:
                flops[kind] = _flops(optimizer, parameter, differentiate, steps)
            found.append(Work(parameter, flops[kind], state, True, not optimizer.rules(group).adds))
    return found


def loads(work: Sequence[Work], ranks: int) -> list[RankLoad]:
    """What each of so many ranks does.

    Raises:
        ValueError: for fewer than one rank.
    """
    if ranks < 1:
        raise ValueError(f"ranks: expected at least 1, got {ranks}")
    matrices, flops, state, sent = [0] * ranks, [0.0] * ranks, [0.0] * ranks, [0] * ranks
    owners = iter(hand_out([each.tensor for each in work if each.matrix], [0] * ranks))
    for each in work:
        rows = divided(each.tensor.shape[0] if each.tensor.ndim else 1, ranks)
        if not each.matrix:
            state = [held + each.state_bytes * count / sum(rows) for held, count in zip(state, rows, strict=True)]
            continue
        owner = next(owners)
        matrices[owner] += 1
        flops[owner] += each.flops
        state[owner] += each.state_bytes
        row = each.tensor.numel() // sum(rows) * each.tensor.element_size()
        # An owner sends what to add to all other parts; a rank sends its part of what the owner reads.
        for rank, count in enumerate(rows):
            sent[rank] += row * (sum(rows) - count if rank == owner else count * (1 + each.sends_weight))
    return [RankLoad(*each) for each in zip(matrices, flops, map(round, state), sent, strict=True)]


def _parameters(optimizer: torch.optim.Optimizer) -> Iterator[tuple[Tensor, Group]]:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.requires_grad and parameter.numel():
                yield parameter, group


def _flops(optimizer: torch.optim.Optimizer, parameter: Tensor, differentiate: Callable[[], Any], steps: int) -> float:
    """Mean FLOPs of a step of one parameter alone."""
    total = 0
    for _ in range(steps):
        value = differentiate()
        for other, _ in _parameters(optimizer):
            if other is not parameter:
                other.grad = None
        with FlopCounterMode(display=False) as counter:
            optimizer.step() if value is None else optimizer.step(partial(_same, value))
        total += counter.get_total_flops()
    return total / steps


def _same(value: Any) -> Any:
    return value
