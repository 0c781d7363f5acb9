"""Different rules for different parameters, by their names, shapes, or what they are for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import torch

from nestlearn.memory.nesting import Said
from nestlearn.rules.combine import Combined
from nestlearn.rules.link import Change, Link, Linked, gradient
from nestlearn.rules.settings import positive

__all__ = ["part", "partition"]


@dataclass(frozen=True, repr=False)
class part(Link):
    """The rule of some parameters: those that fit all that is said here.

    Args:
        rule: what writes them.
        names: shell pattern of their names, ``"*.attention.*"`` say; None fits all, even without a name.
        shape: of the parameter, None standing for any size: ``(None, 768)``; None fits all.
        table: True for weights of nn.Embedding, one row an entry, which only the optimizer's ``model=`` knows.
        lr, weight_decay: of their own, in the place of the optimizer's; schedulers change each in proportion.
        name: of the part; None is its place, "part1" for the first.
    """

    nested = ("rule",)

    rule: Link = gradient()  # noqa: RUF009 - frozen, like the dataclass itself
    names: str | None = None
    shape: tuple[int | None, ...] | None = None
    table: bool = False
    lr: float | None = positive(None, optional=True)
    weight_decay: float | None = positive(None, optional=True)

    def fits(self, name: str, shape: torch.Size, table: bool) -> bool:
        """Whether a parameter belongs here."""
        if self.names is not None and not fnmatchcase(name, self.names):
            return False
        if self.shape is not None:
            sizes = zip(self.shape, shape, strict=False)
            if len(self.shape) != len(shape) or any(wanted not in (None, size) for wanted, size in sizes):
                return False
        return table or not self.table

    @property
    def on_matrices(self) -> bool:  # type: ignore[override]
        return self.rule.on_matrices

    def rewritten(self, change: Change, prefix: str = "") -> Link | None:
        rule = self.rule.rewritten(change, f"{prefix}{self.label}.")
        return change(prefix + self.label, replace(self, rule=gradient() if rule is None else rule))

    def link(self, shape: torch.Size, u: Said, a: Said) -> Linked:
        return self.rule.link(shape, u, a)


@dataclass(frozen=True, repr=False, init=False)
class partition(Combined):
    """Every parameter is written by the rule of the first part that it fits.

    It chooses once, when parameters are given to an ``Optimizer``, as ``matrix=`` or ``element=``: each part becomes a
    parameter group of its own. It is no step in a chain.

    Args:
        *parts: each a ``part``; the last one usually fits everything.

    Example:
        >>> from nestlearn.rules import adam, muon, part, partition
        >>> rule = partition(part(adam(), names="*head*", lr=0.002), part(muon(0.9)))
        >>> rule.parts()["part2.momentum"].retention
        0.9
    """

    members: tuple[part, ...] = ()

    def __init__(self, *parts: part, name: str | None = None) -> None:
        for each in parts:
            if not isinstance(each, part):
                raise TypeError(f"partition(): expected parts such as part(muon(), names='*'), got {each!r}")
        numbered = tuple(replace(each, name=each.name or f"part{place}") for place, each in enumerate(parts, 1))
        object.__setattr__(self, "members", numbered)
        object.__setattr__(self, "name", name)
        self.parts()  # two of one name are an error now

    def rewritten(self, change: Change, prefix: str = "") -> Link | None:
        found = [each.rewritten(change, prefix) for each in self.members]
        return partition(*(each for each in found if isinstance(each, part)), name=self.name)

    def _told(self) -> Iterator[str]:
        for place, each in enumerate(self.members, 1):
            yield repr(replace(each, name=None) if each.name == f"part{place}" else each)

    def fitting(self, name: str, shape: torch.Size, table: bool) -> part:
        """The part of a parameter.

        Raises:
            ValueError: it fits none.
        """
        for each in self.members:
            if each.fits(name, shape, table):
                return each
        raise ValueError(
            f"partition(): no part fits the parameter {name or 'without a name'} with shape {tuple(shape)}; a last "
            "part(rule) without conditions fits everything"
        )

    def called(self, name: str) -> part | None:
        """The part of this name."""
        return next((each for each in self.members if each.name == name), None)

    @property
    def looks_at(self) -> frozenset[str]:
        """What parts look at besides shapes: "names" and "tables"."""
        found = {"names" for each in self.members if each.names is not None}
        return frozenset(found | {"tables" for each in self.members if each.table})

    def link(self, shape: torch.Size, u: Said, a: Said) -> Linked:
        raise TypeError("a partition chooses among parameters, it is no step: pass it as matrix= or element=")
