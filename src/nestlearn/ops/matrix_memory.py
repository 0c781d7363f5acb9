"""Matrix memories in parallel over chunks: every rule of S2, S7 and S8 on one kernel.

The kernel is M_t = a_t M_{t-1} + sum_i u_i k_i^T with u_i = w_i - b_t M_{t-1} k_i - h_t M_C k_i: row i *writes* w_i,
*erases* what the running memory answers to its key, and corrects by what the memory *held* at the chunk's start, M_C
(S6). Each rule of the core is a choice of the three, with e = eta and a = alpha:

==========================  ==============  =========  ============  ==============
rule                        objective       write w    erase b       held h
==========================  ==============  =========  ============  ==============
gradient descent            dot product     e v        0             0
gradient descent            l2, chunk 1     e v        e             0
gradient descent            l2, chunk C     e v        0             e
delta gradient descent      dot product     e v        e             0
delta gradient descent      l2, chunk 1     e v        2 e           0
delta gradient descent      l2, chunk C     e v        e             e
gradient descent            oja             l2 of the transposed memory, keys and values in each other's place
==========================  ==============  =========  ============  ==============

The first row is linear attention with a gate, the second the gated delta rule. A window (Omega) gives a token as many
rows as it sees tokens. All of them may have inner momentum. Delta gradient descent with oja forgets on one side of the
matrix and learns on the other: it has no such form and runs in `nestlearn.ops.scan` alone.

Without h blocks of any length give the same numbers; with h a block is a chunk. A block is an affine map of the state
at its start, so all blocks are solved at once and a loop over them does one product of [in, in] by [in, out] each; with
momentum the whole block is in the loop. Work per token is O(C (in + out) + in (in + out)), memory is linear in T.
Values of memories that share k, eta and alpha lie side by side in one tall matrix and share one triangular solve (S10).
"""

from dataclasses import replace

import torch
from torch import Tensor

from nestlearn.memory.associative import AssociativeMemory
from nestlearn.memory.inner_momentum import InnerMomentum
from nestlearn.memory.models import Matrix, Parameters
from nestlearn.memory.objectives import L2, DotProduct, Oja
from nestlearn.memory.rules import DeltaGradientDescent, GradientDescent, Scalar
from nestlearn.memory.state import State
from nestlearn.ops.blocks import TokenRows, delta_block, momentum_block, per_row, windows
from nestlearn.ops.fused import fused_delta_rule, is_fused
from nestlearn.ops.kernel import BLOCK, delta_kernel, held_blocks, momentum_blocks
from nestlearn.ops.scan import Read, Sequence, finish, inner_rule, prepare
from nestlearn.precision import no_autocast

__all__ = ["has_matrix_form", "matrix_scan", "matrix_step"]


def has_matrix_form(memory: AssociativeMemory) -> bool:
    """Whether `matrix_scan` knows this memory: a `Matrix` under one of the rules in the table above."""
    rule, objective = inner_rule(memory), memory.objective
    known = type(rule) in (GradientDescent, DeltaGradientDescent) and type(objective) in (DotProduct, L2, Oja)
    two_sided = isinstance(rule, DeltaGradientDescent) and isinstance(objective, Oja)
    return type(memory.model) is Matrix and known and not two_sided


