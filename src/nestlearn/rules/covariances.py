"""Covariances of the two sides of a matrix, in boxes, and the regression on one of them (O15, O20)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from nestlearn.memory.boxes import average_box
from nestlearn.memory.nesting import Consulted, Said, Scene
from nestlearn.memory.rules import solve_ridge
from nestlearn.ops.products import gram
from nestlearn.ops.whitening import cholesky_whitener
from nestlearn.rules.link import Link, Linked, whole
from nestlearn.rules.settings import among, count, positive, share
from nestlearn.rules.words import grouped, in_words, raised

__all__ = ["SIDES", "Covariances", "regress", "sizes"]

SIDES = {"both": ("inputs", "errors"), "errors": ("errors",), "inputs": ("inputs",)}
"""The sides of a matrix [out, in]: "inputs" stands for its rows of length in, "errors" for its columns."""


def sizes(shape: torch.Size) -> dict[str, int]:
    """How many entries each side of a matrix [out, in] has."""
    return {"inputs": shape[-1], "errors": shape[-2]}


@dataclass(frozen=True)
class Covariances:
    """How the covariances of the two sides of a matrix are remembered, and read.

    Args:
        names: of the boxes, by side.
        watched: whether what a layer sees is observed; else rows and columns of the gradient stand for it.
        retention: of the boxes.
        period: every how many writes they are shown a covariance.
        refresh: every how many writes the read-out is computed.
        readout: what is made of an average; kept until the next one.
        even: each covariance is scaled to a mean diagonal of one, so that all writes count alike.
        across: damping of the other side's covariance, through whose inverse the gradient's rows or columns are seen
            (the KL form); None sees them as they are.
    """

    names: Mapping[str, str]
    watched: bool
    retention: float
    period: int
    refresh: int = 1
    readout: Said | None = None
    even: bool = True
    across: float | None = None

    def boxes(self, shape: torch.Size, u: Said) -> tuple[Consulted, ...]:
        """Boxes [in, in] and [out, out] that average covariances."""
        return tuple(self._box(side, sizes(shape)[side], u) for side in self.names)

    def _box(self, side: str, size: int, u: Said) -> Consulted:
        found = self._covariance(side, u)
        value = found if not self.even else Said(f"mean_one({found.words})", lambda scene: _mean_one(found(scene)))
        kept = Said(f"identity({'u' if side == 'inputs' else 'u^T'})", lambda gradient: _identity(gradient, size))
        return average_box(
            self.names[side],
            self.retention,
            value,
            shape=(size, size),
            readout=self.readout,
            every=self.period,
            refresh=self.refresh,
            keep_answer=None if self.readout is None else kept,
        )

    def _covariance(self, side: str, u: Said) -> Said:
        if self.watched:
            return Said(f"seen_{side}", lambda scene: scene.observations[side])
        seen = u if self.across is None or len(self.names) < 2 else self._across(side, u)
        words = grouped(seen.words)
        if side == "inputs":
            return Said(f"{raised(seen.words, 'T')} @ {words}", lambda scene: gram(seen(scene).mT))
        return Said(f"{words} @ {raised(seen.words, 'T')}", lambda scene: gram(seen(scene)))

    def _across(self, side: str, u: Said) -> Said:
        """u, whitened on the side that is not asked for: u^T L^-1 u is (Z u)^T (Z u) with Z L Z^T = I."""
        damping = self.across or 0.0
        other = self.names["errors" if side == "inputs" else "inputs"]
        whitener = f"whitener(held_{other}, {in_words(damping)})"

        def seen(scene: Scene) -> Tensor:
            factor = cholesky_whitener(scene.held(other), damping)
            return factor @ u(scene) if side == "inputs" else u(scene) @ factor.mT

        words = grouped(u.words)
        return Said(f"{whitener} @ {words}" if side == "inputs" else f"{words} @ {whitener}^T", seen)


def _mean_one(covariance: Tensor) -> Tensor:
    """A over the mean of its diagonal; nothing where that is so small that products are lost in it.

    A network that has its training set by heart has gradients whose squares are no normal numbers: what is left of them
    by rounding is no covariance, and would be blown up to the size of one.
    """
    mean = covariance.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    numbers = torch.finfo(covariance.dtype)
    return covariance / mean.masked_fill(mean <= numbers.tiny / numbers.eps, math.inf)


def _identity(gradient: Tensor, size: int) -> Tensor:
    eye = torch.eye(size, dtype=gradient.dtype, device=gradient.device)
    return eye.expand(*gradient.shape[:-2], size, size).clone()


@dataclass(frozen=True, repr=False)
class regress(Link):
    """Answers a (A + damping I)^-1, A the covariance of the layer's inputs: the least-squares optimum itself (O15).

    Args:
        retention: the share of A that is kept.
        damping: ridge of A, relative to its mean diagonal.
        period: A is shown a covariance every so many writes.
        of: as in ``whiten``.
    """

    on_matrices = True

    retention: float = share(0.95)
    damping: float = positive(0.1)
    period: int = count(1)
    of: str = among("layers", ("gradient", "layers"))

    @property
    def smallest_side(self) -> int | None:
        return 1 if self.of == "layers" else None

    @property
    def reads(self) -> Mapping[str, int]:
        return {"inputs": self.period} if self.of == "layers" else {}

    def link(self, shape: torch.Size, u: Said, a: Said) -> Linked:
        a, damping, inputs = whole(a), self.damping, self.memory("inputs")
        memories = Covariances({"inputs": inputs}, self.of == "layers", self.retention, self.period).boxes(shape, u)
        words = f"ridge({a.words}, {inputs}, {in_words(damping)})"
        return Linked(Said(words, lambda scene: solve_ridge(scene.answers[inputs], a(scene), damping)), memories)
