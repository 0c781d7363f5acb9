"""One block of the gated delta rule with slopes written by hand (S7, S8).

What `nestlearn.ops.blocks` says in single operations is said here at once, in fewer passes over memory.
With the strictly triangular X_ts = b_t A_{t-1,s} <k_t, k_s>,

    U = (I + X)^-1 (W - h K S_0),   h_t = b_t g_{t-1}        S_C = g_C S_0 + (A_C K)^T U        y = g S_0^T q + P U

and the inverse, once known, gives the slopes by one product: dR = (I + X)^-T dU, dX = -dR U^T.

A graph of the slopes themselves, for derivatives of higher order, is made from the single operations again.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from nestlearn.ops.second_order import composed_slopes
from nestlearn.precision import no_autocast

__all__ = ["between", "delta_rule", "fading", "from_end", "in_dtype", "log_decay"]

Composed = Callable[..., tuple[Tensor | None, Tensor]]

Saved = tuple[Any, ...]
"""Tensors of the forward pass, and None where there is none."""


def delta_rule(
    key: Tensor,
    write: Tensor,
    query: Tensor | None,
    erase: Tensor,
    alpha: Tensor,
    state: Tensor,
    columns: tuple[int, int],
    before: bool,
    composed: Composed,
) -> tuple[Tensor | None, Tensor]:
    """y [*, C, columns] (None without queries) and S [*, in, out] after a block of tokens.

    Args:
        key: K [*, C, in], all leading dimensions alike.
        write: W [*, C, out].
        query: [*, C, in] or None.
        erase, alpha: b and a [*, C].
        state: S_0 [*, in, out].
        columns: first and last of what is answered.
        before: whether a token is answered before its write.
        composed: the same in operations that have slopes of every order, for all arguments up to ``state``.
    """
    flat = [None if x is None else x.reshape(-1, *x.shape[-2:]) for x in (key, write, query)]
    numbers = [x.reshape(-1, x.shape[-1]) for x in (erase, alpha)]
    start = state.reshape(-1, *state.shape[-2:])
    y, after = _DeltaRule.apply(*flat, *numbers, start, columns, before, composed)
    lead = state.shape[:-2]
    return None if query is None else y.reshape(*lead, *y.shape[-2:]), after.reshape(state.shape)


class _DeltaRule(torch.autograd.Function):
    """With one leading dimension; y is empty without queries."""

    apply: ClassVar[Callable[..., tuple[Tensor, Tensor]]]

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
        key, write, query, erase, alpha, state, columns, before, composed = arguments
        floored, total = log_decay(alpha)
        earlier = pad(total[:, :-1], (1, 0))
        across, kept = fading(earlier, total, -1, key.dtype), earlier.exp().to(key.dtype)
        end = (total[:, -1:] - total).exp().to(key.dtype)
        left = total[:, -1:].exp().to(key.dtype)
        # U = (I + X)^-1 (W - h K S_0)
        alike = (key @ key.mT).mul_(across)
        one = torch.eye(key.shape[-2], dtype=key.dtype, device=key.device).expand_as(alike)
        inverse = torch.linalg.solve_triangular(alike * erase.unsqueeze(-1), one, upper=False, unitriangular=True)
        told = key @ state
        written = inverse @ torch.addcmul(write, (erase * kept).unsqueeze(-1), told, value=-1)
        # S_C = g_C S_0 + (A_C K)^T U
        after = torch.baddbmm(state * left.unsqueeze(-1), _scaled(key, end).mT, written)
        # y = g S_0^T q + P U
        part = slice(*columns)
        reading: tuple[Tensor | None, ...] = (None, None, None)
        y = key.new_empty(0)
        if query is not None:
            seen, seen_kept = across, kept
            if not before:
                seen, seen_kept = fading(total, total, 0, key.dtype), total.exp().to(key.dtype)
            reads = (query @ key.mT).mul_(seen)
            y = _scaled(query @ state[..., part], seen_kept).baddbmm_(reads, written[..., part])
            reading = reads, seen, seen_kept
        known = floored, across, kept, end, left, alike, inverse, told, written
        ctx.save_for_backward(*arguments[:6], *known, *reading)
        ctx.columns, ctx.before, ctx.composed = columns, before, composed
        return y, after

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # once: what is checkpointed is computed again each time
        with no_autocast(saved[0]):
            if torch.is_grad_enabled():
                found = composed_slopes(ctx.composed, saved[:6], ctx.needs_input_grad[:6], slopes)
            else:
                found = _slopes(saved, ctx.columns, ctx.before, *slopes)
        return *found, None, None, None


def _slopes(
    saved: Saved, columns: tuple[int, int], reads_before: bool, d_y: Tensor, d_after: Tensor
) -> tuple[Tensor | None, ...]:
    """The slopes of all six inputs."""
    key, _, query, erase, _, state = saved[:6]
    floored, across, kept, end, left, alike, inverse, told, written = saved[6:15]
    # S_C = g_C S_0 + (A_C K)^T U
    d_state = d_after * left.unsqueeze(-1)
    d_written = _scaled(key, end) @ d_after
    d_key = _scaled(written @ d_after.mT, end)
    # The share of each decay: (slope of g_t) g_t, (slope of A_ts) A_ts. Those of the block's end come first.
    by_alpha = (d_state * state).sum((-2, -1)).unsqueeze(-1) + pad((d_key * key).sum(-1).cumsum(-1)[:, :-1], (1, 0))
    read = None if query is None else _slopes_of_reading(saved, columns, d_y, d_key, d_state, d_written)
    if read is not None and not reads_before:
        by_alpha = by_alpha + between(read[1], 1) + from_end(read[2])
    # U = (I + X)^-1 (W - h K S_0)
    d_write = inverse.mT @ d_written
    d_cross = (d_write @ written.mT).neg_()
    by_erase = d_cross * alike
    forgotten = (d_write * told).sum(-1).neg_()
    d_erase = torch.addcmul(by_erase.sum(-1), forgotten, kept)
    by_erase.mul_(erase.unsqueeze(-1))
    d_cross.mul_(across).mul_(erase.unsqueeze(-1))
    d_key.baddbmm_(d_cross + d_cross.mT, key)
    strength = erase * kept
    d_told = _scaled(d_write, strength.neg())
    d_key.baddbmm_(d_told, state.mT)
    d_state.baddbmm_(key.mT, d_told)
    forgotten = forgotten * strength
    if read is not None and reads_before:
        by_erase, forgotten = by_erase.add_(read[1]), forgotten + read[2]
    by_alpha = by_alpha + between(by_erase, 2) + pad(from_end(forgotten)[:, 1:], (0, 1))
    return d_key, d_write, None if read is None else read[0], d_erase, by_alpha / floored, d_state


def _slopes_of_reading(
    saved: Saved, columns: tuple[int, int], d_y: Tensor, d_key: Tensor, d_state: Tensor, d_written: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Of y = g S_0^T q + P U: dq and the shares of the decays, A's and g's; the others are added to."""
    key, query, state, written = (saved[place] for place in (0, 2, 5, 14))
    reads, seen, kept = saved[15:]
    part = slice(*columns)
    d_written[..., part] += reads.mT @ d_y
    d_reads = d_y @ written[..., part].mT
    pairs = d_reads * reads
    d_reads.mul_(seen)
    faded = _scaled(d_y, kept)
    d_query = faded @ state[..., part].mT
    starts = (d_query * query).sum(-1)
    d_query.baddbmm_(d_reads, key)
    d_key.baddbmm_(d_reads.mT, query)
    d_state[..., part] += query.mT @ faded
    return d_query, pairs, starts


