"""The settings of a link, each declared with the range that it has to be in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Any, TypeVar

from torch import Tensor

from nestlearn.errors import choice
from nestlearn.imported import imported
from nestlearn.rules.schedule import Schedule

__all__ = ["among", "check", "count", "named", "positive", "share"]

Default = TypeVar("Default")
"""What a setting has that nobody has set; as with ``dataclasses.field``, a type checker takes the field for it."""


def share(default: Default, *, below_one: bool = False, optional: bool = False) -> Default:
    """A retention: the share of something that is kept, in [0, 1], or in [0, 1)."""
    return _declared(default, {"range": (0.0, 1.0), "open": below_one, "optional": optional})


def positive(default: Default, *, optional: bool = False) -> Default:
    """A number of at least zero."""
    return _declared(default, {"range": (0.0, float("inf")), "optional": optional})


def count(default: Default, least: int = 1) -> Default:
    """A whole number."""
    return _declared(default, {"least": least})


def among(default: Default, known: Iterable[str]) -> Default:
    """One of some names."""
    return _declared(default, {"choice": tuple(known)})


def named(default: Default, known: Iterable[str]) -> Default:
    """One of some names, or "module:function" for something of the user's own."""
    return _declared(default, {"choice": tuple(known), "imports": True})


def _declared(default: Default, metadata: Mapping[str, object]) -> Default:
    return field(default=default, metadata=metadata)


def check(what: str, value: object, metadata: Mapping[str, Any]) -> None:
    """Raise ValueError or TypeError for a setting that is not in its range.

    A tensor stands for a number inside a compiled kernel, where it was checked before.
    """
    if isinstance(value, Tensor) or (value is None and metadata.get("optional")):
        return
    if isinstance(value, Schedule):
        if "range" not in metadata:
            raise TypeError(
                f"{what} decides what is remembered, so it cannot change as training goes on: got {value!r}"
            )
        for end in value.span:
            check(f"{what}, at an end of {value!r},", end, metadata)
        return
    if metadata.get("imports") and isinstance(value, str) and ":" in value:
        imported(value, "setting")
    elif "choice" in metadata:
        choice(what, value, metadata["choice"])
    elif "least" in metadata:
        if isinstance(value, bool) or not isinstance(value, int) or value < metadata["least"]:
            raise ValueError(f"{what} must be a whole number of at least {metadata['least']}, got {value!r}")
    elif "range" in metadata:
        low, high = metadata["range"]
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{what} must be a number, got {value!r}")
        if not low <= value <= high or (metadata.get("open") and value == high):
            span = f"between {low:g} and {high:g}" if high < float("inf") else f"at least {low:g}"
            kind = f" and below {high:g}" if metadata.get("open") else ""
            raise ValueError(f"{what} must be {span}{kind}, got {value!r}")
