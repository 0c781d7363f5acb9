"""Slopes that have slopes, for functions whose first slopes are written by hand."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = ["composed_slopes"]


def composed_slopes(
    composed: Callable[..., tuple[Tensor | None, ...]],
    inputs: Sequence[Tensor],
    needed: Sequence[bool],
    slopes: Sequence[Tensor],
) -> tuple[Tensor | None, ...]:
    """The slopes of ``inputs`` with a graph of their own, by differentiating the same function in single operations.

    Args:
        composed: what was computed, from ``inputs``; an output may be None.
        inputs: as the hand-written function saved them.
        needed: which of them need a slope; the others get None.
        slopes: of the outputs.
    """
    given = [(x, slope) for x, slope in zip(composed(*inputs), slopes, strict=True) if x is not None]
    wanted = [x for x, needs in zip(inputs, needed, strict=True) if needs]
    outputs, weights = zip(*given, strict=True)
    found = iter(torch.autograd.grad(outputs, wanted, weights, create_graph=True, allow_unused=True))
    return tuple(next(found) if needs else None for needs in needed)
