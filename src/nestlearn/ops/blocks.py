"""One block of the gated delta rule, solved at once: the algebra under `matrix_memory` and `mlp_memory`.

Written for the transposed memory S = M^T [in, out], so that rows are tokens everywhere. Within a block of C tokens

    S_t = a_t S_{t-1} + sum over rows i of token t:  k_i u_i^T,      u_i = w_i - b_t S_{t-1}^T k_i           (S7, S8)

w_i is what a row writes, b_t how strongly it erases what the memory answers to its key. A token has one row, or as many
as its window has tokens (S2). With the decays A_ts = a_{s+1} ... a_t (s <= t) and g_t = a_1 ... a_t, from log-space
sums, unrolling S_{t-1} gives one unit lower triangular system for all u of the block, the WY form of a product of
Householder-like factors (Bischof and Van Loan 1987; Yang et al., arXiv 2406.06484, with decay arXiv 2412.06464):

    (I + tril(b_t A_{t-1,s} <k_t, k_s>, -1)) U = W - b_t g_{t-1} K S_0
    y_t = g_t S_0^T q_t + sum_{s <= t} A_ts <k_s, q_t> u_s            S_C = g_C S_0 + sum_s A_Cs k_s u_s^T

**Inner momentum** ([T] 9-10) puts a box V between the writes and the memory: V_t = theta_t V_{t-1} + sum k_i w_i^T and
S_t = a_t S_{t-1} - b_t (forgotten) + V_t. What is written then reaches the memory through D = A Theta, a product of two
triangular matrices of decays, in the place of A, and d = A g_theta carries the box of the block's start.

Shapes: any leading dimensions ``*``; C tokens and R = C * rows rows, row i belonging to token i // rows.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from nestlearn.ops.delta_rule import between, delta_rule, fading, from_end, in_dtype, log_decay
from nestlearn.ops.scan import Read
from nestlearn.ops.tracing import by_hand, transformed

__all__ = [
    "Decays",
    "TokenRows",
    "decays",
    "delta_block",
    "innovations",
    "momentum_block",
    "per_row",
    "scores",
    "windows",
]


@dataclass(frozen=True)
class TokenRows:
    """What the tokens of a block, or of a whole sequence, write and ask.

    Args:
        key: K [*, R, in].
        write: W [*, R, out], with the learning rate in it.
        query: [*, C, in]; [*, C, out] for a memory that is read transposed; None to write only.
        eta, alpha: [*, C].
        momentum: theta [*, C] or None.
        rows: of each token.
        forget: 1 if every write erases eta times what the running memory answers to its key, at once.
        regress: 1 if what is written holds -eta times that answer, so that it goes through the box if there is one.
        hold: 1 if what is written holds -eta times the answer of the memory at the chunk's start.
        transposed: y = S q instead of S^T q.
        answers: which of the out columns y has; all of them if transposed.
    """

    key: Tensor
    write: Tensor
    query: Tensor | None
    eta: Tensor
    alpha: Tensor
    momentum: Tensor | None = None
    rows: int = 1
    forget: int = 0
    regress: int = 0
    hold: int = 0
    transposed: bool = False
    answers: slice = field(default_factory=lambda: slice(None))

    @property
    def length(self) -> int:
        return self.alpha.shape[-1]

    @property
    def erase(self) -> Tensor | None:
        """b [*, C] where there is no box; None for zero."""
        strength = self.forget + self.regress
        return strength * self.eta if strength > 1 else self.eta if strength else None

    def split(self, sizes: list[int]) -> list["TokenRows"]:
        """Runs of so many tokens; one split a tensor, whose slope is one concatenation, however many runs there are."""

        def vectors(x: Tensor | None, each: int) -> list[Any]:
            return [None] * len(sizes) if x is None else list(x.split([each * size for size in sizes], -2))

        def numbers(x: Tensor | None) -> list[Any]:
            return [None] * len(sizes) if x is None else list(x.split(sizes, -1))

        parts = zip(
            vectors(self.key, self.rows),
            vectors(self.write, self.rows),
            vectors(self.query, 1),
            numbers(self.eta),
            numbers(self.alpha),
            numbers(self.momentum),
            strict=True,
        )
        return [
            replace(self, key=key, write=write, query=query, eta=eta, alpha=alpha, momentum=momentum)
            for key, write, query, eta, alpha, momentum in parts
        ]

    def corrected(self, held: Tensor) -> "TokenRows":
        """With what the memory at the chunk's start, ``held`` [*, in, out], answers taken off what is written."""
        if not self.hold:
            return self
        answer = per_row(self.eta, self.rows).unsqueeze(-1) * (self.key @ held)
        return replace(self, write=self.write - answer, hold=0)


