"""Levels of a nested system: memories sorted by how often they are written (M4, [NL] Definitions 2-4)."""

from collections.abc import Collection, Mapping
from functools import cache

__all__ = ["frequency", "levels"]


def frequency(period: int) -> float:
    """f = 1 / C: writes per unit of time, for a memory with update period C."""
    if period < 1:
        raise ValueError(f"a period counts writes and must be at least 1, got {period}")
    return 1 / period


def levels(periods: Mapping[str, int], needs: Mapping[str, Collection[str]]) -> list[list[str]]:
    """Sort memories into levels, the slowest first.

    A is faster than B if its frequency is higher, or if the frequencies are equal and B's state at a time needs A's at
    that time. Memories of which neither is faster share a level (M4). In Adam the weights need both moments at every
    step, and the moments do not need each other: two levels, three memories.

    Args:
        periods: update period C of each memory, by name.
        needs: for each memory, the ones whose state at time t enters its own at time t.

    Raises:
        ValueError: if ``needs`` names an unknown memory or memories of one period need each other in a circle.
    """
    for name, needed in needs.items():
        unknown = (set(needed) | {name}) - set(periods)
        if unknown:
            raise ValueError(f"needs of {name!r}: unknown memories {sorted(unknown)}; known are {sorted(periods)}")

    trail: list[str] = []

    @cache
    def depth(name: str) -> int:
        if name in trail:
            raise ValueError(f"memories of one period need each other: {' -> '.join([*trail, name])}")
        trail.append(name)
        users = [user for user, needed in needs.items() if name in needed and periods[user] == periods[name]]
        deepest = 1 + max((depth(user) for user in users), default=-1)
        trail.pop()
        return deepest

    ranked: dict[tuple[float, int], list[str]] = {}
    for name, period in periods.items():
        ranked.setdefault((frequency(period), depth(name)), []).append(name)
    return [ranked[rank] for rank in sorted(ranked)]
