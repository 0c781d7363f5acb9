"""State: what memories hold and rules remember, tensors in nested dictionaries, and the few walks through it.

    {"model": {"weight": ...}, "rule": {"weight": {"momentum": {"model": {"value": ...}}}}}

Storage that keeps plain tensors alone has it flat, under dotted names: ``rule.weight.momentum.model.value``.

States of sequence layers and models hold a batch: the first dimension of each tensor counts sequences, and a number
without dimensions, the time, is one for all. `select_state`, `repeat_state` and `cut_state` make other batches of them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "State",
    "count_entries",
    "cut_state",
    "flatten",
    "leaves",
    "mapped",
    "repeat_state",
    "select_state",
    "state_bytes",
    "unflatten",
]

State = dict[str, Any]
"""Tensors and nested dictionaries of tensors, nothing else."""


def mapped(function: Callable[..., Tensor], state: State, *others: State) -> State:
    """A state of the same names, with what ``function`` makes of each tensor and those in its place in the others."""
    return {
        name: mapped(function, value, *(other[name] for other in others))
        if isinstance(value, dict)
        else function(value, *(other[name] for other in others))
        for name, value in state.items()
    }


def flatten(state: State, prefix: str = "", *, empty: Tensor | None = None) -> dict[str, Tensor]:
    """Nested dictionaries of tensors as one dictionary with dotted names.

    Args:
        state: to be flattened.
        prefix: what all names begin with.
        empty: stands under ``"name."`` for an empty dictionary; without it that is left out.
    """
    flat: dict[str, Tensor] = {}
    for name, value in state.items():
        if not isinstance(value, dict):
            flat[prefix + name] = value
        elif value:
            flat.update(flatten(value, f"{prefix}{name}.", empty=empty))
        elif empty is not None:
            flat[f"{prefix}{name}."] = empty
    return flat


def unflatten(flat: Mapping[str, Tensor]) -> State:
    """The inverse of ``flatten``; empty dictionaries come back where something stands for them."""
    nested: State = {}
    for name, value in flat.items():
        *path, last = name.split(".")
        place = nested
        for part in path:
            place = place.setdefault(part, {})
        if last:
            place[last] = value
    return nested


def leaves(held: Any) -> list[Tensor]:
    """All tensors in a state, or in whatever mappings, lists and tuples hold them; other things are passed over."""
    if isinstance(held, Tensor):
        return [held]
    if isinstance(held, Mapping):
        return [tensor for item in held.values() for tensor in leaves(item)]
    if isinstance(held, (list, tuple)):
        return [tensor for item in held for tensor in leaves(item)]
    return []


def count_entries(held: Any) -> int:
    """Entries of all tensors in a state."""
    return sum(tensor.numel() for tensor in leaves(held))


def state_bytes(held: Any) -> int:
    """Bytes of all tensors in a state."""
    return sum(tensor.numel() * tensor.element_size() for tensor in leaves(held))


def select_state(state: State, index: Tensor | Sequence[int]) -> State:
    """The sequences ``index`` of a batch, in this order and as often as they are named.

        >>> state = {"model": {"weight": torch.tensor([[1.0], [2.0], [3.0]])}, "time": torch.tensor(7)}
        >>> select_state(state, [2, 0, 0])["model"]["weight"].flatten().tolist()
        [3.0, 1.0, 1.0]

    A beam search reorders with it the state that its beams share. Gradients flow through it.

    Args:
        state: of a sequence layer or a model, every tensor [batch, ...] or without dimensions.
        index: whole numbers [n] from 0 to batch - 1.

    Returns:
        A state of n sequences; tensors without dimensions are those of ``state``.

    Raises:
        ValueError: other numbers; tensors of a state that differ in how many sequences they hold.
    """
    places = index if isinstance(index, Tensor) else torch.tensor(index, dtype=None if len(index) else torch.int64)
    if places.ndim != 1 or places.dtype == torch.bool or places.is_floating_point() or places.is_complex():
        remedy = "; of a mask, pass mask.nonzero().flatten()" if places.dtype == torch.bool else ""
        raise ValueError(f"index: expected whole numbers [n], got {list(places.shape)} of {places.dtype}{remedy}")
    batch, places = _batch(state), places.long()
    if batch is not None and places.numel() and not places.is_meta:
        low, high = (int(bound) for bound in torch.aminmax(places))
        if low < 0 or high >= batch:
            raise ValueError(f"index: expected numbers from 0 to {batch - 1}, got {low} to {high}")
    return mapped(lambda held: held.index_select(0, places.to(held.device)) if held.ndim else held, state)


def repeat_state(state: State, count: int) -> State:
    """Every sequence of a batch ``count`` times, its copies next to each other: [batch * count, ...].

        >>> repeat_state({"weight": torch.tensor([[1.0], [2.0]])}, 2)["weight"].flatten().tolist()
        [1.0, 1.0, 2.0, 2.0]

    Raises:
        ValueError: count below 1; tensors of a state that differ in how many sequences they hold.
    """
    if count < 1:
        raise ValueError(f"count: expected at least 1, got {count}")
    _batch(state)
    return mapped(lambda held: held.repeat_interleave(count, 0) if held.ndim else held, state)


def cut_state(state: State, start: int, stop: int) -> State:
    """The sequences from ``start`` up to, not including, ``stop``: views, nothing is copied.

        >>> cut_state({"weight": torch.tensor([[1.0], [2.0], [3.0]])}, 1, 3)["weight"].flatten().tolist()
        [2.0, 3.0]

    Raises:
        ValueError: not 0 <= start <= stop <= batch; tensors of a state that differ in how many sequences they hold.
    """
    batch = _batch(state)
    if not 0 <= start <= stop or (batch is not None and stop > batch):
        raise ValueError(f"expected 0 <= start <= stop <= {batch} sequences, got start = {start}, stop = {stop}")
    return mapped(lambda held: held[start:stop] if held.ndim else held, state)


def _batch(state: State) -> int | None:
    """How many sequences a state holds; None where no tensor counts them."""
    sizes = {name: held.shape for name, held in flatten(state, "state.").items() if held.ndim}
    first = next(iter(sizes), None)
    for name, shape in sizes.items():
        if first is not None and shape[0] != sizes[first][0]:
            raise ValueError(
                f"expected a state of one batch, first dimensions alike, got {first} {list(sizes[first])} and "
                f"{name} {list(shape)}"
            )
    return None if first is None else int(sizes[first][0])