def log_decay(decay: Tensor) -> tuple[Tensor, Tensor]:
    """a [*, C] above its floor, and log g, the sums of log a up to each token, in float64.

    The floor is 1e-30 (1e-200 for float64), below which exp(log a) is zero for all that can be seen.
    """
    floored = decay.clamp(min=1e-200 if decay.dtype == torch.float64 else 1e-30)
    return floored, floored.double().log().cumsum(-1)


def fading(later: Tensor, earlier: Tensor, diagonal: int, dtype: torch.dtype) -> Tensor:
    """exp(later_t - earlier_s) [*, C, C] up to a diagonal, and zero above it."""
    gaps = in_dtype(later.unsqueeze(-1) - earlier.unsqueeze(-2), dtype)
    # What is made in place has lost its slope in a function that torch 2.11 compiles.
    return gaps.exp().tril(diagonal) if torch.compiler.is_compiling() else gaps.exp_().tril_(diagonal)


def in_dtype(numbers: Tensor, dtype: torch.dtype) -> Tensor:
    """The same, and where nothing is to be done no second name for it: that too has lost its slope in torch 2.11."""
    return numbers if numbers.dtype == dtype else numbers.to(dtype)


def between(pairs: Tensor, gap: int) -> Tensor:
    """sum_{s < r, t >= r + gap - 1} pairs_ts for every token r [*, C]: what the decay of r has a share in.

    Only the pairs of tokens on either side of r are added: automatic differentiation of the cumulative sum would
    subtract all others from themselves, and divide the rounding error by a_r.
    """
    if pairs.shape[-1] <= gap:
        return pairs.new_zeros(pairs.shape[:-1])
    return pad(pairs.cumsum(-1)[..., gap:, :-gap].tril().sum(-2), (1, gap - 1))


def from_end(numbers: Tensor) -> Tensor:
    """The sum of this number and all later ones."""
    return numbers.flip(-1).cumsum(-1).flip(-1)


def _scaled(rows: Tensor, numbers: Tensor) -> Tensor:
    return rows * numbers.unsqueeze(-1)
