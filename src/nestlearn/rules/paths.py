"""Parts and settings of a rule by their paths, and rules that differ in one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, replace
from typing import Any, ClassVar, Protocol, Self, TypeVar

from torch import Tensor

from nestlearn.errors import did_you_mean

__all__ = ["Parted", "parts", "replaced", "resolve", "settings", "without"]


class Parted(Protocol):
    """A dataclass that is made of parts, as a ``Link`` is."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def located(self, prefix: str = "") -> Iterator[tuple[str, Self]]:
        """Every part with its path."""

    def rewritten(self, change: Callable[[str, Self], Self | None], prefix: str = "") -> Self | None:
        """The rule with ``change(path, part)`` in the place of each part."""

    def left(self) -> Self | None:
        """What is there when it is taken away."""


Whole = TypeVar("Whole", bound=Parted)


def parts(rule: Whole) -> dict[str, Whole]:
    """Every part by its path; what only holds others together is none."""
    found: dict[str, Whole] = {}
    for path, part in rule.located():
        if path in found:
            raise ValueError(f"two parts of the rule are called {path!r}: give one of them a name=")
        found[path] = part
    return found


def settings(rule: Parted) -> dict[str, Any]:
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
    """The rule without a part; None if nothing is left."""
    path = resolve(name, parts(rule), "part")
    return rule.rewritten(lambda where, part: part.left() if where == path else part)


def replaced(rule: Whole, changes: Mapping[str, Any]) -> Whole:
    """The rule with other settings."""
    known = settings(rule)
    wanted: dict[str, dict[str, Any]] = {}
    for name, value in changes.items():
        path, _, setting = resolve(name, known, "setting").rpartition(".")
        wanted.setdefault(path, {})[setting] = value
    changed = rule.rewritten(lambda path, part: replace(part, **wanted[path]) if path in wanted else part)
    assert changed is not None, "nothing was taken away"
    return changed


def _own(part: Any) -> dict[str, Any]:
    """The settings of one part that are no links."""
    found = {item.name: getattr(part, item.name) for item in fields(part) if item.name != "name"}
    return {name: value for name, value in found.items() if isinstance(value, bool | int | float | str | Tensor)}
