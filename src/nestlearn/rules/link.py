"""A link: one step from the gradient to the update, as a value that says which memories it asks and what it answers.

    rule = chain(average(0.9, nesterov=True), orthogonal())

A link is given the gradient u and the answer a of the link before it (u itself for the first one), consults memories,
and answers in its turn. Links are frozen and made of plain settings: they are compared, printed, stored and changed as
values. ``written`` is the one step from such a value to a ``Rule`` of the core, which writes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field, fields, replace
from typing import Any, ClassVar, NamedTuple, cast

import torch
from torch import Tensor

from nestlearn.memory.nesting import Consult, Consulted, Said, Scene, the_gradient
from nestlearn.memory.rules import GradientDescent, Rule
from nestlearn.memory.times import Number, Scalar, Time
from nestlearn.rules.paths import Setting, parts, replaced, resolved, settings, without
from nestlearn.rules.settings import check
from nestlearn.targets import Target

__all__ = [
    "Answer",
    "Length",
    "Link",
    "Linked",
    "as_rule",
    "called",
    "gathered",
    "gradient",
    "length_of",
    "once",
    "passed",
    "retained",
    "whole",
    "written",
]

Change = Callable[[str, "Link"], "Link | None"]
"""What becomes of a part of a rule, given its path."""


class Length(NamedTuple):
    """A number that the shape of a matrix decides, and the same in words, as an expression over u."""

    words: str
    number: float


@dataclass(frozen=True)
class Answer(Said):
    """What a link answers: a function of the scene, in words, and what the link behind it may know of it.

    Args:
        share: of an average that started at zero, the weight that its values have received by now. The answer is to be
            divided by it; a link that divides anyway does both at once, ``whole`` does it alone.
        length: Frobenius norm that it has in exact arithmetic, if the shape alone decides it.
        kept: what is kept of W, if a link before has decided that; see ``retained``.
    """

    share: Number | None = None
    length: Length | None = None
    kept: Said | None = None

    @property
    def whole(self) -> Said:
        """The answer with its division done."""
        share = self.share
        if share is None:
            return self
        return Said(self.words, lambda scene: self.function(scene) / scene.number(share))


@dataclass(frozen=True)
class Linked:
    """A link between matrices, or entries, of one shape.

    Args:
        answer: the answer, once the memories have been consulted.
        memories: what is consulted, in this order.
        numbers: what the answer needs that depends on the time alone, by names under which ``scene.scalars`` has it.
        length: Frobenius norm that the answer has in exact arithmetic, if the shape alone decides it.
        kept: what is kept of W, where the link decides that too: a number or a tensor that multiplies W. What is kept
            otherwise is ``retained(a)``.
        named: what parts with a name answer, for ``scene.answer(name)``.
        where: what names mean that the words of this link have, and those of the links behind it; see ``called``.
    """

    answer: Said
    memories: tuple[Consulted, ...] = ()
    numbers: Mapping[str, Number] = field(default_factory=dict)
    length: Length | None = None
    kept: Said | None = None
    named: Mapping[str, Said] = field(default_factory=dict)
    where: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Link(ABC):
    """One step from the gradient to the update.

    Args:
        name: of the link and of its memory in the state; None is the kind. Memories of a link that has several lie
            below its name, or without one if that is empty. A rule with two memories of one name is refused.
    """

    _: KW_ONLY
    name: str | None = None

    @property
    def on_matrices(self) -> bool:
        """Whether it acts on whole matrices; otherwise on every entry alone."""
        return False

    @property
    def smallest_side(self) -> int | None:
        """A matrix has at least this many entries on both sides, for it; None leaves that to others."""
        return None

    @property
    def outermost(self) -> bool:
        """Whether it speaks of what is kept of the weights: it is for their rule then, not for that of a memory."""
        return False

    layer_rows: ClassVar[int | None] = None
    """At most so many rows of a batch enter the covariances of what a layer sees; None takes all."""

    def __post_init__(self) -> None:
        for item in fields(self):
            check(f"{type(self).__name__}(): {item.name}", getattr(self, item.name), item.metadata)

    @property
    def label(self) -> str:
        """The name, or the kind."""
        return self.name or type(self).__name__

    def memory(self, part: str) -> str:
        """The name of one of several memories: a path."""
        return part if self.name == "" else f"{self.label}.{part}"

    @abstractmethod
    def link(self, shape: torch.Size, u: Said, a: Said) -> Linked:
        """Its memories and its answer.

        Args:
            shape: of the matrix [out, in]; of no meaning to links that act on entries.
            u: the gradient, as it is seen where the link stands.
            a: the answer of the link before, u for the first.
        """

    @property
    def reads(self) -> Mapping[str, int]:
        """What it looks at besides gradients, and every how many writes: "weights", or an observation by its name."""
        return {}

    @property
    def observed(self) -> Target | None:
        """The target whose measurement it reads."""
        return None

    def departs(self, shape: torch.Size) -> str:
        """In words, what it does otherwise for matrices of this shape than its settings say; nothing, as a rule."""
        return ""

    nested: ClassVar[tuple[str, ...]] = ()
    """Fields with links behind a memory of this one: their paths begin with its own."""

    def inner(self) -> Iterator[tuple[str, Link]]:
        """The links that it is made of, each with the name of the field that holds it."""
        for item in fields(self):
            value = getattr(self, item.name)
            for each in value if isinstance(value, tuple) else (value,):
                if isinstance(each, Link):
                    yield item.name, each

    def everything(self) -> Iterator[Link]:
        """The link itself and all inside it."""
        yield self
        for _, each in self.inner():
            yield from each.everything()

    def located(self, prefix: str = "") -> Iterator[tuple[str, Link]]:
        """Every part with its path: names from the outermost memory inwards, joined by dots."""
        path = prefix + self.label
        yield path, self
        for name, each in self.inner():
            yield from each.located(f"{path}." if name in self.nested else prefix)

    def rewritten(self, change: Change, prefix: str = "") -> Link | None:
        """The rule with ``change(path, part)`` in the place of each part, inner ones first; None takes a part away."""
        path = prefix + self.label
        new: dict[str, Any] = {}
        for name, each in self.inner():
            new[name] = each.rewritten(change, f"{path}." if name in self.nested else prefix)
        changed = {name: value for name, value in new.items() if value is not getattr(self, name)}
        return change(path, replace(self, **changed) if changed else self)

    def left(self) -> Link | None:
        """What is there when this link is taken away."""
        return None

    def spared(self) -> Mapping[str, Link]:
        """What this link is without each of the memories that it can do without, by their names in the state."""
        return {}

    def parts(self) -> dict[str, Link]:
        """Every part of the rule by its path.

        Example:
            >>> from nestlearn.rules import average, chain, orthogonal
            >>> chain(average(0.9), orthogonal()).parts()
            {'average': average(), 'orthogonal': orthogonal()}
        """
        return parts(self)

    def settings(self) -> dict[str, Setting]:
        """Every number, word and switch of the rule by its path, ``"average.retention"`` say."""
        return settings(self)

    def without(self, name: str) -> Link:
        """The rule without one of its parts: the control that shows what the part is good for. Without any it is the
        gradient.

        Args:
            name: path of the part, or of a memory that its part can do without; or the end of one if no other path ends
                like it.

        Raises:
            ValueError: no part, or more than one, is called like this.
        """
        return without(self, name) or gradient()

    def replace(self, changes: Mapping[str, object] | None = None, /, **more: object) -> Link:
        """The rule with other settings.

        Args:
            changes: path of a setting, or the end of one if no other path ends like it, -> value.
            **more: the same for names without dots.

        Raises:
            ValueError: no setting, or more than one, is called like this.
        """
        return replaced(self, {**(changes or {}), **more})

    def __repr__(self) -> str:
        """The expression that makes an equal value; settings that have their default are left out."""
        return f"{type(self).__name__}({', '.join(self._told())})"

    def _told(self) -> Iterator[str]:
        in_place = True
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name == "name":
                continue
            # The first setting is what a link is about; of the others the name says more than the place.
            in_place = in_place and value != item.default and (item is fields(self)[1] or isinstance(value, Link))
            if value != item.default:
                yield repr(value) if in_place and not item.kw_only else f"{item.name}={value!r}"
        if self.name is not None:
            yield f"name={self.name!r}"


@dataclass(frozen=True, repr=False)
class gradient(Link):
    """Answers what it is given: no memory (O1)."""

    def link(self, shape: torch.Size, u: Said, a: Said) -> Linked:
        return Linked(a)


_as_usual = Said("retention", lambda scene: torch.as_tensor(scene.retention))


def as_rule(rule: Link | Rule) -> Rule:
    """The core's rule of a link; a rule of the core is one already."""
    return written(rule) if isinstance(rule, Link) else rule


