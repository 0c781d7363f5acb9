"""Bases of covariances: what a matrix is seen in, so that directions that come often weigh less (O15)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from nestlearn.memory.boxes import average_box
from nestlearn.memory.nesting import Consulted, Said, Scene
from nestlearn.memory.rules import solve_ridge
from nestlearn.ops.matrix import cholesky_whitener
from nestlearn.rules.combine import Bases, Basis
from nestlearn.rules.link import Link, Linked, whole
from nestlearn.rules.settings import among, count, positive, share
from nestlearn.rules.words import grouped, in_words, raised

__all__ = ["covariance_boxes", "regress", "whiten"]

SIDES = ("both", "inputs")


def covariance_boxes(
    shape: torch.Size,
    u: Said,
    names: Mapping[str, str],
    *,
    watched: bool,
    retention: float,
    refresh: int,
    readout: Said | None = None,
) -> tuple[Consulted, ...]:
    """Boxes "inputs" [in, in] and "errors" [out, out] that average covariances, each scaled to mean diagonal one.

    Args:
        shape: [out, in].
        u: the gradient, whose rows and columns stand for inputs and errors if the layer is not ``watched``.
        names: which of the two, and what they are called.
        watched: whether what the layer sees is observed.
        retention: of the boxes.
        refresh: every how many writes they are shown a covariance, and read anew.
        readout: what is made of the average; kept until the next one.
    """
    sizes = {"inputs": shape[-1], "errors": shape[-2]}
    return tuple(
        _covariance_box(side, name, sizes[side], u, watched, retention, refresh, readout)
        for side, name in names.items()
    )


def _covariance_box(
    side: str, name: str, size: int, u: Said, watched: bool, retention: float, refresh: int, readout: Said | None
) -> Consulted:
    def covariance(scene: Scene) -> Tensor:
        if watched:
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
    covariance_is = f"seen_{side}" if watched else unseen[side]
    return average_box(
        name,
        retention,
        Said(f"mean_one({covariance_is})", value),
        shape=(size, size),
        readout=readout,
        every=refresh,
        keep_answer=None if readout is None else Said(f"identity({'u' if side == 'inputs' else 'u^T'})", identity),
    )


@dataclass(frozen=True, repr=False)
class whiten(Basis):
    """a -> Z_B a Z_A^T with Z A Z^T = I for the covariances A and B of two sides: two boxes behind a basis (O15).

    With Newton-Schulz inside, ``within(whiten(), orthogonal())`` is the steepest descent step in the norm that the data
    of the layer define, Z_B^T NS(Z_B a Z_A^T) Z_A; any Z gives the same, so a triangular one is taken.

    Args:
        retention: the share of A and B that is kept.
        damping: ridge of A and B, relative to their mean diagonal.
        sides: "both", or "inputs" for A alone.
        refresh: A, B and their factors are renewed every so many writes.
        of: "layers" for what the layer sees (inputs and error signals, which need model=), or "gradient" for u^T u and
            u u^T.
    """

    on_matrices = True

    retention: float = share(0.95)
    damping: float = positive(0.1)
    sides: str = among("both", SIDES)
    refresh: int = count(5)
    of: str = among("gradient", ("gradient", "layers"))

    @property
    def smallest_side(self) -> int | None:  # type: ignore[override]
        return 1 if self.of == "layers" else None

    @property
    def reads(self) -> Mapping[str, int]:
        seen = ("inputs", "errors") if self.sides == "both" else ("inputs",)
        return dict.fromkeys(seen, self.refresh) if self.of == "layers" else {}

    def basis(self, shape: torch.Size, u: Said) -> Bases:
        both = self.sides == "both"
        names = {side: self.memory(side) for side in (("inputs", "errors") if both else ("inputs",))}
        inputs, errors = self.memory("inputs"), self.memory("errors")
        readout = Said(
            f"whitener(M, {in_words(self.damping)})",
            lambda covariance, scene: cholesky_whitener(covariance, self.damping),
        )
        memories = covariance_boxes(
            shape,
            u,
            names,
            watched=self.of == "layers",
            retention=self.retention,
            refresh=self.refresh,
            readout=readout,
        )

        def into(a: Said) -> Said:
            def answer(scene: Scene) -> Tensor:
                matrix = a(scene) @ scene.answers[inputs].mT
                return scene.answers[errors] @ matrix if both else matrix

            words = f"{grouped(a.words)} @ {inputs}^T"
            return Said(f"{errors} @ {words}" if both else words, answer)

        def back(a: Said) -> Said:
            def answer(scene: Scene) -> Tensor:
                matrix = scene.answers[errors].mT @ a(scene) if both else a(scene)
                return matrix @ scene.answers[inputs]

            words = f"{grouped(a.words)} @ {inputs}"
            return Said(f"{errors}^T @ {words}" if both else words, answer)

        return Bases(memories, into, back)


@dataclass(frozen=True, repr=False)
class regress(Link):
    """Answers a (A + damping I)^-1, A the covariance of the layer's inputs: the least-squares optimum itself (O15).

    Args:
        retention: the share of A that is kept.
        damping: ridge of A, relative to its mean diagonal.
        refresh: A is renewed every so many writes.
        of: as in ``whiten``.
    """

    on_matrices = True

    retention: float = share(0.95)
    damping: float = positive(0.1)
    refresh: int = count(5)
    of: str = among("layers", ("gradient", "layers"))

    @property
    def smallest_side(self) -> int | None:  # type: ignore[override]
        return 1 if self.of == "layers" else None

    @property
    def reads(self) -> Mapping[str, int]:
        return {"inputs": self.refresh} if self.of == "layers" else {}

    def link(self, shape: torch.Size, u: Said, a: Said) -> Linked:
        a, damping, inputs = whole(a), self.damping, self.memory("inputs")
        memories = covariance_boxes(
            shape, u, {"inputs": inputs}, watched=self.of == "layers", retention=self.retention, refresh=self.refresh
        )
        words = f"ridge({a.words}, {inputs}, {in_words(damping)})"
        return Linked(Said(words, lambda scene: solve_ridge(scene.answers[inputs], a(scene), damping)), memories)
