"""Deep momentum at three depths of nesting; the control of each, without any MLP, is depth 0 (O6)."""

from collections.abc import Iterable
from typing import Any

from nestlearn.optim import DeepMomentum

__all__ = ["depth_1", "depth_2", "depth_3"]


def _deep(
    named: Iterable[Any], lr: float, levels: int, retention: float, inner_lr: float, weight_decay: float, memory: bool
) -> DeepMomentum:
    return DeepMomentum(
        named,
        lr,
        levels=levels,
        skip_retention=retention,
        inner_lr=inner_lr,
        weight_decay=weight_decay,
        memory=memory,
    )


def depth_1(
    named: Iterable[Any],
    lr: float = 0.052,
    *,
    retention: float = 0.8,
    inner_lr: float = 0.1,
    weight_decay: float = 0.0,
    memory: bool = True,
) -> DeepMomentum:
    """An MLP, written by gradient descent."""
    return _deep(named, lr, 1, retention, inner_lr, weight_decay, memory)


def depth_2(
    named: Iterable[Any],
    lr: float = 0.052,
    *,
    retention: float = 0.8,
    inner_lr: float = 0.1,
    weight_decay: float = 0.0,
) -> DeepMomentum:
    """An MLP, written by MLPs, which are written by gradient descent."""
    return _deep(named, lr, 2, retention, inner_lr, weight_decay, True)


def depth_3(
    named: Iterable[Any],
    lr: float = 0.052,
    *,
    retention: float = 0.8,
    inner_lr: float = 0.1,
    weight_decay: float = 0.0,
) -> DeepMomentum:
    """An MLP, written by MLPs, which are written by MLPs, which are written by gradient descent."""
    return _deep(named, lr, 3, retention, inner_lr, weight_decay, True)
