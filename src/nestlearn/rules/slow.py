"""A slow box of what moves the weights, read beside it: a momentum of updates instead of gradients (O21).

What is averaged is either the answer so far or the way that the weights have gone. Both are read in two ways. With
theta for the weights that steps are taken from, S for a box of answers, and a(.) for the answer to the gradient there,

    at the weights:             theta <- theta - lr (a(theta) + w S)
    at the look-ahead point:    theta <- V - lr a(V),  V = theta - lr w S

and then S <- g S + (1 - g) a. The model holds the point at which gradients are taken, V in the second case. Written for
V that case is V <- V - lr (a + w S) with S after its write, since theta <- V - lr a is followed by V <- theta - lr w S.
So the two differ in whether the box is read before it is written or after, and nobody has to move the weights before a
backward pass and back. For displacements, S <- g S + (1 - g) (theta_new - theta_old) and V = theta + w S, it is the
same; the second case is EMA-Nesterov then (arXiv 2605.25395).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from nestlearn.memory.boxes import average_box, sum_box
from nestlearn.memory.nesting import Said, Scene
from nestlearn.memory.times import Scalar
from nestlearn.rules.link import Link, Linked, called, once, retained, whole
from nestlearn.rules.schedule import Schedule
from nestlearn.rules.settings import among, positive, share
from nestlearn.rules.words import grouped, in_words, multiple

__all__ = ["slow"]


@dataclass(frozen=True, repr=False)
class slow(Link):
    """S <- S - (1 - retention) (S - a), answers a + weight S: a slow box of answers, read beside them (O21).

    Of displacements, S averages how far the weights have gone, which contains lr and weight S itself: S grows without
    end unless weight is below one. S is then added to the weights as it is; at lr 0 nothing moves.

    Args:
        retention: the share of the box that is kept.
        weight: of the box in the answer, which gets up to 1 + weight times longer; of displacements it is below one,
            and steps get up to 1 / (1 - weight) times longer.
        of: what is averaged, "answers" or "displacements".
        ahead: True takes the gradient at the look-ahead point, which is what the model holds: S is read after its
            write. False takes it at the weights that the step starts from: S is read before.

    Example:
        >>> from nestlearn.rules import chain, muon, with_lr
        >>> chain(muon(), slow(0.99, weight=with_lr(0.6), of="displacements")).parts()["slow"].of  # EMA-Nesterov
        'displacements'
    """

    retention: float = share(0.97)
    weight: float = positive(0.3)
    of: str = among("answers", ("answers", "displacements"))
    ahead: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        ends = self.weight.span if isinstance(self.weight, Schedule) else (self.weight,)
        if self.outermost and any(not isinstance(end, Tensor) and end >= 1 for end in ends):
            raise ValueError(
                f"slow(): displacements contain weight times their own average, so weight must be below 1, got "
                f"{self.weight!r}"
            )

    @property
    def outermost(self) -> bool:
        return self.of == "displacements"

    @property
    def reads(self) -> Mapping[str, int]:
        return {"weights": 1} if self.outermost else {}

    def link(self, shape: torch.Size, u: Said, a: Said) -> Linked:
        return self._of_displacements(a) if self.outermost else self._of_answers(a)

    def _of_answers(self, a: Said) -> Linked:
        a, name, weight = once(whole(a)), self.label, self.weight
        words = f"{a.words} + {multiple(weight, name)}"
        answer = Said(words, lambda scene: torch.add(a(scene), weight * scene.answers[name]))
        return Linked(answer, (average_box(name, self.retention, a, fresh=self.ahead),))

    def _of_displacements(self, a: Said) -> Linked:
        kept, a = retained(a), called(whole(a), self.memory("given"))
        name, weight, rest = self.label, self.weight, 1 - self.retention

        def moved(scene: Scene) -> Tensor:
            # What the step moves besides weight S: the answer, and decay.
            share, step = kept(scene), scene.lr * a(scene)
            if not isinstance(share, Tensor) and share == 1:
                return -rest * step
            return rest * ((share - 1) * scene.weights - step)

        def answer(scene: Scene) -> Tensor:
            lr: Scalar = scene.lr
            if isinstance(lr, Tensor):
                return torch.where(
                    lr == 0, a(scene), a(scene) - weight * scene.answers[name] / torch.where(lr == 0, 1, lr)
                )
            return a(scene) - weight * scene.answers[name] / lr if lr else a(scene)

        way = f"{in_words(rest)} * (({kept.words} - 1) * W - lr * {grouped(a.words)})"
        words = f"where(lr != 0, {a.words} - {multiple(weight, name)} / lr, {a.words})"
        # The displacement of a step contains weight S as it was: g S + (1 - g) (weight S + the rest).
        box = sum_box(name, self.retention + rest * weight, Said(way, moved), fresh=self.ahead)
        return Linked(Said(words, answer), (box,), where=a.where)
