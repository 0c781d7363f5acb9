"""What each of many ranks would do in a step: a dry run on the meta device, for parameters that are sharded by rows.

Matrices are handed out as `nestlearn.optim.owners` does it under FSDP2, FLOPs are counted by a step of each kind of
matrix alone, and bytes follow from shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
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

__all__ = ["RankLoad", "loads"]


@dataclass(frozen=True)
class RankLoad:
    """What one rank does in a step of the optimizer.

    Attributes:
        matrices: how many it owns.
        flops: of matrix products.
        state_bytes: what it remembers: of its matrices, and of its parts of everything else.
        sent_bytes: gradients to owners, and what owners send to others.
    """

    matrices: int = 0
    flops: float = 0.0
    state_bytes: int = 0
    sent_bytes: int = 0

    def more(self, *, matrices: int = 0, flops: float = 0.0, state_bytes: int = 0, sent_bytes: int = 0) -> RankLoad:
        """The same rank with more to do."""
        return replace(
            self,
            matrices=self.matrices + matrices,
            flops=self.flops + flops,
            state_bytes=self.state_bytes + state_bytes,
            sent_bytes=self.sent_bytes + sent_bytes,
        )


def loads(
    optimizers: Iterable[torch.optim.Optimizer], ranks: int, differentiate: Callable[[], Any], steps: int
) -> list[RankLoad]:
    """What each of so many ranks does.

    Args:
        optimizers: of parameters on the meta device; those that are not ours act on parts.
        ranks: how many, at least 1.
        differentiate: gives every parameter a gradient, and returns what a step's closure does, or None.
        steps: over how many FLOPs are means.

    Raises:
        ValueError: for fewer than one rank.
    """
    if ranks < 1:
        raise ValueError(f"ranks: expected at least 1, got {ranks}")
    found = [RankLoad()] * ranks
    for optimizer in optimizers:
        flops: dict[Any, float] = {}
        facts = [
            (parameter, group, *_facts(optimizer, parameter, group)) for parameter, group in _parameters(optimizer)
        ]
        owners = iter(hand_out([parameter for parameter, _, _, matrix, _ in facts if matrix], [0] * ranks))
        for parameter, group, state, matrix, sends_weight in facts:
            rows = divided(parameter.shape[0] if parameter.ndim else 1, ranks)
            if not matrix:
                share = [count / max(1, sum(rows)) for count in rows]
                found = [load.more(state_bytes=round(state * part)) for load, part in zip(found, share, strict=True)]
                continue
            kind = (id(group), parameter.shape, parameter.dtype)
            if kind not in flops:
                flops[kind] = _flops(optimizer, parameter, differentiate, steps)
            owner = next(owners)
            found[owner] = found[owner].more(matrices=1, flops=flops[kind], state_bytes=state)
            size = parameter.numel() // sum(rows) * parameter.element_size()
            for rank, count in enumerate(rows):
                # An owner sends what to add to all other parts; a rank sends its part of what the owner reads.
                away = (sum(rows) - count) if rank == owner else count * (1 + sends_weight)
                found[rank] = found[rank].more(sent_bytes=away * size)
    return found


def _parameters(optimizer: torch.optim.Optimizer) -> Iterator[tuple[Tensor, Group]]:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.requires_grad and parameter.numel():
                yield parameter, group


def _facts(optimizer: torch.optim.Optimizer, parameter: Tensor, group: Group) -> tuple[int, bool, bool]:
    """(bytes of the state, whether a rank owns it, whether the owner is sent the weight too) of a parameter."""
    if not isinstance(optimizer, Optimizer):
        return state_bytes(optimizer.state.get(parameter, {})), False, False
    state = optimizer.fresh_state(parameter, group, device="meta")
    matrix = not optimizer.entry(parameter, group).flat
    return state_bytes(state), matrix, matrix and not optimizer.rules(group).adds


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
