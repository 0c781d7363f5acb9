"""Each test takes every class, and a third of the further settings: another third each, so that none is left out.

What a setting of a class changes is its rule, which most tests ask about in the same way; a fault in it is met by those
that have it. Whoever names a test, or looks for one with ``-k``, gets all of it.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from pathlib import Path

import pytest

from .members import MEMBERS

COVER = 3
"""Each of the further settings is in one test of so many."""

FEW = 6
"""A test of so few further settings has chosen them, and keeps them."""

FURTHER = {str(member): place for place, member in enumerate(member for member in MEMBERS if member.extra)}


def rotated(items: list[pytest.Item]) -> set[str]:
    """The ids of those that are left to others."""
    cases: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for item in items:
        member = (
            str(item.callspec.params.get("member"))
            if isinstance(item, pytest.Function) and hasattr(item, "callspec")
            else ""
        )
        if member in FURTHER:
            cases[item.nodeid.replace(member, "")].append((item.nodeid, FURTHER[member]))
    left: set[str] = set()
    for case, found in cases.items():
        if len(found) > FEW:
            turn = zlib.crc32(case.encode())
            left |= {name for name, place in found if (place + turn) % COVER}
    return left


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.option.keyword or any("::" in argument for argument in config.args):
        return
    here = [item for item in items if item.path.is_relative_to(Path(__file__).parent)]
    left = rotated(here)
    config.hook.pytest_deselected(items=[item for item in here if item.nodeid in left])
    items[:] = [item for item in items if item.nodeid not in left]
