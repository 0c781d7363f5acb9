"""Learning from the next token while reading: the task's own loss writes the continuum memory (C3).

Text is read in chunks of the shortest period. When the token after a chunk arrives, before it is read, the answers to
all predictions of the chunk are known. The slopes of their cross-entropy, summed, for the fast parameters of every
continuum block that learns this way are handed to ``ContinuumMemory.write``. Every slope is that of the whole model
from the chunk's start on, attention, memories and all; no label is needed that the text does not hold, none is left
out, and what token t answers depends on tokens up to t alone.

The slopes are taken as numbers: an outer gradient reaches starts, rates and all that comes after a write, and does not
pass through the slopes (first order, as in first-order MAML).

**Calls of any length.** A chunk that arrives whole, with the token after it, is read once (up to `SHARED` of them). One
that arrives in pieces is read as it comes, and once more when it is complete, from the states at its start; so the
state keeps these, and the tokens since.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from nestlearn.layers.continuum import ContinuumMemory
from nestlearn.layers.sequence import SequenceLayer, full
from nestlearn.memory.state import State, mapped
from nestlearn.ops.tracing import transformed
from nestlearn.precision import no_autocast

__all__ = ["IN_NO_GRAPH", "Learning", "Parted", "advance_and_learn", "learning_parts", "read_chunk", "written"]

Learning = dict[str, ContinuumMemory]
"""The layers that learn from the next token, by the names of their parts."""

SHARED = 64
"""Chunks of a call whose reading serves the answers and the slopes. Automatic differentiation looks at all that a loss
depends on, back to the call's first token, so that after many chunks reading twice, the second time apart, is cheaper.
"""

IN_NO_GRAPH = (
    "objective='next_token' takes slopes within a call, which a compiled graph cannot: run the model as it is, or take "
    "one with objective='local' or with inner_lr=0"
)


class Parted(Protocol):
    """A model of sequence layers, as a `LanguageModel` is."""

    @property
    def parts(self) -> Mapping[str, SequenceLayer]:
        """The layers by the names that their states have."""

    def advance(
        self, tokens: Tensor, parts: State | None, *, keep: bool, lengths: Sequence[int] | None = None
    ) -> tuple[Tensor, State]:
        """Logits and, with ``keep``, the parts' states: one pass without the writes that need the loss."""


def learning_parts(model: Parted) -> Learning:
    """The continuum memories that learn from the next token, by the names of their parts.

    Raises:
        ValueError: their shortest periods differ.
    """
    found = {
        name: layer
        for name, layer in model.parts.items()
        if isinstance(layer, ContinuumMemory) and layer.objective == "next_token" and layer.inner_lr
    }
    shortest = {min(layer.periods) for layer in found.values()}
    if len(shortest) > 1:
        raise ValueError(
            "periods: continuum memories that learn from the next token are written together, so their shortest "
            f"periods must be equal; got {sorted(shortest)}"
        )
    return found


def advance_and_learn(
    model: Parted, learning: Learning, tokens: Tensor, state: State, *, keep: bool
) -> tuple[Tensor, State]:
    """Logits [batch, time, vocab_size] and the state after all tokens, if there are any."""
    if not tokens.shape[1]:
        return model.advance(tokens, state["parts"], keep=False)[0], state
    period = min(next(iter(learning.values())).periods)
    parts, replay = state["parts"], state["replay"]
    logits: list[Tensor] = []
    while tokens.shape[1]:
        seen = replay["tokens"]
        if seen.shape[1] == period:
            answered = torch.cat([seen, tokens[:, :1]], 1)
            _, _, slopes = read_chunk(model, learning, answered, mapped(Tensor.detach, replay["parts"]))
            parts = written(learning, parts, slopes)
            seen, replay = seen[:, :0], {"tokens": seen[:, :0], "parts": parts}
        piece, rest = tokens[:, : period - seen.shape[1]], tokens[:, period - seen.shape[1] :]
        if piece.shape[1] == period and rest.shape[1] and len(logits) < SHARED:
            answer, parts, slopes = read_chunk(model, learning, tokens[:, : period + 1], parts)
            parts = written(learning, parts, slopes)
            replay = {"tokens": seen, "parts": parts}
        else:
            answer, parts = model.advance(piece, parts, keep=keep or rest.shape[1] > 0)
            replay = {"tokens": torch.cat([seen, piece], 1), "parts": replay["parts"]}
        logits.append(answer)
        tokens = rest
    return torch.cat(logits, 1), {"parts": parts, "replay": replay}


