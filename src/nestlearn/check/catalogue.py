"""All checks, by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from nestlearn.check import groups, hosts, ranks, state, steps, values
from nestlearn.errors import SettingsError, did_you_mean

__all__ = ["CHECKS", "HOSTS", "ONE_PROCESS", "TWO_RANKS", "Check", "chosen"]

ONE_PROCESS, HOSTS, TWO_RANKS = "one process", "other libraries", "two ranks"


@dataclass(frozen=True)
class Check:
    """One thing that every optimizer should do.

    Args:
        name: by which it is chosen.
        sentence: what it asserts.
        where: it runs, ``"one process"``, ``"other libraries"`` or ``"two ranks"``.
        function: called with the subject, and on ranks with their place.
    """

    name: str
    sentence: str
    where: str
    function: Callable[..., None]


def _check(function: Callable[..., None], where: str) -> Check:
    sentence = " ".join((inspect.getdoc(function) or "").split())
    return Check(function.__name__.replace("_", "-"), sentence, where, function)


_ALL = (
    *(_check(each, ONE_PROCESS) for module in (steps, groups, state, values) for each in module.CHECKS),
    *(_check(each, HOSTS) for each in hosts.CHECKS),
    *(_check(each, TWO_RANKS) for each in ranks.CHECKS),
)

CHECKS: Mapping[str, Check] = MappingProxyType({check.name: check for check in _ALL})
"""Every check, in the order in which they run."""


def chosen(only: Any, where: set[str]) -> list[Check]:
    """The checks of these names, all of them by default, that run in these places.

    Raises:
        SettingsError: there is no check of a name.
    """
    for name in only:
        if name not in CHECKS:
            raise SettingsError(
                f"unknown check {name!r}: expected one of {', '.join(CHECKS)}.{did_you_mean(name, CHECKS)}"
            )
    return [check for check in CHECKS.values() if (check.name in only if only else check.where in where)]