@dataclass(frozen=True)
class Decays:
    """What is left of a write after some tokens of a block.

    Args:
        within: A [*, C, C], from after token s (column) to after token t (row); zero above the diagonal.
        start: g [*, C], from the block's start to after token t.
        first: what is there at the block's start.
    """

    within: Tensor
    start: Tensor
    first: float = 1.0

    def before(self) -> "Decays":
        """The same up to just before token t: A_{t-1,s}, strictly lower triangular, and g_{t-1}."""
        within = pad(self.within[..., :-1, :], (0, 0, 1, 0))
        return Decays(within, pad(self.start[..., :-1], (1, 0), value=self.first))


def decays(decay: Tensor) -> Decays:
    """From a [*, C] of each token, a >= 0; sums of logarithms, so that no product under- or overflows on its way."""
    return Decays(*(_plain_decays(decay) if transformed() else _Decay.apply(decay)))


class _Decay(torch.autograd.Function):
    """(A, g) from a, exact also where a token forgets everything; second derivatives are those of the plain formula."""

    apply: ClassVar[Callable[[Tensor], tuple[Tensor, Tensor]]]

    @staticmethod
    def forward(ctx: Any, decay: Tensor) -> tuple[Tensor, Tensor]:
        floored, total = log_decay(decay)
        within, start = fading(total, total, 0, decay.dtype), in_dtype(total.exp(), decay.dtype)
        ctx.save_for_backward(decay, floored, within, start)
        return within, start

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Tensor:
        decay, floored, within, start = ctx.saved_tensors
        slope: Tensor
        if torch.is_grad_enabled():
            (slope,) = torch.autograd.grad(_plain_decays(decay), decay, slopes, create_graph=True)
        else:
            slope = (from_end(slopes[1] * start) + between(slopes[0] * within, 1)) / floored
        return slope


def _plain_decays(decay: Tensor) -> tuple[Tensor, Tensor]:
    total = log_decay(decay)[1]
    above = torch.ones(decay.shape[-1], decay.shape[-1], dtype=torch.bool, device=decay.device).triu(1)
    within = (total.unsqueeze(-1) - total.unsqueeze(-2)).masked_fill(above, float("-inf")).exp()
    return within.to(decay.dtype), total.exp().to(decay.dtype)


def per_row(number: Tensor, rows: int, dim: int = -1) -> Tensor:
    """Repeat what belongs to a token for each of its rows."""
    return number if rows == 1 else number.repeat_interleave(rows, dim)


def windows(tokens: Tensor, window: int) -> Tensor:
    """[*, window - 1 + C, d] -> [*, C * window, d]: the rows of each token are the last ``window`` tokens."""
    if window == 1:
        return tokens
    if transformed():  # which have no rule for the slope of a view of windows
        place = torch.arange(tokens.shape[-2], device=tokens.device).unfold(0, window, 1).flatten()
        return tokens.index_select(-2, place)
    return tokens.unfold(-2, window, 1).mT.flatten(-3, -2)


def innovations(key: Tensor, erase: Tensor, before: Tensor, right: Tensor, rows: int) -> Tensor:
    """U [*, R, c], the solution of (I + erase * before * K K^T) U = right: one triangular solve.

    Args:
        key: K [*, R, in].
        erase: b [*, C].
        before: [*, C, C], strictly lower triangular.
        right: [*, R, c].
        rows: of a token.
    """
    if before.shape[-1] == 1:  # one token: its rows do not see each other
        return right
    overlap = (key * per_row(erase, rows).unsqueeze(-1)) @ key.mT
    strict = per_row(per_row(before, rows), rows, -2)
    solved: Tensor = torch.linalg.solve_triangular(overlap * strict, right, upper=False, unitriangular=True)
    return solved


def scores(query: Tensor, key: Tensor, within: Tensor, rows: int = 1) -> Tensor:
    """A_ts <k_s, q_t> [*, C, R]: how much token t reads of row s."""
    return (query @ key.mT) * per_row(within, rows)


def delta_block(block: TokenRows, state: Tensor, read: Read = "after") -> tuple[Tensor | None, Tensor]:
    """One block without momentum from a known state (S7, S8).

    Args:
        block: at least one token, already corrected by what is held.
        state: S [*, in, out] at the block's start.
        read: whether y_t is read after or before the write of token t.

    Returns:
        y [*, C, out] (or [*, C, in] if transposed, None without queries) and S [*, in, out] at the block's end.
    """
    if _has_own_slopes(block, state):
        columns = block.answers.indices(state.shape[-1])[:2]
        erase = block.erase
        assert erase is not None, "what has slopes of its own erases"
        composed = partial(_plain_block, columns=columns, read=read)
        before = read == "before"
        return delta_rule(block.key, block.write, block.query, erase, block.alpha, state, columns, before, composed)
    return _delta_block(block, state, read)


