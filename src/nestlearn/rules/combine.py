"""Links made of links: in a row, inside a basis, side by side."""

from __future__ import annotations

import operator
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from nestlearn.imported import imported
from nestlearn.memory.nesting import Consulted, Said, Scene, the_gradient
from nestlearn.rules.link import Answer, Change, Link, Linked, gathered, once, passed, whole
from nestlearn.rules.paths import resolved
from nestlearn.rules.settings import named
from nestlearn.rules.words import grouped, multiple

__all__ = ["Bases", "Basis", "Combined", "chain", "parallel", "within"]


@dataclass(frozen=True, repr=False)
class Combined(Link):
    """A link that only holds others together: it is no part of its own, and their memories lie beside each other."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for item in fields(self):
            value = getattr(self, item.name)
            for each in value if isinstance(value, tuple) else ():
                if not isinstance(each, Link | float | int):
                    raise TypeError(f"{type(self).__name__}(): expected links such as average(...), got {each!r}")
        numbers: Link = resolved(self)  # type: ignore[type-var]
        found = numbers.link(torch.Size((2, 2)), the_gradient, the_gradient)
        names = Counter(memory.name for memory in found.memories)
        for name, times in names.items():
            if times > 1:
                raise ValueError(f"{type(self).__name__}(): {times} memories are called {name!r}: give links a name=")

    def located(self, prefix: str = "") -> Iterator[tuple[str, Link]]:
        for _, each in self.inner():
            yield from each.located(prefix)


@dataclass(frozen=True, repr=False, init=False)
class chain(Combined):
    """One link after the other: each is given the gradient and the answer of the one before.

    Args:
        *links: at least none; without any the answer is the gradient.

    Example:
        >>> from nestlearn.rules import average, orthogonal
        >>> chain(average(0.5, nesterov=True), orthogonal())
        chain(average(0.5, nesterov=True), orthogonal())
    """

    links: tuple[Link, ...] = ()

    def __init__(self, *links: Link, name: str | None = None) -> None:
        object.__setattr__(self, "links", links)
        object.__setattr__(self, "name", name)
        self.__post_init__()

    def rewritten(self, change: Change, prefix: str = "") -> Link | None:
        return chain(*filter(None, (each.rewritten(change, prefix) for each in self.links)), name=self.name)

    def _told(self) -> Iterator[str]:
        yield from map(repr, self.links)

    def link(self, shape: torch.Size, u: Said, a: Said) -> Linked:
        parts = []
        for each in self.links:
            parts.append(linked(each, shape, u, a))
            a = passed(parts[-1].answer, before=a, kept=parts[-1].kept, length=parts[-1].length)
        return gathered(a, *parts, length=parts[-1].length if parts else None)


class Bases(NamedTuple):
    """A basis for matrices of one shape: its memories, and the two ways between the spaces.

    Args:
        memories: what the basis is read from.
        into, back: the ways of an answer.
        seen: how the gradient is seen in the basis, where that is not just carried into it.
    """

    memories: tuple[Consulted, ...]
    into: Callable[[Said], Said]
    back: Callable[[Said], Said]
    seen: Callable[[Said], Said] | None = None


@dataclass(frozen=True, repr=False)
class Basis(Link):
    """A link that other links may answer in: see ``within``. Alone it answers with a carried into the basis."""

    @abstractmethod
    def basis(self, shape: torch.Size, u: Said) -> Bases:
        """The memories behind the basis, and the ways into it and back."""

    def link(self, shape: torch.Size, u: Said, a: Said) -> Linked:
        found = self.basis(shape, u)
        return Linked(found.into(whole(a)), found.memories)


@dataclass(frozen=True, repr=False)
class within(Combined):
    """Carry u and a into a basis, let a rule answer there, and carry its answer back through the same basis.

    The way there and back changes lengths; the answer comes out as long as it was inside.

    Args:
        basis: a ``Basis``, ``whiten(...)`` say.
        rule: what answers there.
    """

    basis: Basis
    rule: Link

    def __post_init__(self) -> None:
        if not isinstance(self.basis, Basis):
            raise TypeError(
                f"within(): basis must be a basis, such as whiten(...), got {self.basis!r}; a link that has no way "
                "back goes before the rule: chain(link, rule)"
            )
        for link in self.rule.everything() if isinstance(self.rule, Link) else ():
            if "weights" in link.reads:
                raise ValueError(
                    f"within(): {link!r} looks at the weights, which are not seen in the basis: put it behind, "
                    "chain(within(...), link)"
                )
        super().__post_init__()

    def rewritten(self, change: Change, prefix: str = "") -> Link | None:
        basis, rule = (each.rewritten(change, prefix) for each in (self.basis, self.rule))
        if basis is None:
            return rule
        return within(basis, chain() if rule is None else rule)  # type: ignore[arg-type]  # within() checks it

    def link(self, shape: torch.Size, u: Said, a: Said) -> Linked:
        memories, into, back, seen = self.basis.basis(shape, u)
        inside = linked(self.rule, shape, once((seen or into)(u)), passed(into(whole(a)), before=a))
        found = once(whole(inside.answer))
        carried = back(found)
        known = inside.length

        def answer(scene: Scene) -> Tensor:
            matrix = carried(scene)
            length = torch.linalg.matrix_norm(found(scene), keepdim=True) if known is None else known.number
            factor: Tensor = length / torch.linalg.matrix_norm(matrix, keepdim=True).clamp_min(1e-30)
            return matrix * factor

        words = f"as_long_as({carried.words}, {(known or found).words})"
        return gathered(Said(words, answer), Linked(a, memories), inside, length=known)


COMBINATIONS = ("mean", "product", "sum")


@dataclass(frozen=True, repr=False, init=False)
class parallel(Combined):
    """Links side by side: each is given u and a, and may ask for the answers of those before it by their names.

    Args:
        *rules: the members.
        combine: what is made of their answers a1, a2, ...: "sum", "mean", "product" (entry by entry), or
            "module:function" for a function of yours, called with the answers in their order.
        weights: one number a member, by which its answer is multiplied before.

    Example:
        >>> from nestlearn.rules import average, parallel
        >>> parallel(average(0.5, name="fast"), average(0.99, name="slow"), weights=(1.0, 0.3))
        parallel(average(0.5, name='fast'), average(0.99, name='slow'), weights=(1.0, 0.3))
    """

    rules: tuple[Link, ...] = ()
    combine: str = named("sum", COMBINATIONS)
    weights: tuple[float, ...] = ()

    def __init__(
        self, *rules: Link, combine: str = "sum", weights: tuple[float, ...] = (), name: str | None = None
    ) -> None:
        for field, value in (("rules", rules), ("combine", combine), ("name", name)):
            object.__setattr__(self, field, value)
        object.__setattr__(self, "weights", tuple(weights) or (1.0,) * len(rules))
        if len(self.weights) != len(rules) or not rules:
            raise ValueError(f"parallel(): expected rules and one weight for each, got {len(rules)} and {weights}")
        self.__post_init__()

    def rewritten(self, change: Change, prefix: str = "") -> Link | None:
        found = [
            (each.rewritten(change, prefix), weight) for each, weight in zip(self.rules, self.weights, strict=True)
        ]
        left = [(each, weight) for each, weight in found if each is not None]
        if not left:
            return None
        rules, weights = zip(*left, strict=True)
        return parallel(*rules, combine=self.combine, weights=weights, name=self.name)

    def _told(self) -> Iterator[str]:
        yield from map(repr, self.rules)
        if self.combine != "sum":
            yield f"combine={self.combine!r}"
        if set(self.weights) != {1.0}:
            yield f"weights={self.weights!r}"

    def link(self, shape: torch.Size, u: Said, a: Said) -> Linked:
        a, parts = passed(once(whole(a)), before=a), []
        for each in self.rules:
            parts.append(linked(each, shape, u, a))
            a = passed(a, before=a, kept=parts[-1].kept)
        answers = [_weighed(whole(part.answer), weight) for part, weight in zip(parts, self.weights, strict=True)]
        return gathered(self._combined(answers), *parts)

    def _combined(self, answers: list[Said]) -> Said:
        words, count = [grouped(answer.words) for answer in answers], len(answers)
        match self.combine:
            case "sum":
                total = " + ".join(answer.words for answer in answers)
                return Said(total, lambda scene: reduce(operator.add, (answer(scene) for answer in answers)))
            case "mean":
                total = " + ".join(answer.words for answer in answers)
                return Said(
                    f"({total}) / {count}",
                    lambda scene: reduce(operator.add, (answer(scene) for answer in answers)) / count,
                )
            case "product":
                return Said(
                    " * ".join(words), lambda scene: reduce(operator.mul, (answer(scene) for answer in answers))
                )
        function = imported(self.combine, "combination")
        return Said(
            f"{self.combine}({', '.join(answer.words for answer in answers)})",
            lambda scene: function(*(answer(scene) for answer in answers)),
        )


def _weighed(answer: Said, weight: float) -> Said:
    """weight * answer."""
    if not isinstance(weight, Tensor) and weight == 1:
        return answer
    return Said(multiple(weight, answer.words), lambda scene: weight * answer(scene))


def linked(link: Link, shape: torch.Size, u: Said, a: Said) -> Linked:
    """``link.link`` of a member, whose answer others can ask for if it has a name."""
    part = link.link(shape, u, a)
    if not link.name:
        return part
    answer = once(whole(part.answer))
    kept = part.answer if isinstance(part.answer, Answer) else answer
    return replace(part, answer=kept, named={**part.named, link.name: answer})
