"""The kernel over a whole sequence: blocks of tokens, solved at once where they do not depend on the state (S6-S8).

The algebra of one block is in `nestlearn.ops.blocks`. What a block writes is affine in the state at its start, so for a
whole sequence the coefficients of that state are further columns of the one triangular system of each block; all blocks
are solved together, and a loop over blocks does one product of [in, in] by [in, out] each. Blocks with inner momentum
go one after the other.
"""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from nestlearn.ops.blocks import Decays, TokenRows, decays, delta_block, innovations, momentum_block, per_row, scores
from nestlearn.ops.scan import Read, runs

__all__ = ["BLOCK", "delta_kernel", "held_blocks", "momentum_blocks"]

BLOCK = 64
"""Rows that are solved together where the rule leaves the choice."""


def delta_kernel(
    rows: TokenRows, state: Tensor, *, block: int = BLOCK, read: Read = "after"
) -> tuple[Tensor, Tensor, Tensor]:
    """All tokens of `TokenRows` without momentum, in blocks that are solved together (S7, S8).

    Args:
        rows: with queries; leading dimensions *B. Where ``hold`` is 1 the blocks are the chunks whose start is held.
        state: S [*B, in, out], the transposed memory.
        block: tokens in a block.
        read: whether y_t is read after or before the write of token t.

    Returns:
        y [*B, T, out] ([*B, T, in] if transposed), S [*B, in, out] after the last token, and S at the start of the last
        block.
    """
    length, batch = rows.length, state.shape[:-2]
    count = len(runs(length, 0, block))
    if count == 1:
        y, after = delta_block(rows.corrected(state), state, read)
        return y, after, state  # type: ignore[return-value]
    if not rows.hold:  # even blocks need the least padding
        block = -(-length // count)
    cut = _cut(rows, count, block)
    decay, erase = decays(cut.alpha), cut.erase
    before = decay.before() if erase is not None or read == "before" else decay
    # What a block writes is affine in the state at its start: the coefficients are further columns of one system.
    written = cut.write
    forgotten = cut.eta if cut.hold else None
    if erase is not None:
        forgotten = erase * before.start if forgotten is None else erase * before.start + forgotten
    if forgotten is not None:
        written = torch.cat([written, -per_row(forgotten, cut.rows).unsqueeze(-1) * cut.key], -1)
    if erase is not None:
        written = innovations(cut.key, erase, before.within, written, cut.rows)
    starts, after = _recurrence(cut, decay, written, state.reshape(-1, *state.shape[-2:]))
    y = _answers(cut, decay if read == "after" else before, written, starts)
    y = y.flatten(1, 2)[:, :length].reshape(*batch, length, y.shape[-1])
    return y, after.reshape(state.shape), starts[:, -1].reshape(state.shape)


def _cut(rows: TokenRows, count: int, block: int) -> TokenRows:
    """[*B, T, ...] -> [G, N, block, ...]; the last block is filled with tokens that change nothing."""
    missing = count * block - rows.length

    def vectors(x: Tensor, each: int) -> Tensor:
        x = pad(x, (0, 0, 0, missing * each)) if missing else x
        return x.reshape(-1, count, block * each, x.shape[-1])

    def numbers(x: Tensor, neutral: float) -> Tensor:
        x = pad(x, (0, missing), value=neutral) if missing else x
        return x.reshape(-1, count, block)

    return replace(
        rows,
        key=vectors(rows.key, rows.rows),
        write=vectors(rows.write, rows.rows),
        query=vectors(rows.query, 1),  # type: ignore[arg-type]
        eta=numbers(rows.eta, 0.0),
        alpha=numbers(rows.alpha, 1.0),
    )


def _recurrence(cut: TokenRows, decay: Decays, written: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """S at the start of every block [G, N, in, out], and after the last one: S <- (g_C I + F) S + V."""
    out = state.shape[-1]
    left = per_row(decay.within[..., -1, :], cut.rows).unsqueeze(-1)
    added = (cut.key * left).mT @ written
    kept = decay.start[..., -1, None, None]
    starts = []
    if written.shape[-1] == out:
        for fresh, keep in zip(added.unbind(1), kept.unbind(1), strict=True):
            starts.append(state)
            state = torch.addcmul(fresh, keep, state)
    else:
        gains = added[..., out:] + kept * torch.eye(cut.key.shape[-1], dtype=kept.dtype, device=kept.device)
        for fresh, gain in zip(added[..., :out].unbind(1), gains.unbind(1), strict=True):
            starts.append(state)
            state = torch.baddbmm(fresh, gain, state)
    return torch.stack(starts, 1), state


def _answers(cut: TokenRows, seen: Decays, written: Tensor, starts: Tensor) -> Tensor:
    """y of all blocks [G, N, C, out] ([G, N, C, in] if transposed), given the state at the start of each."""
    query = cut.query
    assert query is not None, "tokens of a scan are asked"
    out, kept = starts.shape[-1], seen.start.unsqueeze(-1)
    if cut.transposed:
        if written.shape[-1] > out:
            written = written[..., :out] + written[..., out:] @ starts
        return (query * kept) @ starts.mT + scores(query, written, seen.within, cut.rows) @ cut.key
    told = scores(query, cut.key, seen.within, cut.rows) @ written
    query = query * kept if told.shape[-1] == out else query * kept + told[..., out:]
    return told[..., :out] + query @ starts


def held_blocks(
    rows: TokenRows, state: Tensor, held: Tensor, position: int, chunk: int, read: Read
) -> tuple[Tensor, Tensor, Tensor]:
    """y, S and the S held at the end: first what is left of a running chunk, then whole chunks from the state."""
    head = min(rows.length, -position % chunk)
    first, rest = rows.split([head, rows.length - head])
    answers = []
    if first.length:
        y, state = delta_block(first.corrected(held), state, read)
        answers.append(y)
    if rest.length:
        y, state, held = delta_kernel(rest, state, block=chunk, read=read)
        answers.append(y)
    return torch.cat(answers, -2), state, held  # type: ignore[arg-type]


def momentum_blocks(
    rows: TokenRows, state: Tensor, box: Tensor, held: Tensor | None, position: int, block: int, read: Read
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """y, S, V and the S held at the end, one block after the other."""
    answers = []
    into = position if rows.hold else 0
    for part in rows.split(runs(rows.length, into, block)):
        if part.hold and into == 0:
            held = state
        y, state, box = momentum_block(part if held is None else part.corrected(held), state, box, read)
        answers.append(y)
        into = 0
    return torch.cat(answers, -2), state, box, held  # type: ignore[arg-type]
