"""P from Kronecker factors of the gradient's second moment: Shampoo (O9, [NL] 106-111; arXiv 1802.09568)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from nestlearn.memory.associative import AssociativeMemory
from nestlearn.memory.models import Matrix
from nestlearn.memory.nesting import Consulted, Said, Scene
from nestlearn.memory.objectives import dot_product
from nestlearn.memory.rules import GradientDescent, in_words
from nestlearn.ops.whitening import inverse_root
from nestlearn.targets.target import Target

__all__ = ["Kronecker"]


@dataclass(frozen=True)
class Kronecker(Target):
    """P = L^-1/4 u R^-1/4, with L and R the running averages of u u^T and u^T u (O9).

    Each factor is a Hebbian memory: keys and values are both the columns (L) or the rows (R) of the gradient.
    ``period`` is how often the factors and their roots are renewed; the roots are what costs.

    Args:
        retention: of both factors.
        damping: relative ridge of the inverse roots.
    """

    name: ClassVar[str] = "kronecker"
    retention: float = 0.95
    damping: float = 1e-6

    elementwise = False

    def memories(self, shape: torch.Size) -> tuple[Consulted, ...]:
        return (
            self._factor("left", shape[-2], Said("u^T", lambda scene: scene.gradient.mT)),
            self._factor("right", shape[-1], Said("u", lambda scene: scene.gradient)),
        )

    def _factor(self, name: str, size: int, rows: Said) -> Consulted:
        def identity(gradient: Tensor) -> Tensor:
            return torch.eye(size, dtype=gradient.dtype, device=gradient.device).expand(
                *gradient.shape[:-2], size, size
            )

        return Consulted(
            name,
            AssociativeMemory(
                Matrix(size, size), dot_product, GradientDescent(lr=1 - self.retention, retention=self.retention)
            ),
            key=rows,
            value=rows,
            # Asked for every unit vector, a linear memory answers with its whole (symmetric) matrix.
            query=Said(f"identity({rows.words})", lambda scene: identity(scene.gradient)),
            readout=Said(
                f"inverse_root(M, 4, {in_words(self.damping)})",
                lambda factor, scene: inverse_root(factor, 4, self.damping),
            ),
            every=self.period,
            keep_answer=Said(f"identity({rows.words})", lambda gradient: identity(gradient).clone()),
        )

    words: ClassVar[str] = "left @ u @ right"

    def __call__(self, scene: Scene) -> Tensor:
        return scene.answers["left"] @ scene.gradient @ scene.answers["right"]