def written(learning: Learning, parts: State, slopes: dict[str, Any]) -> State:
    """The parts' states with what the slopes write."""
    return parts | {name: layer.write(parts[name], slopes[name]) for name, layer in learning.items()}


def read_chunk(model: Parted, learning: Learning, tokens: Tensor, parts: State) -> tuple[Tensor, State, dict[str, Any]]:
    """Logits of a whole chunk, the parts' states after it, and the slopes of its loss for the fast parameters.

    Args:
        tokens: [batch, period + 1], the last one being only an answer.
        parts: the states at the chunk's start.
    """
    if transformed():
        return _read_chunk_in_a_transform(model, learning, tokens, parts)
    outer = torch.is_grad_enabled()
    with torch.enable_grad():
        ready = dict(parts)
        for name in learning:
            blocks = {
                number: {**block, "model": {key: _with_slope(t, outer) for key, t in block["model"].items()}}
                for number, block in parts[name]["blocks"].items()
            }
            ready[name] = {**parts[name], "blocks": blocks}
        logits, after = model.advance(tokens[:, :-1], ready, keep=True)
        fast = {name: layer.fast_parameters(ready[name]) for name, layer in learning.items()}
        flat = [tensor for blocks in fast.values() for block in blocks.values() for tensor in block.values()]
        loss = _surprise(logits, tokens)
        with no_autocast(loss):  # a backward pass takes the precision of the forward pass by itself
            found = iter(torch.autograd.grad(loss, flat, retain_graph=outer))
        slopes = {
            name: {number: {key: next(found) for key in block} for number, block in blocks.items()}
            for name, blocks in fast.items()
        }
    return (logits, after, slopes) if outer else (logits.detach(), mapped(Tensor.detach, after), slopes)


def _read_chunk_in_a_transform(
    model: Parted, learning: Learning, tokens: Tensor, parts: State
) -> tuple[Tensor, State, dict[str, Any]]:
    """The same, with the slopes by a transform of their own: autograd's cannot be had within one."""

    def surprise(fast: dict[str, Any]) -> tuple[Tensor, tuple[Tensor, State]]:
        ready = dict(parts)
        for name, models in fast.items():
            blocks = {number: {**block, "model": models[number]} for number, block in parts[name]["blocks"].items()}
            ready[name] = {**parts[name], "blocks": blocks}
        logits, after = model.advance(tokens[:, :-1], ready, keep=True)
        return _surprise(logits, tokens), (logits, after)

    fast = {name: layer.fast_parameters(parts[name]) for name, layer in learning.items()}
    slopes, (logits, after) = torch.func.grad(surprise, has_aux=True)(fast)
    return logits, after, mapped(Tensor.detach, slopes)


def _surprise(logits: Tensor, tokens: Tensor) -> Tensor:
    """The loss on a chunk, summed, so that sequences do not share anything."""
    return F.cross_entropy(full(logits).flatten(0, 1), tokens[:, 1:].flatten(), reduction="sum")


def _with_slope(tensor: Tensor, outer: bool) -> Tensor:
    """The tensor under another name: its slope is not to hold what earlier chunks, whose states are read, owe to it."""
    return tensor.view_as(tensor) if outer and tensor.requires_grad else tensor.detach().requires_grad_()
