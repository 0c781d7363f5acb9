"""Parts and settings of a rule by their paths, and rules that differ in one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, replace
from typing import Any, ClassVar, Protocol, Self, TypeVar

from torch import Tensor

from nestlearn.errors import did_you_mean
from nestlearn.rules.schedule import Schedule

__all__ = ["Parted", "Setting", "parts", "removable", "replaced", "resolve", "resolved", "settings", "without"]

Setting = bool | int | float | str | Tensor | Schedule
"""A number, word or switch; a tensor stands for a number inside a compiled kernel."""


class Parted(Protocol):
    """A dataclass that is made of parts, as a ``Link`` is."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def label(self) -> str:
        """The last name of its path."""

    def located(self, prefix: str = "") -> Iterator[tuple[str, Self]]:
        """Every part with its path."""

    def rewritten(self, change: Callable[[str, Self], Self | None], prefix: str = "") -> Self | None:
        """The rule with ``change(path, part)`` in the place of each part."""

    def left(self) -> Self | None:
        """What is there when it is taken away."""

    def spared(self) -> Mapping[str, Self]:
        """What it is without each of the memories that it can do without, by their names."""


Whole = TypeVar("Whole", bound=Parted)


def parts(rule: Whole) -> dict[str, Whole]:
    """Every part by its path; what only holds others together is none."""
    found: dict[str, Whole] = {}
    for path, part in rule.located():
        if path in found:
            raise ValueError(f"two parts of the rule are called {path!r}: give one of them a name=")
        found[path] = part
    return found


def settings(rule: Parted) -> dict[str, Setting]:
    """Every number, word and switch by its path."""
    return {f"{path}.{name}": value for path, part in parts(rule).items() for name, value in _own(part).items()}


def resolve(name: str, known: Iterable[str], what: str) -> str:
    """The path among ``known`` that is ``name``, or the only one that ends like it.

    Raises:
        ValueError: there is none, or there are several.
    """
    known = list(known)
    if name in known:
        return name
    found = [path for path in known if path.endswith(f".{name}")]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"{what} {name!r} could be any of {', '.join(found)}: give its path")
    raise ValueError(f"no {what} {name!r}: expected one of {', '.join(known) or 'none'}.{did_you_mean(name, known)}")


def without(rule: Whole, name: str) -> Whole | None:
    """The rule without a part, or without a memory that a part can do without; None if nothing is left."""
    known = _removable(rule)
    path, memory = known[resolve(name, known, "part")]

    def change(where: str, part: Whole) -> Whole | None:
        if where != path:
            return part
        return part.left() if memory is None else part.spared()[memory]

    return rule.rewritten(change)


def removable(rule: Parted) -> list[str]:
    """What ``without`` takes away: the path of every part, and of every memory that its part can do without."""
    return list(_removable(rule))


def _removable(rule: Parted) -> dict[str, tuple[str, str | None]]:
    """By its path of which part it is, and by which name this has it; None is the part itself."""
    known = parts(rule)
    found: dict[str, tuple[str, str | None]] = {path: (path, None) for path in known}
    for path, part in known.items():
        for memory in part.spared():  # it lies beside those of its part; of a part with its name it is not told apart
            found.setdefault(path.removesuffix(part.label) + memory, (path, memory))
    return found


def replaced(rule: Whole, changes: Mapping[str, object]) -> Whole:
    """The rule with other settings."""
    known = settings(rule)
    wanted: dict[str, dict[str, object]] = {}
    for name, value in changes.items():
        path, _, setting = resolve(name, known, "setting").rpartition(".")
        wanted.setdefault(path, {})[setting] = value
    changed = rule.rewritten(lambda path, part: replace(part, **wanted[path]) if path in wanted else part)
    assert changed is not None, "nothing was taken away"
    return changed


def resolved(rule: Whole, writes: int = 0, lr_share: float = 1.0) -> Whole:
    """The rule with numbers in the place of its schedules, those of a time."""

    def numbers(path: str, part: Whole) -> Whole:
        found = {name: value.at(writes, lr_share) for name, value in _schedules(part).items()}
        return replace(part, **found) if found else part

    if not any(_schedules(part) for _, part in rule.located()):
        return rule
    changed = rule.rewritten(numbers)
    assert changed is not None, "nothing was taken away"
    return changed


def _schedules(part: Parted) -> dict[str, Schedule]:
    return {name: value for name, value in _own(part).items() if isinstance(value, Schedule)}


def _own(part: Parted) -> dict[str, Setting]:
    """The settings of one part that are no links."""
    found = {item.name: getattr(part, item.name) for item in fields(part) if item.name != "name"}
    return {name: value for name, value in found.items() if isinstance(value, Setting)}
