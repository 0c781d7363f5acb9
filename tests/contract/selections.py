"""Which members are fast where one test has many cases: the others are slow, and no member is left out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from .members import MEMBERS, Member, over

__all__ = ["CLASSES", "MANY_KINDS", "fast_for", "one_a_class"]

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
