"""Sequences of unequal length in one batch: what fills up the shorter ones is never read, so it writes nothing.

    y, state = layer(x, lengths=[5, 2], return_state=True)         two sequences, of which the second has two tokens

Sequences whose periods end at the same tokens are read together, by the same `SequenceLayer.advance` that reads all
others: the call is cut where one of them ends, and those that have ended are left out. All that begin together are
such, and are read about as fast as if they were equal. Others are first brought to the end of a period, each kind
alone.

Where there are many such groups and few tokens, as when a text is continued token by token, the call is cut wherever a
period of any sequence ends. Within such a piece sequences differ at most in whether it begins or ends a period of
theirs, and those that do not are read together. Either way a sequence is read as it would be alone, whatever stands
beside it and behind it.

The time in a state is then one number for each sequence [batch]. When all are equal again it is one for all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import lcm

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
    (batch, total), device = x.shape[:2], x.device
    begun, at, y = seen(state, batch), [0] * batch, None
    state, together = timed(state, torch.tensor(0)), lcm(*periods)
    while reading := [place for place in range(batch) if at[place] < lengths[place]]:
        now = [before + more for before, more in zip(begun, at, strict=True)]
        left = [length - more for length, more in zip(lengths, at, strict=True)]
        groups = apart(reading, _phase(now, periods))
        cut: Sequence[int] = ()
        if len(groups) > _pieces([now[p] for p in reading], [left[p] for p in reading], periods):
            groups, cut = [reading], periods
        for places in groups:
            far = total if len(groups) == 1 else -now[places[0]] % together
            if not far:  # where the others will be
                continue
            counts = [min(left[place], far) for place in places]
            index, step = torch.tensor(places, device=device), torch.arange(max(counts), device=device)
            columns = torch.tensor([at[place] for place in places], device=device).unsqueeze(1) + step
            given = x[index.unsqueeze(1), columns.clamp(max=total - 1)]
            own = state if len(places) == batch else select_state(state, index)
            answers, after = _read(advance, given, own, counts, [now[place] for place in places], cut)
            state = after if len(places) == batch else put(state, after, index)
            # One column more than is needed, for what nobody has read.
            columns = torch.where(step < torch.tensor(counts, device=device).unsqueeze(1), columns, total)
            y = answers.new_zeros(batch, total + 1, *answers.shape[2:]) if y is None else y
            y = y.index_put((index.unsqueeze(1), columns), answers)
            for place, count in zip(places, counts, strict=True):
                at[place] += count
    y = torch.zeros_like(x) if y is None else y[:, :total]
    return y, timed(state, one_time([before + count for before, count in zip(begun, lengths, strict=True)]))


def _phase(time: Sequence[int], periods: Sequence[int]) -> Callable[[int], tuple[int, ...]]:
    return lambda place: tuple(time[place] % size for size in periods)


def _pieces(time: Sequence[int], lengths: Sequence[int], periods: Sequence[int]) -> int:
    """How many there are if the call is cut wherever a sequence or a period of one ends."""
    ends = {
        end
        for begun, length in set(zip(time, lengths, strict=True))
        for end in (length, *(end for size in periods for end in range(size - begun % size, length, size)))
    }
    return len(ends - {0})


def _read(
    advance: Advance, x: Tensor, state: State, lengths: Sequence[int], time: Sequence[int], cut: Sequence[int]
) -> tuple[Tensor, State]:
    """`read_apart` of sequences that all have tokens; a call is cut where a sequence ends, and at the periods ``cut``,
    without which all of them must be in phase.
    """
    batch, total = x.shape[:2]
    left, now, answers, at = list(lengths), list(time), [], 0
    while any(left):
        reading = [place for place, count in enumerate(left) if count]
        piece = min(min([left[place], *(size - now[place] % size for size in cut)]) for place in reading)
        tokens, parts = x[:, at : at + piece], []

        def edges(place: int, piece: int = piece) -> tuple[bool, ...]:
            return tuple((now[place] + end) % size == 0 for size in cut for end in (0, piece))

        for places in apart(reading, edges):
            index = None if len(places) == batch else torch.tensor(places, device=x.device)
            own = state if index is None else select_state(state, index)
            given = tokens if index is None else tokens[index]
            y, after = advance(given, timed(own, torch.tensor(now[places[0]])))
            parts.append((index, y))
            state = after if index is None else put(state, after, index)
        answers.append(_scattered(parts, batch))
        for place in reading:
            now[place] += piece
            left[place] -= piece
        at += piece
    if at < total:
        answers.append(answers[-1].new_zeros(batch, total - at, x.shape[2]))
    return torch.cat(answers, 1), state


def apart(places: Sequence[int], kind: Callable[[int], tuple[int, ...]]) -> list[list[int]]:
    """The sequences in groups of one kind."""
    groups: dict[tuple[int, ...], list[int]] = {}
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
