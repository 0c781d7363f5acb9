"""Adam with two deep memories: the momentum and the second moment both learn (O8, [S] 5.4)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nestlearn.memory.boxes import average_box, bias_corrected, sum_box
from nestlearn.memory.nesting import Consulted, Said, Scene
from nestlearn.memory.objectives import l2
from nestlearn.rules.boxes import average, second_moment
from nestlearn.rules.combine import chain
from nestlearn.rules.link import Link, Linked
from nestlearn.rules.rows import RowLink, rows_of
from nestlearn.rules.settings import positive, share
from nestlearn.rules.shape import as_rows, from_rows
from nestlearn.rules.words import grouped, in_words, raised

__all__ = ["deep_adam"]

FLOOR = 0.1
"""V's answer never falls below this share of the box v, which keeps it positive."""

CEILING = 10.0
"""Relative errors u^2 / v above this are shown to V as this: squares have heavy tails."""


@dataclass(frozen=True, repr=False)
class deep_adam(RowLink):
    """Answers M(u) / (sqrt(V(u)) + eps), both M and V boxes with an MLP on top, side by side on one level (O8).

        M(u) = m + sqrt(v) * MLP_M(u),   V(u) = v * max(1 + MLP_V(u), 0.1)

    m and v are Adam's boxes, the skip paths on which the MLPs (zero at the start) put what the boxes cannot know:
    after seeing u_{t-1}, what will u_t be? Both are written by l2 regression on such pairs: MLP_M towards u_t - m,
    MLP_V towards u_t^2 / v - 1. Keys are rows of the gradient.

    Args:
        hidden: hidden units of each MLP.
        inner_lr: learning rate of both.
        retention: share of their weights that a write keeps.
        model: "mlp", "matrix" for linear maps, or a ``nestlearn.memory.Model`` from rows to rows.
        written_by: the rule that writes both; None is gradient descent.
        first, second: retention of the boxes m and v.
        eps: added to the denominator.
    """

    first: float = share(0.9, below_one=True)
    second: float = share(0.999, below_one=True)
    eps: float = positive(1e-8)

    def left(self) -> Link:
        """Without the MLPs it is Adam, its boxes under the names that they had."""
        m = average(self.first, corrected=True, name=self.memory("m"))
        return chain(m, second_moment(self.second, self.eps, name=self.memory("v")))

    def link(self, shape: torch.Size, u: Said, a: Said) -> Linked:
        # Rows of d entries of mean square one have length sqrt(d): memories deal in rows of unit length.
        length, length_is = min(shape[-2:]) ** 0.5, "sqrt(min(rows(u), columns(u)))"
        said = grouped(u.words)
        m, v, previous, momentum, second_moment = map(self.memory, ("m", "v", "previous", "momentum", "second_moment"))

        def deviation(scene: Scene) -> Tensor:
            return as_rows((u(scene) - scene.answers[m]) / _positive(scene.answers[v]).sqrt()).div(length)

        deviates = Said(f"as_rows(({said} - {m}) / sqrt(or_one({v}))) / {length_is}", deviation)
        square = Said(raised(u.words, "2"), lambda scene: u(scene).square())

        def relative_square(scene: Scene) -> Tensor:
            ratio = u(scene).square() / _positive(scene.answers[v])
            return as_rows(ratio.clamp_max(CEILING).sub_(1)).div(length)

        relative = Said(f"as_rows(min({square.words} / or_one({v}), {CEILING:g}) - 1) / {length_is}", relative_square)

        def answer(scene: Scene) -> Tensor:
            answers, form = scene.answers, u(scene).shape
            # Counted in sqrt(v), a correction of an entry that has never had a gradient is zero.
            first = from_rows(answers[momentum], form) * answers[v].sqrt() + answers[m]
            rest = from_rows(answers[second_moment], form).add_(1).clamp_min_(FLOOR)
            return first / ((answers[v] * rest).sqrt() + self.eps)

        first_is = f"{m} + sqrt({v}) * as_matrix({momentum}, u)"
        second_is = f"{v} * max(1 + as_matrix({second_moment}, u), {FLOOR:g})"
        words = f"({first_is}) / (sqrt({second_is}) + {in_words(self.eps)})"
        memories = (
            average_box(m, self.first, u, readout=bias_corrected(self.first)),
            average_box(v, self.second, square, readout=bias_corrected(self.second)),
            sum_box(previous, 0.0, u, fresh=False),
            self._learned(momentum, length, shape, u, deviates),
            self._learned(second_moment, length, shape, u, relative),
        )
        return Linked(Said(words, answer), memories)

    def _learned(self, name: str, length: float, shape: torch.Size, u: Said, value: Said) -> Consulted:
        return Consulted(
            name,
            self.rows_memory(min(shape[-2:]), l2),
            key=rows_of(Said(self.memory("previous"), lambda scene: scene.answers[self.memory("previous")])),
            value=value,
            query=rows_of(u),
            readout=Said("sqrt(columns(M)) * M", lambda answer, scene: answer * length),
            track=True,
        )


def _positive(moment: Tensor) -> Tensor:
    """A second moment to divide by: where it is zero, so is what is divided."""
    return torch.where(moment > 0, moment, torch.ones_like(moment))