def _has_own_slopes(block: TokenRows, state: Tensor) -> bool:
    """Whether it is the plain gated delta rule, run eagerly; a compiler fuses single operations itself."""
    plain = block.erase is not None and block.rows == 1 and not block.transposed
    alike = block.key.shape[:-2] == block.alpha.shape[:-1] == state.shape[:-2]
    return plain and alike and block.length > 1 and by_hand()


def _plain_block(
    key: Tensor,
    write: Tensor,
    query: Tensor | None,
    erase: Tensor,
    alpha: Tensor,
    state: Tensor,
    columns: tuple[int, int],
    read: Read,
) -> tuple[Tensor | None, Tensor]:
    """Tensors with one leading dimension through the single operations."""
    rows = TokenRows(key, write, query, erase, alpha, forget=1, answers=slice(*columns))
    return _delta_block(rows, state, read)


def _delta_block(block: TokenRows, state: Tensor, read: Read) -> tuple[Tensor | None, Tensor]:
    decay, erase, written = decays(block.alpha), block.erase, block.write
    before = decay.before() if erase is not None or read == "before" else decay
    if erase is not None:
        forgotten = per_row(erase * before.start, block.rows).unsqueeze(-1) * (block.key @ state)
        written = innovations(block.key, erase, before.within, written - forgotten, block.rows)
    after = _kept(decay, state) + _added(decay, block, written)
    return _read(block, decay if read == "after" else before, state, written), after


def momentum_block(
    block: TokenRows, state: Tensor, box: Tensor, read: Read = "after"
) -> tuple[Tensor | None, Tensor, Tensor]:
    """One block with inner momentum from a known state.

    Args:
        block: at least one token, with ``momentum``, already corrected by what is held.
        state: S [*, in, out] at the block's start.
        box: V [*, in, out], which points downhill, as what is written does.
        read: as in `delta_block`.

    Returns:
        y, S and V at the block's end.
    """
    assert block.momentum is not None, "a box has a momentum"
    decay, fading = decays(block.alpha), decays(block.momentum)
    through = Decays(decay.within @ fading.within, (decay.within @ fading.start.unsqueeze(-1)).squeeze(-1), first=0.0)
    before, through_before = decay.before(), through.before()
    rows, written, erased = block.rows, block.write, None
    if block.erase is not None:
        # What the running memory answers to each key, times eta: it depends on what earlier rows wrote and erased.
        answer = per_row(before.start, rows).unsqueeze(-1) * (block.key @ state)
        answer = answer + per_row(through_before.start, rows).unsqueeze(-1) * (block.key @ box)
        answer = answer + scores(block.key, block.key, per_row(through_before.within, rows, -2), rows) @ written
        strict = block.forget * before.within + block.regress * through_before.within
        erased = innovations(block.key, block.eta, strict, per_row(block.eta, rows).unsqueeze(-1) * answer, rows)
        written = written - erased if block.regress else written
    at_once = -erased if block.forget and erased is not None else None
    y = _read(block, through if read == "after" else through_before, box, written)
    old = _read(block, decay if read == "after" else before, state, at_once)
    after = _kept(decay, state) + _kept(through, box) + _added(through, block, written)
    if at_once is not None:
        after = after + _added(decay, block, at_once)
    return None if y is None or old is None else y + old, after, _kept(fading, box) + _added(fading, block, written)


def _kept(decay: Decays, state: Tensor) -> Tensor:
    """What the block's end has of a state at its start."""
    return decay.start[..., -1, None, None] * state


def _added(decay: Decays, block: TokenRows, written: Tensor) -> Tensor:
    """What the block's end has of what its rows wrote."""
    return (block.key * per_row(decay.within[..., -1, :], block.rows).unsqueeze(-1)).mT @ written


def _read(block: TokenRows, seen: Decays, state: Tensor, written: Tensor | None) -> Tensor | None:
    """What each token reads of a state at the block's start and of what the rows have added (None: nothing)."""
    if block.query is None:
        return None
    state = state.mT if block.transposed else state[..., block.answers]
    old = (block.query @ state) * seen.start.unsqueeze(-1)
    if written is None:
        return old
    if block.transposed:
        return old + scores(block.query, written, seen.within, block.rows) @ block.key
    return old + scores(block.query, block.key, seen.within, block.rows) @ written[..., block.answers]
