"""State: what memories hold and rules remember, tensors in nested dictionaries, and the few walks through it.

    {"model": {"weight": ...}, "rule": {"weight": {"momentum": {"model": {"value": ...}}}}}

Storage that keeps plain tensors alone has it flat, under dotted names: ``rule.weight.momentum.model.value``.
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

__all__ = ["State", "count_entries", "flatten", "leaves", "mapped", "state_bytes", "unflatten"]

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
