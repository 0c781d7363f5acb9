"""Links that decide how long an update is, row by row or against the weights (O22, O24).

Lengths are root mean squares here, of the rows of a matrix or of all of it. Where two of them are divided it makes no
difference to norms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from nestlearn.memory.boxes import average_box
from nestlearn.memory.nesting import Said, Scene
from nestlearn.rules.link import Link, Linked, called, length_of, once, retained, whole
from nestlearn.rules.settings import among, positive
from nestlearn.rules.settings import share as part_of
from nestlearn.rules.words import grouped, in_words, raised

__all__ = ["constant_norm", "floor", "radial", "row_norm"]

OF = ("matrix", "rows")
"""Whose length is meant: that of the whole matrix, or of each row."""

SMALLEST = 1e-18
"""A length below this counts as this: in single precision its square may be zero."""


@dataclass(frozen=True, repr=False)
class row_norm(Link):
    """Answers a / (sqrt(v) + eps) made as long as a was, v the average of each row's mean square: NorMuon (O24).

        v <- v - (1 - retention) (v - row_means(a^2))

    Behind ``orthogonal`` it gives the rows of an update the same say over time, which Newton-Schulz does for singular
    values alone. v is not corrected for its start: that is one factor for all rows, which the length takes out. The
    length is the Frobenius norm, that of an orthogonal matrix where the shape alone decides it (arXiv 2510.05491).

    Args:
        retention: the share of v that is kept.
        eps: added to the denominator.

    v is [out, 1] for a matrix [out, in]: 4 bytes a row.

    Example:
        >>> from nestlearn.rules import average, chain, orthogonal
        >>> chain(average(0.95), orthogonal(), row_norm())
        chain(average(0.95), orthogonal(), row_norm())
    """

    on_matrices = True

    retention: float = part_of(0.95)
    eps: float = positive(1e-8)

    def link(self, shape: torch.Size, u: Said, a: Said) -> Linked:
        known, a, name, eps = length_of(a), called(whole(a), self.memory("given")), self.label, self.eps
        squares = Said(f"row_means({raised(a.words, '2')})", lambda scene: a(scene).square().mean(-1, keepdim=True))

        def answer(scene: Scene) -> Tensor:
            given = a(scene)
            divided = given / scene.answers[name].sqrt().add_(eps)
            length = torch.linalg.matrix_norm(given, keepdim=True) if known is None else known.number
            factor: Tensor = length / torch.linalg.matrix_norm(divided, keepdim=True).clamp_min(1e-30)
            return divided * factor

        words = f"{grouped(a.words)} / (sqrt({name}) + {in_words(eps)})"
        words = f"as_long_as({words}, {(known or a).words})"
        box = average_box(name, self.retention, squares, shape=(shape[-2], 1))
        return Linked(Said(words, answer), (box,), length=known, where=a.where)


@dataclass(frozen=True, repr=False)
class AgainstWeights(Link):
    """Base of links that compare a with the weights."""

    on_matrices = True

    @property
    def reads(self) -> Mapping[str, int]:
        return {"weights": 1}


@dataclass(frozen=True, repr=False)
class floor(AgainstWeights):
    """Answers a, made longer where it is less than ``share`` times as long as the weights (O22).

        a_i <- a_i max(1, share ||W_i|| / ||a_i||)        for every row i, or for the whole matrix

    So a step changes a row by lr share of its length at least, however small its gradient is. A row of zeros has no
    direction and stays, as does any row whose weights are zero. What is compared is the update before lr.

    Args:
        share: of the length of the weights.
        of: "rows", or "matrix".
    """

    share: float = positive(0.35)
    of: str = among("rows", OF)

    def link(self, shape: torch.Size, u: Said, a: Said) -> Linked:
        a, least = called(whole(a), self.memory("given")), self.share
        own, weights = size(a, self.of), size(the_weights, self.of)

        def answer(scene: Scene) -> Tensor:
            ratio = least * weights(scene) / own(scene).clamp_min_(SMALLEST)
            return a(scene) * ratio.clamp_min_(1)

        factor = f"max(1, {in_words(least)} * {weights.words} / max({own.words}, {in_words(SMALLEST)}))"
        return Linked(Said(f"{grouped(a.words)} * {factor}", answer), where=a.where)


@dataclass(frozen=True, repr=False)
class radial(AgainstWeights):
    """Answers a with ``share`` of its outward part: the part along W that makes W longer (O22, a radial brake).

        c = <a, W> / <W, W>,   a <- a - (1 - share) min(c, 0) W

    An answer points uphill, so it is where c is negative that a step goes outwards. Steps that shorten W are left as
    they are, and so is everything across W. A share of 0 lets W grow by what lies across it alone, as in AdamP (arXiv
    2006.08217).

    Args:
        share: of the outward part that is left.
        of: "matrix", or "rows", each against its own weights.
    """

    share: float = part_of(0.5)
    of: str = among("matrix", OF)

    def link(self, shape: torch.Size, u: Said, a: Said) -> Linked:
        a, left, whose = called(whole(a), self.memory("given")), self.share, self.of
        product = mean_of(Said(f"{grouped(a.words)} * W", lambda scene: a(scene) * scene.weights), whose)
        square = mean_of(Said("W^2", lambda scene: scene.weights.square()), whose)

        def answer(scene: Scene) -> Tensor:
            length = square(scene)
            outwards = (product(scene) / torch.where(length > 0, length, 1)).clamp_max_(0)
            return torch.addcmul(a(scene), outwards.mul_(left - 1), scene.weights)

        along = f"min({product.words} / or_one({square.words}), 0)"
        return Linked(Said(f"{a.words} - {in_words(1 - left)} * {along} * W", answer), where=a.where)


@dataclass(frozen=True, repr=False)
class constant_norm(AgainstWeights):
    """Turns W and leaves it as long as it is: lr is the length of a step relative to that of W (O22, a hyperball).

        V = retention W - lr ||W|| a / ||a||,   W <- ||W|| V / ||V||

    W is written by the core's one line: the link answers ||W|| / ||a|| a times ||W|| / ||V||, and keeps
    retention ||W|| / ||V|| of W. Nothing is remembered: the norm is that of W at each write. So weight decay only makes
    a step turn W further. A matrix of zeros (or a row) has no norm to keep, and takes the plain step: the norm that it
    has then is kept from there on.

    Args:
        of: "matrix" for the Frobenius norm, or "rows" for the norm of each row.
    """

    outermost = True

    of: str = among("matrix", OF)

    def link(self, shape: torch.Size, u: Said, a: Said) -> Linked:
        before, a = retained(a), called(whole(a), self.memory("given"))
        own, weights = size(a, self.of), called(size(the_weights, self.of), self.memory("norm"))
        there, least = f"{weights.words} > 0", in_words(SMALLEST)
        step = called(
            Said(
                f"{grouped(a.words)} * where({there}, {weights.words} / max({own.words}, {least}), 1)",
                lambda scene: a(scene) * _ratio(weights(scene), own(scene).clamp_min_(SMALLEST)),
            ),
            self.memory("step"),
        )
        turned = Said(
            f"{grouped(before.words)} * W - lr * {step.words}",
            lambda scene: before(scene) * scene.weights - scene.lr * step(scene),
        )
        after = size(turned, self.of)
        back = called(
            Said(
                f"where({there}, {weights.words} / or_one({after.words}), 1)",
                lambda scene: _ratio(weights(scene), after(scene)),
            ),
            self.memory("back"),
        )
        return Linked(
            Said(f"{back.words} * {step.words}", lambda scene: back(scene) * step(scene)),
            kept=once(Said(f"{grouped(before.words)} * {back.words}", lambda scene: before(scene) * back(scene))),
            where={**a.where, **weights.where, **step.where, **back.where},
        )


the_weights = Said("W", lambda scene: scene.weights)
"""What is compared with."""


def mean_of(said: Said, of: str) -> Said:
    """The mean of all entries of a matrix [*B, 1, 1], or of those of each row [*B, out, 1]."""
    if of == "rows":
        return Said(f"row_means({said.words})", lambda scene: said(scene).mean(-1, keepdim=True))
    return Said(f"column_means(row_means({said.words}))", lambda scene: said(scene).mean((-2, -1), keepdim=True))


def size(said: Said, of: str) -> Said:
    """The root mean square of a matrix [*B, 1, 1], or of each row [*B, out, 1]."""
    squares = mean_of(Said(raised(said.words, "2"), lambda scene: said(scene).square()), of)

    def function(scene: Scene) -> Tensor:
        matrix = said(scene)
        dims, count = ((-1,), matrix.shape[-1]) if of == "rows" else ((-2, -1), matrix.shape[-2] * matrix.shape[-1])
        found: Tensor = torch.linalg.vector_norm(matrix, dim=dims, keepdim=True) / count**0.5
        return found

    return Said(f"sqrt({squares.words})", function)


def _ratio(weights: Tensor, other: Tensor) -> Tensor:
    """weights / other where there are weights and something to divide by, else 1."""
    return torch.where((weights > 0) & (other > 0), weights / other, torch.ones_like(weights))
