"""Which members are fast where one test has many cases: the others are slow, and no member is left out. And which of
the further settings a test takes: a third, another third each.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from .members import MEMBERS, Member, over

__all__ = ["CLASSES", "COVER", "FEW", "FURTHER", "MANY_KINDS", "fast_for", "left_to_others", "one_a_class"]

CLASSES = tuple({member.name: member for member in reversed(MEMBERS)}.values())[::-1]
"""The first member of each class, for what does not depend on settings."""

MANY_KINDS = frozenset({"Adam", "Muon", "DeepMomentum", "LayerMomentum"})
"""Classes that between them have every kind of state: flat and stacked, nested memories, and hooks on layers."""


def fast_for(classes: Iterable[str], members: Iterable[Member]) -> dict[str, Any]:
    """Keywords of `pytest.mark.parametrize`: the first member of each of these classes is fast."""
    left, marked = set(classes), []
    for member in members:
        marked.append(replace(member, extra=member.name not in left))
        left.discard(member.name)
    return over(marked)


def one_a_class(members: Iterable[Member]) -> dict[str, Any]:
    """Keywords of `pytest.mark.parametrize`: the first member of each class is fast."""
    members = list(members)
    return fast_for({member.name for member in members}, members)


COVER = 3
"""Each of the further settings is in one test of so many."""

FEW = 6
"""A test of so few further settings has chosen them, and keeps them."""

FURTHER = {str(member): place for place, member in enumerate(member for member in MEMBERS if member.extra)}


def left_to_others(tests: Iterable[tuple[str, str]]) -> set[str]:
    """The ids of those tests whose setting others try.

    Args:
        tests: the id of each, and the member that it is about, which is a part of its id.
    """
    cases: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for name, member in tests:
        if member in FURTHER:
            cases[name.replace(member, "")].append((name, FURTHER[member]))
    left: set[str] = set()
    for case, found in cases.items():
        if len(found) > FEW:
            turn = zlib.crc32(case.encode())
            left |= {name for name, place in found if (place + turn) % COVER}
    return left
