"""Softmax attention by torch's kernels, with slopes of every order (S1).

    Y = softmax(Q K^T / sqrt(d)) V

The kernels never hold the scores, one for each pair of tokens; but their slopes have no slopes on any device, they know
no forward differences, and on a CPU no batches of vmap. Where one of these is asked for, the same is said in single
operations.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from nestlearn.ops.second_order import composed_slopes
from nestlearn.ops.tracing import transformed
from nestlearn.precision import no_autocast

__all__ = ["attention"]


def attention(query: Tensor, key: Tensor, value: Tensor, seen: int, empty: Tensor | None = None) -> Tensor:
    """Y [*, time, d]: each token reads itself and what came before it.

    Args:
        query: Q [*, time, d].
        key, value: K and V [*, seen + time, d].
        seen: how many tokens came before the first one that asks.
        empty: how many of the first pairs are none [*, 1, 1], of whole numbers up to ``seen``; None for 0.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> query, key, value = torch.randn(3, 2, 5, 4, dtype=torch.float64).requires_grad_()
        >>> torch.autograd.gradgradcheck(lambda *given: attention(*given, 0), (query, key, value))
        True
    """
    if transformed():
        return _plain(query, key, value, seen, empty)
    if empty is not None:
        if torch.is_grad_enabled() and (query.requires_grad or key.requires_grad or value.requires_grad):
            return _plain(query, key, value, seen, empty)
        return scaled_dot_product_attention(query, key, value, attn_mask=_visible(query, seen, empty))
    if seen:
        mask = _visible(query, seen) if query.shape[-2] > 1 else None  # a single token reads all
        y = scaled_dot_product_attention(query, key, value, attn_mask=mask)
    else:
        y = scaled_dot_product_attention(query, key, value, is_causal=True)
    # A compiler traces the kernel alone: its slopes have no slopes in any case.
    return y if torch.compiler.is_compiling() or not y.requires_grad else _Slopes.apply(query, key, value, y, seen)


class _Slopes(torch.autograd.Function):
    """Y as the kernel gave it: slopes go on to the kernel, those with slopes to the single operations past it."""

    apply: ClassVar[Callable[..., Tensor]]

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, y: Tensor, seen: int) -> Tensor:
        ctx.save_for_backward(query, key, value)  # as the kernel does: nothing is kept twice
        ctx.seen = seen
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        if not torch.is_grad_enabled():
            return None, None, None, slope, None

        def composed(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor]:
            return (_plain(query, key, value, ctx.seen).to(slope.dtype),)

        return *composed_slopes(composed, ctx.saved_tensors, ctx.needs_input_grad[:3], (slope,)), None, None


def _plain(query: Tensor, key: Tensor, value: Tensor, seen: int, empty: Tensor | None = None) -> Tensor:
    wide = torch.promote_types(query.dtype, torch.float32)
    with no_autocast(query):
        scores = query.to(wide) @ key.to(wide).mT * query.shape[-1] ** -0.5
        scores = scores.masked_fill(~_visible(query, seen, empty), float("-inf"))
        y: Tensor = scores.softmax(-1) @ value.to(wide)
    return y.to(value.dtype)


def _visible(query: Tensor, seen: int, empty: Tensor | None = None) -> Tensor:
    length = query.shape[-2]
    before = torch.ones(length, seen + length, dtype=torch.bool, device=query.device).tril(seen)
    return before if empty is None else before & (torch.arange(seen + length, device=query.device) >= empty)
