"""One period of an MLP memory under the local objective, with slopes written by hand (C1, C3).

While its parameters stand still, a memory M(k) = W_outer H, H = s(W_inner k) / sqrt(hidden), answers all tokens of a
period and collects what its next write needs, in products of matrices with a row for each token:

    E = eta (M(K) - V)      slope of W_outer = E^T H      slope of W_inner = D^T K,  D = E W_outer s'(W_inner K)
    curvature = sum eta ||h||^2

`nestlearn.memory` says the same in single operations. Written by hand, their slopes need fewer passes over memory.
A graph of the slopes themselves, for derivatives of higher order, is made from the single operations again.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import silu

from nestlearn.ops.second_order import composed_slopes
from nestlearn.ops.tracing import by_hand
from nestlearn.precision import no_autocast

__all__ = ["local_period"]

Composed = Callable[..., tuple[Tensor, ...]]


def local_period(
    inner: Tensor, outer: Tensor, keys: Tensor, value: Tensor, eta: Tensor, composed: Composed
) -> tuple[Tensor, ...]:
    """Answers [B, n, out], slopes of W_inner and of W_outer, and the curvature [B], for silu as s.

    Args:
        inner, outer: [B, hidden, in] and [B, out, hidden].
        keys: [B, 1 + n, in], first the one before the period: token i is asked its own key and shown the one before it.
        value: V [B, n, out], what the shown keys should be answered.
        eta: [B, n].
        composed: the same in operations that have slopes of every order.
    """
    if by_hand():
        return _LocalPeriod.apply(inner, outer, keys, value, eta, composed)
    return composed(inner, outer, keys, value, eta)


class _LocalPeriod(torch.autograd.Function):
    apply: ClassVar[Callable[..., tuple[Tensor, ...]]]

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, ...]:
        inner, outer, keys, value, eta, composed = arguments
        gain = inner.shape[-2] ** -0.5
        before = keys @ inner.mT
        hidden = silu(before).mul_(gain)
        answer = hidden @ outer.mT
        shown, rate = hidden[:, :-1], eta.unsqueeze(-1)
        missed = answer[:, :-1] - value
        error = missed * rate
        gate = torch.sigmoid(before[:, :-1])
        back = error @ outer
        slope = _slope(before[:, :-1], gate, gain)
        by_inner = (back * slope).mT @ keys[:, :-1]
        curvature = (shown.square().sum(-1) * eta).sum(-1)
        ctx.save_for_backward(inner, outer, keys, value, eta, before, hidden, missed, gate, back)
        ctx.composed = composed
        return answer[:, 1:], by_inner, error.mT @ shown, curvature

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # once: what is checkpointed is computed again each time
        with no_autocast(saved[0]):
            if torch.is_grad_enabled():
                return *composed_slopes(ctx.composed, saved[:5], ctx.needs_input_grad[:5], slopes), None
            return *_slopes(saved, *slopes), None


def _slopes(
    saved: tuple[Tensor, ...], d_answer: Tensor, d_inner: Tensor, d_outer: Tensor, d_curvature: Tensor
) -> tuple[Tensor, ...]:
    inner, outer, keys, _, eta, before, hidden, missed, gate, back = saved
    gain, rate, first = inner.shape[-2] ** -0.5, eta.unsqueeze(-1), keys[:, :-1]
    at, shown, error = before[:, :-1], hidden[:, :-1], missed * rate
    slope = _slope(at, gate, gain)
    # slope of W_inner = D^T K, D = E W_outer s'
    d_down = first @ d_inner.mT
    d_keys = torch.empty_like(keys)
    d_keys[:, -1] = 0
    torch.bmm(back * slope, d_inner, out=d_keys[:, :-1])
    d_before = torch.empty_like(before)
    torch.mul(d_down * back, _bend(at, gate, gain), out=d_before[:, :-1])
    d_before[:, -1] = 0
    d_back = d_down.mul_(slope)
    d_weight = error.mT @ d_back
    # slope of W_outer = E^T H
    d_error = torch.baddbmm(shown @ d_outer.mT, d_back, outer.mT)
    d_hidden = hidden.new_empty(hidden.shape)
    d_hidden[:, -1] = 0
    torch.add(error @ d_outer, shown * (2 * d_curvature.unsqueeze(-1) * eta).unsqueeze(-1), out=d_hidden[:, :-1])
    d_eta = (d_error * missed).sum(-1) + d_curvature.unsqueeze(-1) * shown.square().sum(-1)
    # E = eta (M(K) - V)
    d_missed = d_error.mul_(rate)
    d_asked = torch.cat([torch.zeros_like(d_answer[:, :1]), d_answer], 1)
    d_asked[:, :-1] += d_missed
    # M(k) = W_outer s(W_inner k)
    d_weight.baddbmm_(d_asked.mT, hidden)
    d_hidden.baddbmm_(d_asked, outer)
    d_before[:, :-1] += d_hidden[:, :-1] * slope
    last = before[:, -1]
    d_before[:, -1] += d_hidden[:, -1] * _slope(last, torch.sigmoid(last), gain)
    d_keys.baddbmm_(d_before, inner)
    return d_before.mT @ keys, d_weight, d_keys, d_missed.neg(), d_eta


def _slope(x: Tensor, gate: Tensor, gain: float) -> Tensor:
    """The derivative of gain silu, gate (1 + x (1 - gate)), in few passes."""
    return torch.addcmul(gate, x, torch.addcmul(gate, gate, gate, value=-1)).mul_(gain)


def _bend(x: Tensor, gate: Tensor, gain: float) -> Tensor:
    """The second derivative, gate (1 - gate) (2 + x (1 - 2 gate))."""
    narrow = torch.addcmul(gate, gate, gate, value=-1)
    return torch.addcmul(x + 2, x, gate, value=-2).mul_(narrow).mul_(gain)
