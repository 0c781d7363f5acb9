"""How two trainings are compared: to the bit, or but for rounding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

__all__ = ["apart", "leaves", "same", "same_trees"]


def apart(one: Iterable[Tensor], two: Iterable[Tensor]) -> float:
    """The largest difference of an entry; infinite where one is NaN."""
    pairs = [(a.detach(), b.detach()) for a, b in zip(one, two, strict=True) if a.numel()]
    found = [float((a - b).abs().max()) for a, b in pairs]
    return max((each if each == each else float("inf") for each in found), default=0.0)


def same(one: Iterable[Tensor], two: Iterable[Tensor]) -> bool:
    """Whether two lists of tensors are equal to the bit, their types included."""
    pairs = list(zip(one, two, strict=True))
    return all(a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b) for a, b in pairs)


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested dictionaries and sequences, by their paths."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, f"{path}.{key}".lstrip("."))
    elif isinstance(tree, list | tuple):
        for index, value in enumerate(tree):
            yield from leaves(value, f"{path}.{index}".lstrip("."))
    else:
        yield path, tree


def same_trees(one: Any, two: Any) -> str:
    """Where two nested states differ first, in words; empty if nowhere."""
    ours, theirs = dict(leaves(one)), dict(leaves(two))
    if ours.keys() != theirs.keys():
        return f"one has {sorted(ours.keys() ^ theirs.keys())[:3]}, the other has not"
    for path, value in ours.items():
        other = theirs[path]
        if isinstance(value, Tensor) != isinstance(other, Tensor):
            return f"{path} is {type(value).__name__} and {type(other).__name__}"
        if isinstance(value, Tensor):
            if value.dtype != other.dtype:
                return f"{path} is {value.dtype} and {other.dtype}"
            equal = value.shape == other.shape and bool(torch.isclose(value, other, 0, 0, equal_nan=True).all())
            if not equal:
                return f"{path} has other values"
        elif isinstance(value, int | float | bool | str | None) and value != other:
            return f"{path} is {value!r} and {other!r}"
    return ""