def gathered(answer: Said, *parts: Linked, length: Length | None = None) -> Linked:
    """An answer that takes all that these links, one after the other, take."""
    return Linked(
        answer,
        tuple(memory for part in parts for memory in part.memories),
        {name: number for part in parts for name, number in part.numbers.items()},
        length,
        next((part.kept for part in reversed(parts) if part.kept is not None), None),
        {name: said for part in parts for name, said in part.named.items()},
        {name: words for part in parts for name, words in part.where.items()},
    )


def passed(a: Said, *, before: Said, kept: Said | None = None, length: Length | None = None) -> Said:
    """What the next link is given: an answer, with what is known of it.

    Args:
        a: the answer.
        before: what the link was given whose answer it is: what is kept of W is kept on.
        kept, length: see ``Linked``.
    """
    kept = kept or (before.kept if isinstance(before, Answer) else None)
    if kept is None and length is None:
        return a
    share = a.share if isinstance(a, Answer) else None
    return Answer(a.words, a.function, a.where, share=share, length=length, kept=kept)


def retained(a: Said) -> Said:
    """What is kept of W, a number or a tensor that multiplies it, where a link is given the answer ``a``."""
    kept = a.kept if isinstance(a, Answer) else None
    return kept or Said("retention", lambda scene: cast(Tensor, scene.retention))


