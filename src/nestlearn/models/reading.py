"""Watching a model read: what each token surprised it by, and how far each of its memories moved.

    for reading in observe(model, tokens):
        reading.losses, reading.moved["1.blocks.0"]

A text is read piece by piece, and a reading is told when its piece was read, so that a text of any length streams. The
states are values: a reading keeps the one before and the one after, and whoever keeps a reading can go on from there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from nestlearn.memory.state import State, flatten
from nestlearn.models.generation import Reader, whole_numbers

__all__ = ["Begun", "Reading", "memories", "movement", "observe"]

PIECE = 16
AGAIN = "replay"  # what is read once more, at its start: no memory of its own


class Begun(Reader, Protocol):
    """Whatever reads on from a state, and has one before the first token, as a `LanguageModel` does."""

    def initial_state(self, batch_size: int) -> State:
        """The state before the first token."""


@dataclass(frozen=True)
class Reading:
    """What reading a piece of a text did.

    Attributes:
        tokens: [batch, time], the piece.
        losses: -log p of each token in nats, as it was expected before it was read [batch, time], float64; NaN for a
            token that nobody could expect, the first one of all.
        logits: of the token that would come next [batch, vocab_size].
        before: the state before the piece.
        state: the state after it.
    """

    tokens: Tensor
    losses: Tensor
    logits: Tensor
    before: State
    state: State

    @property
    def moved(self) -> dict[str, Tensor]:
        """How far each memory moved in this piece; see `movement`."""
        return movement(self.before, self.state)


def observe(
    model: Begun, tokens: Tensor, state: State | None = None, logits: Tensor | None = None, *, piece: int = PIECE
) -> Iterator[Reading]:
    """Read a text piece by piece, each told when it was read.

    What is told, and the state, do not depend on how the text is cut into pieces or calls: a text may be taken on from
    the ``state`` and the ``logits`` of the last reading.

    Args:
        model: any language model; nothing is written into it.
        tokens: [batch, time].
        state: what was read before; None begins anew.
        logits: what was expected of the first token [batch, vocab_size]; None if nothing was.
        piece: tokens of a piece; 1 tells what each token did, and takes longer.

    Raises:
        ValueError: no whole numbers [batch, time]; a piece below 1; logits of another batch; what the model raises.
        TypeError: tokens that are no tensor.

    Example:
        >>> import nestlearn as nl
        >>> model = nl.models.hope(256, 16, 1, 2)
        >>> text = torch.tensor([list(b"What is read is remembered.")])
        >>> [tuple(reading.losses.shape) for reading in nl.models.observe(model, text)]
        [(1, 16), (1, 11)]
    """
    if piece < 1:
        raise ValueError(f"piece: expected at least 1 token, got {piece}")
    tokens = whole_numbers(tokens)
    if logits is not None and (logits.ndim != 2 or len(logits) != len(tokens)):
        raise ValueError(f"logits: expected [{len(tokens)}, vocab_size], of each sequence, got {tuple(logits.shape)}")
    return _readings(model, tokens, state, logits, piece)


def _readings(
    model: Begun, tokens: Tensor, state: State | None, expected: Tensor | None, piece: int
) -> Iterator[Reading]:
    with torch.no_grad():  # around one step at a time: a generator must not change what its caller does in between
        state = model.initial_state(len(tokens)) if state is None else state
    for some in tokens.split(piece, 1) if tokens.shape[1] else ():
        with torch.no_grad():
            logits, after = model(some, state=state, return_state=True)
            losses = _losses(logits, some, expected)
        yield Reading(some, losses, logits[:, -1], state, after)
        state, expected = after, logits[:, -1]


def _losses(logits: Tensor, tokens: Tensor, expected: Tensor | None) -> Tensor:
    """-log p of each token at the logits before it [batch, time]."""
    first = logits.new_full((len(logits), logits.shape[-1]), torch.nan) if expected is None else expected
    known = torch.cat([first.to(logits).unsqueeze(1), logits[:, :-1]], 1).double()
    return -known.log_softmax(-1).gather(-1, tokens.to(known.device).unsqueeze(-1)).squeeze(-1)


def movement(before: State, after: State) -> dict[str, Tensor]:
    """How far each memory moved between two states of one text: 0 not at all, 1 as far as all that it holds.

    Of all that a memory holds, the norm of the change over the larger norm of the two; at most 2. The memories of
    attention, which hold all and change nothing, are not among them.

    Args:
        before, after: as `observe` gives them, ``model.initial_state(batch)`` or a state that was kept.

    Returns:
        [batch], float64, under the name of each memory: "0.memory" is that of the layer ``model.parts["0"]``,
        "1.blocks.2" the third block of the continuum ``model.parts["1"]``.

    Raises:
        ValueError: states of unlike models or batches.

    Example:
        >>> import nestlearn as nl
        >>> model = nl.models.gated_delta_net(256, 16, 1, 2)
        >>> start = model.initial_state(1)
        >>> {name: float(far) for name, far in movement(start, start).items()}
        {'0.memory': 0.0}
    """
    old, new = memories(before), memories(after)
    if old.keys() != new.keys():
        raise ValueError(f"expected two states of one model, got memories {sorted(old)} and {sorted(new)}")
    return {name: _far(old[name], new[name], name) for name in old}


def memories(state: State) -> dict[str, State]:
    """What each memory in a state holds, by name: every dictionary of tensors that is called "model"."""
    return dict(_found(state.get("parts", state), ""))


def _found(held: Mapping[str, object], path: str) -> Iterator[tuple[str, State]]:
    for name, value in held.items():
        if not isinstance(value, dict) or (not path and name == AGAIN):
            continue
        if name == "model" and value:
            yield path.removesuffix("."), value
        else:
            yield from _found(value, f"{path}{name}.")


@torch.no_grad()
def _far(old: State, new: State, name: str) -> Tensor:
    one, two = flatten(old), flatten(new)
    if {key: held.shape for key, held in one.items()} != {key: held.shape for key, held in two.items()}:
        raise ValueError(f"{name}: expected two states of one model and batch, got other shapes")
    change, *sizes = (
        sum(part.double().flatten(1).square().sum(1) for part in parts)
        for parts in ([two[key] - one[key] for key in one], one.values(), two.values())
    )
    largest = torch.maximum(*(torch.as_tensor(size) for size in sizes))
    return (torch.as_tensor(change) / torch.where(largest > 0, largest, 1.0)).sqrt()