def matrix_scan(
    memory: AssociativeMemory,
    key: Tensor,
    value: Tensor,
    query: Tensor,
    eta: Scalar,
    alpha: Scalar = 1.0,
    state: State | None = None,
    *,
    chunk: int = 1,
    window: int = 1,
    momentum: Scalar | None = None,
    read: Read = "after",
    block: int = BLOCK,
) -> tuple[Tensor, State]:
    """`nestlearn.ops.scan` for a `Matrix` memory, in parallel over chunks; same arguments, outputs, state, gradients.

    Args:
        memory, key, value, query, eta, alpha, state, chunk, window, momentum, read: as in `nestlearn.ops.scan`.
        block: rows that are solved together where ``chunk`` does not say it; it changes the speed, not the numbers.

    Raises:
        ValueError: for a memory without such a form (see `has_matrix_form`), or arguments that do not fit.
    """
    if not has_matrix_form(memory):
        raise ValueError(
            "matrix_scan: expected a Matrix with gradient descent under dot_product, l2 or oja, or with delta gradient "
            f"descent under dot_product or l2, got {memory}; nestlearn.ops.scan runs any memory"
        )
    if block < 1:
        raise ValueError(f"block: expected at least 1 row, got {block}")
    tokens, state = prepare(memory, key, value, query, eta, alpha, state, chunk, window, momentum, read)
    if tokens.length == 0:
        return torch.zeros_like(value), finish(tokens, state, state, state.get("frozen"))
    with no_autocast(key):
        rows = _rows(memory, tokens, *tokens.windows(state))
        start, box = _load(memory, state)
        held = _turn(memory, state["frozen"]["weight"]) if tokens.chunk > 1 else None
        length = tokens.chunk if rows.hold else max(1, block // window)
        if box is not None:
            y, start, box, held = momentum_blocks(rows, start, box, held, tokens.position, length, read)
        elif held is not None:
            y, start, held = held_blocks(rows, start, held, tokens.position, length, read)
        elif read == "after" and _suits_fused(memory, rows) and is_fused(key):
            y, start = _fused(rows, tokens.value, start, key.dtype)
        else:
            y, start, _ = delta_kernel(rows, start, block=length, read=read)
        if memory.model.residual:  # type: ignore[attr-defined]
            y = y + tokens.query
    frozen = None if held is None else {"weight": _turn(memory, held)}
    return y.to(value.dtype), finish(tokens, state, _store(memory, start, box), frozen)


def matrix_step(
    memory: AssociativeMemory,
    state: State,
    key: Tensor,
    value: Tensor,
    query: Tensor | None,
    eta: Tensor,
    alpha: Tensor,
    *,
    frozen: Parameters | None = None,
    momentum: Tensor | None = None,
    read: Read = "after",
    answers: slice = slice(None),
) -> tuple[Tensor | None, State]:
    """Some tokens of one chunk, all gradients taken at ``frozen`` (S6): for layers that make keys from the state.

    Nothing is checked or converted, and the tokens are solved as one block.

    Args:
        memory: a memory for which `has_matrix_form` holds.
        state: ``{"model": {"weight": [*B, out, in]}, "rule": ...}`` before the first of the tokens.
        key: [*B, C, in], C at least 1.
        value: [*B, C, out]; values of several memories may lie side by side (S10).
        query: [*B, C, in], or None to write only.
        eta, alpha: [*B, C].
        frozen: parameters at the chunk's start, if these tokens do not start it.
        momentum: theta [*B, C], for `InnerMomentum`.
        read: "after" or "before" the write of each token.
        answers: which of the out answers are wanted; not for oja.

    Returns:
        y [*B, C, answers] (None without queries) and the state after the last token.
    """
    # One more token than there are: the tokens are part of a chunk, however few.
    tokens = Sequence(key, value, key if query is None else query, eta, alpha, momentum, key.shape[-2] + 1, 1, 0)
    with no_autocast(key):
        rows = replace(_rows(memory, tokens, key, value), answers=answers)
        rows = rows if query is not None else replace(rows, query=None)
        start, box = _load(memory, state)
        rows = rows.corrected(start if frozen is None else _turn(memory, frozen["weight"]))
        if box is None:
            y, start = delta_block(rows, start, read)
        else:
            y, start, box = momentum_block(rows, start, box, read)
        if memory.model.residual and y is not None and query is not None:  # type: ignore[attr-defined]
            y = y + query[..., answers]
    return y, _store(memory, start, box)


def _rows(memory: AssociativeMemory, tokens: Sequence, key: Tensor, value: Tensor) -> TokenRows:
    """The kernel's rows from keys and values with those of earlier calls in front [*B, window - 1 + T, d]."""
    rule, window, eta = inner_rule(memory), tokens.window, tokens.eta
    regresses, transposed = not isinstance(memory.objective, DotProduct), isinstance(memory.objective, Oja)
    if transposed:
        key, value = value, key
    if regresses and memory.model.residual:  # type: ignore[attr-defined]
        value = value - key  # what the key itself does not answer
    key, value = windows(key, window), windows(value, window)
    if getattr(rule, "implicit", False):
        eta = eta / (1 + eta * key.unflatten(-2, (-1, window)).square().sum((-2, -1)))
    return TokenRows(
        key,
        per_row(eta, window).unsqueeze(-1) * value,
        tokens.query,
        eta,
        tokens.alpha,
        tokens.momentum,
        window,
        forget=int(isinstance(rule, DeltaGradientDescent)),
        regress=int(regresses and tokens.chunk == 1),
        hold=int(regresses and tokens.chunk > 1),
        transposed=transposed,
    )


def _turn(memory: AssociativeMemory, weight: Tensor) -> Tensor:
    """Weight [*B, out, in] to the kernel's state or back; oja's kernel is that of the transposed memory already."""
    return weight if isinstance(memory.objective, Oja) else weight.mT


def _load(memory: AssociativeMemory, state: State) -> tuple[Tensor, Tensor | None]:
    """S and V; the core's box sums gradients, which point uphill."""
    box = None
    if isinstance(memory.rule, InnerMomentum):
        box = -_turn(memory, state["rule"]["weight"]["model"]["value"])
    return _turn(memory, state["model"]["weight"]), box


def _store(memory: AssociativeMemory, state: Tensor, box: Tensor | None) -> State:
    """The core's state from S and V."""
    rule = {} if box is None else {"weight": {"model": {"value": -_turn(memory, box)}, "rule": {}}}
    return {"model": {"weight": _turn(memory, state)}, "rule": rule}


def _suits_fused(memory: AssociativeMemory, rows: TokenRows) -> bool:
    plain = rows.rows == 1 and not rows.transposed and not memory.model.residual  # type: ignore[attr-defined]
    return plain and rows.erase is not None


def _fused(rows: TokenRows, value: Tensor, state: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """All tokens through the kernel of fla-core, which has one leading dimension and half precision."""
    asked: Tensor = rows.query  # type: ignore[assignment]
    key, value, query = (x.reshape(-1, *x.shape[-2:]).to(dtype) for x in (rows.key, value, asked))
    eta, alpha = (x.reshape(-1, x.shape[-1]) for x in (rows.eta, rows.alpha))
    start = state.reshape(-1, *state.shape[-2:])
    y, after = fused_delta_rule(key, value, query, eta, alpha, start, rows.forget + rows.regress)
    return y.reshape(*state.shape[:-2], rows.length, -1), after.reshape(state.shape)
