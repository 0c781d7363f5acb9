"""Settings that change as training goes on, as values: over the writes, or with the learning rate."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nestlearn.rules.link import Link

__all__ = ["Schedule", "ramp", "resolved", "with_lr"]


@dataclass(frozen=True)
class Schedule(ABC):
    """A number that a rule is made with anew at every write; the optimizer asks for it."""

    @abstractmethod
    def at(self, writes: int, lr_share: float) -> float:
        """The number now.

        Args:
            writes: how often the group was written before.
            lr_share: its lr as a share of the lr that it began with.
        """

    @property
    @abstractmethod
    def span(self) -> tuple[float, float]:
        """The smallest and the largest number; a setting's range is checked at both."""


@dataclass(frozen=True)
class ramp(Schedule):
    """From ``start`` to ``stop`` in a straight line, in so many writes.

    Args:
        start, stop: the number before and after.
        writes: from the one to the other.
        after: writes before it begins.

    Example:
        >>> [ramp(0.3, 0.0, writes=2, after=1).at(time, 1.0) for time in range(5)]
        [0.3, 0.3, 0.15, 0.0, 0.0]
    """

    start: float
    stop: float
    writes: int
    after: int = 0

    def __post_init__(self) -> None:
        if self.writes < 1 or self.after < 0:
            raise ValueError(f"ramp(): writes must be at least 1 and after at least 0, got {self!r}")

    def at(self, writes: int, lr_share: float) -> float:
        way = min(max((writes - self.after) / self.writes, 0.0), 1.0)
        return (1 - way) * self.start + way * self.stop

    @property
    def span(self) -> tuple[float, float]:
        return min(self.start, self.stop), max(self.start, self.stop)


@dataclass(frozen=True)
class with_lr(Schedule):
    """``value`` times the learning rate as a share of the one that training began with.

    A scheduler of torch then moves both together.
    """

    value: float

    def at(self, writes: int, lr_share: float) -> float:
        return self.value * lr_share

    @property
    def span(self) -> tuple[float, float]:
        return min(0.0, self.value), max(0.0, self.value)


def resolved(rule: Link, writes: int = 0, lr_share: float = 1.0) -> Link:
    """The rule with numbers in the place of its schedules, those of a time."""

    def numbers(path: str, part: Link) -> Link:
        found: dict[str, Any] = {item.name: getattr(part, item.name) for item in fields(part)}
        found = {name: value.at(writes, lr_share) for name, value in found.items() if isinstance(value, Schedule)}
        return replace(part, **found) if found else part

    changed = rule.rewritten(numbers)
    assert changed is not None, "nothing was taken away"
    return changed
