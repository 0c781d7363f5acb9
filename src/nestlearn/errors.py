"""Errors that say what was expected, what came, and what was probably meant."""

import difflib
from collections.abc import Iterable
from typing import Any

__all__ = ["choice"]


def choice(what: str, given: Any, known: Iterable[str]) -> None:
    """Raise ValueError unless ``given`` is one of ``known``, with the nearest name as a hint."""
    names = sorted(known)
    if given in names:
        return
    near = difflib.get_close_matches(str(given), names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"unknown {what} {given!r}: expected one of {', '.join(names)}.{hint}")
