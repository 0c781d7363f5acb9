"""Names that fit beside a picture: cut, but never in what tells them apart."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["short", "told_apart"]


def short(name: str, most: int = 24) -> str:
    """A name of at most ``most`` letters; the end of a dotted path says more than its beginning."""
    return name if len(name) <= most else f"…{name[1 - most :]}"


def told_apart(names: Sequence[str], most: int) -> dict[str, str]:
    """Each name as it is shown: with at most ``most`` letters, unless two that differ would then look alike.

    A long one loses the first parts of its path; two that would look alike keep beginning and end around what they
    share, and are whole if that does not help either.

    Example:
        >>> told_apart(["encoder.layers.0.momentum", "encoder.layers.1.momentum", "skip"], 14)
        {'encoder.layers.0.momentum': '…0.momentum', 'encoder.layers.1.momentum': '…1.momentum', 'skip': 'skip'}
    """
    for cut in (_last_parts, _ends):
        shown = {name: cut(name, most) for name in names}
        if len(set(shown.values())) == len(shown):
            return shown
    return {name: name for name in names}


def _last_parts(name: str, most: int) -> str:
    if len(name) <= most:
        return name
    parts = name.split(".")
    for first in range(1, len(parts)):
        rest = ".".join(parts[first:])
        if len(rest) < most:
            return f"…{rest}"
    return short(name, most)


def _ends(name: str, most: int) -> str:
    if len(name) <= most:
        return name
    last = (most - 1) // 2
    return f"{name[: most - 1 - last]}…{name[-last:]}"
