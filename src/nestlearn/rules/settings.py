"""The settings of a link, each declared with the range that it has to be in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Any

from torch import Tensor

from nestlearn.errors import choice
from nestlearn.imported import imported

__all__ = ["among", "check", "count", "named", "positive", "share"]


def share(default: Any = ..., *, below_one: bool = False, optional: bool = False) -> Any:
    """A retention: the share of something that is kept, in [0, 1], or in [0, 1)."""
    return _declared(default, {"range": (0.0, 1.0), "open": below_one, "optional": optional})


def positive(default: Any = ..., *, optional: bool = False) -> Any:
    """A number of at least zero."""
    return _declared(default, {"range": (0.0, float("inf")), "optional": optional})


def count(default: Any = ..., least: int = 1) -> Any:
    """A whole number."""
    return _declared(default, {"least": least})


def among(default: Any, known: Iterable[str]) -> Any:
    """One of some names."""
    return _declared(default, {"choice": tuple(known)})


def named(default: Any, known: Iterable[str]) -> Any:
    """One of some names, or "module:function" for something of the user's own."""
    return _declared(default, {"choice": tuple(known), "imports": True})


def _declared(default: Any, metadata: Mapping[str, Any]) -> Any:
    return field(metadata=metadata) if default is ... else field(default=default, metadata=metadata)


def check(what: str, value: Any, metadata: Mapping[str, Any]) -> None:
    """Raise ValueError or TypeError for a setting that is not in its range.

    A tensor stands for a number inside a compiled kernel, where it was checked before.
    """
    if isinstance(value, Tensor) or (value is None and metadata.get("optional")):
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
