"""Rules that write at a pace of their own: seldom with what has come since, or from how far the weights have moved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nestlearn.memory.associative import AssociativeMemory
from nestlearn.memory.boxes import sum_box
from nestlearn.memory.models import Constant
from nestlearn.memory.nesting import Consulted, Said, Scene
from nestlearn.memory.objectives import hypergradient
from nestlearn.memory.times import happens_at
from nestlearn.rules.link import Link, Linked, gradient, once, whole, written
from nestlearn.rules.settings import count
from nestlearn.rules.words import grouped

__all__ = ["Paced", "every", "outer"]


@dataclass(frozen=True, repr=False)
class Paced(Link):
    """Base of links with a rule that writes once in so many writes.

    Args:
        writes: how many.
        rule: what is written at the last of them; its clock counts its own writes.
    """

    nested = ("rule",)

    writes: int = count(1)
    rule: Link = gradient()  # noqa: RUF009 - frozen, like the dataclass itself

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.rule, Link):
            raise TypeError(f"{type(self).__name__}(): rule must be a rule such as average(...), got {self.rule!r}")
        for link in self.rule.everything():
            if "weights" in link.reads:
                raise ValueError(
                    f"{type(self).__name__}(): {link!r} reads the weights, which a rule inside does not see"
                )

    @property
    def on_matrices(self) -> bool:  # type: ignore[override]
        return any(link.on_matrices for link in self.rule.everything())

    def rewritten(self, change: Any, prefix: str = "") -> Link | None:
        rule = self.rule.rewritten(change, f"{prefix}{self.label}.")
        return None if rule is None else change(prefix + self.label, type(self)(self.writes, rule, name=self.name))

    def seldom(self, value: Said) -> Consulted:
        """A box that holds the latest answer of the rule, which is written with the sum of the values since."""
        # The slope of <M, v> is v; retention 0 and lr -1 leave nothing but the rule's answer in the box.
        rule = written(self.rule, lr=-1.0, retention=0.0)
        return Consulted(self.label, AssociativeMemory(Constant(), hypergradient, rule, self.writes), value=value)


@dataclass(frozen=True, repr=False)
class every(Paced):
    """Answers what ``rule`` made of the sum of the last ``writes`` answers, and the same until the next time (O14).

    Args:
        writes: how many writes are summed.
        rule: what is written with the sum.

    Example:
        >>> from nestlearn.rules import average, orthogonal, chain
        >>> every(10, chain(average(0.5), orthogonal()))
        every(10, chain(average(0.5), orthogonal()))
    """

    def link(self, shape: torch.Size, u: Said, a: Said) -> Linked:
        return Linked(Said(self.label, lambda scene: scene.answers[self.label]), (self.seldom(whole(a)),))


@dataclass(frozen=True, repr=False)
class outer(Paced):
    """An outer level: every ``writes`` writes, how far the weights have moved is the gradient of another rule (O23).

        W <- W_old - rule(W_old - W)      with W as the steps since W_old have left it

    ``gradient()`` changes nothing, ``sum(0.9, nesterov=True)`` is one worker's outer momentum. The way is measured in
    weights, so it contains the learning rate. The weights at the start of a period are kept: one more matrix of state.

    Args:
        writes: steps between two writes of the outer rule.
        rule: what makes the outer step of the displacement, which points uphill as gradients do.
    """

    @property
    def reads(self) -> Mapping[str, int]:
        return {"weights": 1}

    def link(self, shape: torch.Size, u: Said, a: Said) -> Linked:
        a, start, writes = once(whole(a)), f"{self.label}.start", self.writes
        due_is = f"t % {writes} == 0"

        def due(scene: Scene) -> bool:
            return happens_at(scene.time, lambda time: (time + 1) % writes == 0)

        def moved(scene: Scene) -> Tensor:
            if not due(scene):
                return torch.zeros_like(scene.gradient)
            return scene.answers[start] - scene.weights + scene.lr * a(scene)

        def answer(scene: Scene) -> Tensor:
            if not due(scene):
                return a(scene)
            # The weights are written once, with lr: what is asked for is the way to where they should be.
            way = scene.weights - scene.answers[start] + scene.answers[f"{self.label}.step"]
            if isinstance(scene.lr, Tensor):
                return torch.where(scene.lr == 0, a(scene), way / torch.where(scene.lr == 0, 1, scene.lr))
            return way / scene.lr if scene.lr else a(scene)

        anchor = sum_box(start, 0.0, Said("W", lambda scene: scene.weights), every=writes)
        step = self.seldom(Said(f"({due_is}) * ({start} - W + lr * {grouped(a.words)})", moved))
        words = f"where({due_is} and lr != 0, (W - {start} + {self.label}.step) / lr, {a.words})"
        return Linked(Said(words, answer), (anchor, Consulted(f"{self.label}.step", step.memory, value=step.value)))