def length_of(a: Said) -> Length | None:
    """The length of an answer, if the shape alone decides it."""
    return a.length if isinstance(a, Answer) else None


def once(said: Said) -> Said:
    """The same, computed once a write however often it is asked."""
    key, function = _Key(), said.function
    return Said(said.words, lambda scene: scene.once(key, function))


def called(said: Said, name: str) -> Said:
    """The same, once a write, and said by a name, which is defined in its ``where``: for what words have several times.

    Whoever uses it hands the definition on, ``Linked(..., where=...)``. What is a name already keeps it.
    """
    short = all(part.isidentifier() for part in said.words.split("."))
    found = once(said)
    return found if short else Said(name, found.function, {name: said.words})


class _Key:
    """What is computed once is remembered under an object of its own, as torch.compile cannot look a function up."""


def whole(a: Said) -> Said:
    """An answer with nothing left to divide."""
    return a.whole if isinstance(a, Answer) else a


def written(link: Link, *, lr: Scalar = 1.0, retention: Scalar = 1.0) -> Rule:
    """The core's rule that writes a memory with what a link makes of its gradients.

    Args:
        link: the rule as a value.
        lr, retention: of the memory that is written; the adapter has its own for weights.
    """
    if resolved(link) is not link:
        raise ValueError(f"{link!r} changes as training goes on, which only an Optimizer knows: pass it to one")
    made: dict[torch.Size, Linked] = {}
    on_matrices = any(each.on_matrices for each in link.everything())

    def linked(shape: torch.Size) -> Linked:
        # What acts on entries alone is the same for every shape.
        form = torch.Size(shape[-2:]) if on_matrices else torch.Size()
        if form not in made:
            found = link.link(form, the_gradient, the_gradient)
            answer = whole(found.answer)
            if found.where:
                answer = Said(answer.words, answer.function, {**answer.where, **found.where})
            made[form] = replace(found, answer=answer)
        return made[form]

    def scalars_at(time: Time) -> Mapping[str, Scalar]:
        return {name: number(time) for name, number in some.numbers.items()}

    def keep(scene: Scene) -> Tensor:
        return (linked(scene.gradient.shape).kept or _as_usual)(scene)

    some = linked(torch.Size((2, 2)))
    answer = some.answer
    if answer is the_gradient and not some.memories and some.kept is None:
        return GradientDescent(lr=lr, retention=retention)
    return Consult(
        lr=lr,
        retention=retention,
        memories=(lambda shape: linked(shape).memories) if on_matrices else (lambda shape: some.memories),
        combine=answer
        if not on_matrices
        else Said(
            answer.words,
            lambda scene: linked(scene.gradient.shape).answer(scene),
            by_shape=lambda shape: linked(shape).answer,
        ),
        scalars_at=scalars_at,
        keep=None
        if some.kept is None
        else Said(some.kept.words, keep, by_shape=lambda shape: linked(shape).kept or _as_usual),
        named=(lambda shape: linked(shape).named) if on_matrices else (lambda shape: some.named),
    )
