"""Learning from the next token where sequences of a batch have unequal lengths, or stand at other places of a chunk.

Every sequence has a chunk of its own, so the text is taken in steps of which each brings all sequences to the end of
their chunk, or of their text: those whose chunk is complete and answered are read once more and written together, then
all go on. What is read and written, and when, is what `nestlearn.models.next_token` does for each alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nestlearn.layers.unequal import seen
from nestlearn.memory.state import State, mapped, select_state
from nestlearn.models.next_token import Learning, Parted, read_chunk, written

__all__ = ["advance_and_learn_apart", "places"]


def places(learning: Learning, state: State, batch: int) -> list[int]:
    """How many tokens of its running chunk each sequence has read.

    Raises:
        ValueError: the state holds fewer or more than that.
    """
    name = next(iter(learning))
    period = min(learning[name].periods)
    now, begun = (seen(parts[name], batch) for parts in (state["parts"], state["replay"]["parts"]))
    found = [after - before for after, before in zip(now, begun, strict=True)]
    most = min(period, state["replay"]["tokens"].shape[1])
    if any(not 0 <= count <= most for count in found):
        raise ValueError(
            f"state.replay: expected up to {most} tokens of the running chunks, by its times it has {found}"
        )
    return found


def advance_and_learn_apart(
    model: Parted, learning: Learning, tokens: Tensor, state: State, lengths: Sequence[int]
) -> tuple[Tensor, State]:
    """Logits [batch, time, vocab_size], zero where nothing was read, and the state after the last token of each.

    Args:
        model, learning: as in `nestlearn.models.next_token.advance_and_learn`.
        tokens: [batch, time], of each sequence the first ``lengths`` count.
        state: fitted.
        lengths: [batch].
    """
    (batch, total), device = tokens.shape, tokens.device
    period = min(next(iter(learning.values())).periods)
    parts, begun = state["parts"], state["replay"]["parts"]
    held, at = places(learning, state, batch), [0] * batch
    # One column more than is needed, for what is read by nobody.
    chunk = tokens.new_zeros(batch, period + 1)
    chunk[:, : state["replay"]["tokens"].shape[1]] = state["replay"]["tokens"]
    logits: Tensor | None = None
    while any(place < length for place, length in zip(at, lengths, strict=True)):
        if due := [b for b in range(batch) if held[b] == period and at[b] < lengths[b]]:
            index = torch.tensor(due, device=device)
            answers = tokens[index, torch.tensor([at[b] for b in due], device=device)]
            answered = torch.cat([chunk[index, :period], answers.unsqueeze(1)], 1)
            again = _selected(model, begun, index)
            _, _, slopes = read_chunk(model, learning, answered, mapped(Tensor.detach, again))
            now = written(learning, _selected(model, parts, index), slopes)
            parts = _replaced(model, parts, now, index, batch)
            begun = _replaced(model, begun, now, index, batch)
            held = [0 if b in due else count for b, count in enumerate(held)]
        counts = [min(period - held[b], lengths[b] - at[b]) for b in range(batch)]
        step = torch.arange(max(counts), device=device)
        first, before, count = (torch.tensor(n, device=device).unsqueeze(1) for n in (at, held, counts))
        piece = tokens.gather(1, (first + step).clamp(max=total - 1))
        answer, parts = model.advance(piece, parts, keep=True, lengths=counts)
        chunk = chunk.scatter(1, torch.where(step < count, before + step, period), piece)
        column = torch.where(step < count, first + step, total).unsqueeze(-1).expand_as(answer)
        whole = answer.new_zeros(batch, total + 1, answer.shape[-1]) if logits is None else logits
        logits = whole.scatter(1, column, answer)
        held = [before + more for before, more in zip(held, counts, strict=True)]
        at = [before + more for before, more in zip(at, counts, strict=True)]
    if logits is None:  # nobody reads
        logits = model.advance(tokens, parts, keep=False, lengths=lengths)[0]
    return logits[:, :total], {"parts": parts, "replay": {"tokens": chunk[:, : max(held)], "parts": begun}}


def _selected(model: Parted, parts: State, index: Tensor) -> State:
    return {name: layer.fitted(select_state(parts[name], index), len(index)) for name, layer in model.parts.items()}


def _replaced(model: Parted, parts: State, new: State, index: Tensor, batch: int) -> State:
    return {name: layer.replaced(parts[name], new[name], index, batch) for name, layer in model.parts.items()}
