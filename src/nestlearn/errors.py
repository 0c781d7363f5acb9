"""Errors that say what was expected, what came, and what was probably meant."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

__all__ = ["VariableError", "choice", "did_you_mean"]


class VariableError(ValueError):
    """An environment variable has a value that it cannot have."""


def choice(what: str, given: Any, known: Iterable[str]) -> None:
    """Raise ValueError unless ``given`` is one of ``known``, with the nearest name as a hint."""
    names = sorted(known)
    if given not in names:
        raise ValueError(f"unknown {what} {given!r}: expected one of {', '.join(names)}.{did_you_mean(given, names)}")


def did_you_mean(given: Any, known: Iterable[str]) -> str:
    """A hint with the nearest known name, whatever its case, to end a message; empty if none is near."""
    folded = {name.casefold(): name for name in known}
    near = get_close_matches(str(given).casefold(), folded, n=1, cutoff=0.4)
    return f" Did you mean {folded[near[0]]!r}?" if near else ""
