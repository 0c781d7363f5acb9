"""Sequences of unequal length in one batch: what fills up the shorter ones is never read, so it writes nothing.

    y, state = layer(x, lengths=[5, 2], return_state=True)         two sequences, of which the second has two tokens

A call is cut wherever a sequence ends, and wherever a period of any sequence does. Within such a piece sequences
differ at most in whether it begins or ends a period of theirs, so those that do not are read together, by the same
`SequenceLayer.advance` that reads all others, and those that have ended are left out. A sequence is therefore read as
it would be alone, whatever stands beside it and behind it.

The time in a state is then one number for each sequence [batch]. When all are equal again it is one for all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from nestlearn.memory.state import State, flatten, mapped, select_state
from nestlearn.ops.tracing import by_hand

__all__ = [
    "apart",
    "checked_lengths",
    "is_unequal",
    "one_time",
    "put",
    "put_with_time",
    "read_apart",
    "seen",
    "timed",
]

Advance = Callable[[Tensor, State], tuple[Tensor, State]]
"""`SequenceLayer.advance`: tokens and the state before them -> answers and the state after."""


def checked_lengths(lengths: Tensor | Sequence[int] | None, batch: int, time: int) -> list[int] | None:
    """How many tokens of each sequence count; None if all of them do.

    Raises:
        ValueError: other than one whole number from 0 to ``time`` for each sequence.
        NotImplementedError: within a compiler or a transform, where no number can be looked at.
    """
    if lengths is None:
        return None
    if not by_hand():
        raise NotImplementedError(
            "lengths: sequences of unequal length are read in pieces that depend on them, which a compiled graph or a "
            "transform of torch.func cannot: run the model as it is, or read sequences of one length"
        )
    found = torch.as_tensor(lengths)
    real = found.is_floating_point() or found.is_complex() or found.dtype == torch.bool
    if found.shape != (batch,) or (real and batch):
        raise ValueError(f"lengths: expected {batch} whole numbers, got {list(found.shape)} of {found.dtype}")
    numbers = [int(number) for number in found.tolist()]
    if any(not 0 <= number <= time for number in numbers):
        raise ValueError(f"lengths: expected numbers from 0 to {time}, how many tokens there are, got {numbers}")
    return None if all(number == time for number in numbers) else numbers


def is_unequal(state: State) -> bool:
    """Whether its sequences have seen unequal numbers of tokens."""
    held = _time(state)
    return held is not None and held.ndim > 0


def seen(state: State, batch: int) -> list[int]:
    """How many tokens each sequence has seen; zeros for a layer that does not count them."""
    held = _time(state)
    return [0] * batch if held is None else (held if held.ndim else held.expand(batch)).tolist()


def timed(state: State, time: Tensor) -> State:
    """The state with another time."""
    return {
        name: timed(held, time) if isinstance(held, dict) else time if name == "time" else held
        for name, held in state.items()
    }


def one_time(numbers: Sequence[int]) -> Tensor:
    """The time to keep: one number if all are equal."""
    return torch.tensor(numbers[0] if len(set(numbers)) == 1 else list(numbers), dtype=torch.int64)


def read_apart(
    advance: Advance, x: Tensor, state: State, lengths: Sequence[int], periods: Sequence[int]
) -> tuple[Tensor, State]:
    """y [batch, time, dim], zero where nothing was read, and the state after the last token of each sequence.

    Args:
        advance: of the layer.
        x: [batch, time, dim].
        state: before the first token.
        lengths: how many tokens of each sequence count.
        periods: after how many tokens the layer does something.
    """
    batch, total = x.shape[:2]
    left, time, answers, at = list(lengths), seen(state, batch), [], 0
    state = timed(state, torch.tensor(0))
    while any(left):
        reading = [place for place, count in enumerate(left) if count]
        piece = min(min(left[place], *(size - time[place] % size for size in (*periods, total))) for place in reading)
        tokens, parts = x[:, at : at + piece], []

        def edges(place: int, piece: int = piece) -> tuple[bool, ...]:
            return tuple((time[place] + end) % size == 0 for size in periods for end in (0, piece))

        for places in apart(reading, edges):
            index = None if len(places) == batch else torch.tensor(places, device=x.device)
            own = state if index is None else select_state(state, index)
            given = tokens if index is None else tokens[index]
            y, after = advance(given, timed(own, torch.tensor(time[places[0]])))
            parts.append((index, y))
            state = after if index is None else put(state, after, index)
        answers.append(_scattered(parts, batch))
        for place in reading:
            time[place] += piece
            left[place] -= piece
        at += piece
    if at < total:
        answers.append((answers[-1] if answers else x).new_zeros(batch, total - at, x.shape[2]))
    return torch.cat(answers, 1), timed(state, one_time(time))


def apart(places: Sequence[int], kind: Callable[[int], tuple[bool, ...]]) -> list[list[int]]:
    """The sequences in groups of one kind."""
    groups: dict[tuple[bool, ...], list[int]] = {}
    for place in places:
        groups.setdefault(kind(place), []).append(place)
    return list(groups.values())


def put(state: State, part: State, index: Tensor) -> State:
    """The state with the sequences ``index`` taken from another; a number without dimensions stays."""

    def placed(held: Tensor, new: Tensor) -> Tensor:
        return held.index_copy(0, index.to(held.device), new.to(held.dtype)) if held.ndim and new.ndim else held

    return mapped(placed, state, part)


def put_with_time(state: State, part: State, index: Tensor, batch: int) -> State:
    """`put`, with the times of these sequences too."""
    numbers = seen(state, batch)
    for place, number in zip(index.tolist(), seen(part, len(index)), strict=True):
        numbers[place] = number
    return timed(put(timed(state, torch.tensor(0)), part, index), one_time(numbers))


def _scattered(parts: Sequence[tuple[Tensor | None, Tensor]], batch: int) -> Tensor:
    """Answers of some of the sequences each [n, time, dim] as those of all, zero for those without."""
    first, y = parts[0]
    if first is None:
        return y
    whole = y.new_zeros(batch, *y.shape[1:])
    for index, y in parts:
        assert index is not None, "all of them are one group"
        whole = whole.index_copy(0, index, y)
    return whole


def _time(state: State) -> Tensor | None:
    return next((held for name, held in flatten(state).items() if name.split(".")[-1] == "time"), None)
