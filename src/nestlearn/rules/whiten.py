"""Bases of covariances: what a matrix is seen in, so that directions that come often weigh less (O15)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from nestlearn.memory.boxes import average_box
from nestlearn.memory.nesting import Consulted, Said, Scene
from nestlearn.memory.rules import solve_ridge
from nestlearn.ops.whitening import cholesky_whitener, symmetric_power
from nestlearn.rules.combine import Bases, Basis
from nestlearn.rules.link import Link, Linked, whole
from nestlearn.rules.settings import among, count, positive, share
from nestlearn.rules.words import grouped, in_words, raised

__all__ = ["Covariances", "regress", "whiten"]

KINDS = ("cholesky", "root")
SIDES = {"both": ("inputs", "errors"), "errors": ("errors",), "inputs": ("inputs",)}
"""The sides of a matrix [out, in]: "inputs" stands for its rows of length in, "errors" for its columns."""


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
    """

    names: Mapping[str, str]
    watched: bool
    retention: float
    period: int
    refresh: int = 1
    readout: Said | None = None

    def boxes(self, shape: torch.Size, u: Said) -> tuple[Consulted, ...]:
        """Boxes [in, in] and [out, out] that average covariances, each scaled to a mean diagonal of one."""
        sizes = {"inputs": shape[-1], "errors": shape[-2]}
        return tuple(self._box(side, name, sizes[side], u) for side, name in self.names.items())

    def _box(self, side: str, name: str, size: int, u: Said) -> Consulted:
        def covariance(scene: Scene) -> Tensor:
            if self.watched:
                return scene.observations[side]
            rows = u(scene) if side == "inputs" else u(scene).mT
            return rows.mT @ rows

        def value(scene: Scene) -> Tensor:
            found = covariance(scene)
            mean = found.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
            return found / torch.where(mean > 0, mean, torch.ones_like(mean))

        def identity(gradient: Tensor) -> Tensor:
            eye = torch.eye(size, dtype=gradient.dtype, device=gradient.device)
            return eye.expand(*gradient.shape[:-2], size, size).clone()

        rows = grouped(u.words)
        unseen = {"inputs": f"{raised(u.words, 'T')} @ {rows}", "errors": f"{rows} @ {raised(u.words, 'T')}"}
        covariance_is = f"seen_{side}" if self.watched else unseen[side]
        kept = Said(f"identity({'u' if side == 'inputs' else 'u^T'})", identity)
        return average_box(
            name,
            self.retention,
            Said(f"mean_one({covariance_is})", value),
            shape=(size, size),
            readout=self.readout,
            every=self.period,
            refresh=self.refresh,
            keep_answer=None if self.readout is None else kept,
        )


@dataclass(frozen=True, repr=False)
class whiten(Basis):
    """a -> Z_B a Z_A^T, Z_A and Z_B read from the covariances A and B of two sides: two boxes, a basis (O15, O20).

    With Newton-Schulz inside, ``within(whiten(), orthogonal())`` is steepest descent in the norm of the covariances,
    Z_B^T NS(Z_B a Z_A^T) Z_A.

    Args:
        kind: "cholesky" for a triangular Z with Z A Z^T = I, which is as good as any other under an exact Newton-Schulz
            and the cheapest; "root" for the symmetric Z = A^power, which trusts the covariances as far as it says.
        retention: the share of A and B that is kept.
        power: of "root": -1/2 whitens, -1/4 half-way.
        damping: ridge of A and B, relative to their mean diagonal.
        period: A and B are shown a covariance every so many writes.
        refresh: Z is read from them every so many writes, and kept in between.
        side: "both", "inputs" for A alone, or "errors" for B alone.
        of: "layers" for what the layer sees (inputs and error signals, which need model=), or "gradient" for u^T u and
            u u^T.

    Example:
        >>> whiten("root", retention=0.97, refresh=5)
        whiten('root', 0.97, refresh=5)
    """

    on_matrices = True

    kind: str = among("cholesky", KINDS)
    retention: float = share(0.95)
    power: float = -0.25
    damping: float = positive(0.1)
    period: int = count(1)
    refresh: int = count(1)
    side: str = among("both", SIDES)
    of: str = among("gradient", ("gradient", "layers"))

    @property
    def smallest_side(self) -> int | None:  # type: ignore[override]
        return 1 if self.of == "layers" else None

    @property
    def reads(self) -> Mapping[str, int]:
        return dict.fromkeys(SIDES[self.side], self.period) if self.of == "layers" else {}

    def _readout(self) -> Said:
        if self.kind == "root":
            words = f"symmetric_power(M, {in_words(self.power)}, {in_words(self.damping)})"
            return Said(words, lambda covariance, scene: symmetric_power(covariance, self.power, self.damping))
        words = f"whitener(M, {in_words(self.damping)})"
        return Said(words, lambda covariance, scene: cholesky_whitener(covariance, self.damping))

    def basis(self, shape: torch.Size, u: Said) -> Bases:
        names = {side: self.memory(side) for side in SIDES[self.side]}
        inputs, errors = names.get("inputs"), names.get("errors")
        covariances = Covariances(
            names, self.of == "layers", self.retention, self.period, self.refresh, self._readout()
        )

        def into(a: Said) -> Said:
            def answer(scene: Scene) -> Tensor:
                matrix = a(scene)
                matrix = matrix if inputs is None else matrix @ scene.answers[inputs].mT
                return matrix if errors is None else scene.answers[errors] @ matrix

            return Said(_around(errors, grouped(a.words), f"{inputs}^T" if inputs else None), answer)

        def back(a: Said) -> Said:
            def answer(scene: Scene) -> Tensor:
                matrix = a(scene) if errors is None else scene.answers[errors].mT @ a(scene)
                return matrix if inputs is None else matrix @ scene.answers[inputs]

            return Said(_around(f"{errors}^T" if errors else None, grouped(a.words), inputs), answer)

        return Bases(covariances.boxes(shape, u), into, back)


def _around(*factors: str | None) -> str:
    """A product of matrices in words."""
    return " @ ".join(factor for factor in factors if factor is not None)


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
    def smallest_side(self) -> int | None:  # type: ignore[override]
        return 1 if self.of == "layers" else None

    @property
    def reads(self) -> Mapping[str, int]:
        return {"inputs": self.period} if self.of == "layers" else {}

    def link(self, shape: torch.Size, u: Said, a: Said) -> Linked:
        a, damping, inputs = whole(a), self.damping, self.memory("inputs")
        memories = Covariances({"inputs": inputs}, self.of == "layers", self.retention, self.period).boxes(shape, u)
        words = f"ridge({a.words}, {inputs}, {in_words(damping)})"
        return Linked(Said(words, lambda scene: solve_ridge(scene.answers[inputs], a(scene), damping)), memories)
