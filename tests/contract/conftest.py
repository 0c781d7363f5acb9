"""Each test takes every class, and a third of the further settings: another third each, so that none is left out.

What a setting of a class changes is its rule, which most tests ask about in the same way; a fault in it is met by those
that have it. Whoever names a test, looks for one with ``-k``, or repeats those that failed, gets all of it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from .selections import left_to_others


def member_of(item: pytest.Item) -> str:
    """The member that a test is about, or nothing."""
    return str(item.callspec.params.get("member")) if hasattr(item, "callspec") else ""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    chosen = config.option.keyword or config.getoption("lf", default=False)
    if chosen or any("::" in argument for argument in config.args):
        return
    here = [item for item in items if item.path.is_relative_to(Path(__file__).parent)]
    left = left_to_others((item.nodeid, member_of(item)) for item in here)
    config.hook.pytest_deselected(items=[item for item in here if item.nodeid in left])
    items[:] = [item for item in items if item.nodeid not in left]
