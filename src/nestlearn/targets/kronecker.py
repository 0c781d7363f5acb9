"""P from Kronecker factors of the gradient's second moment: Shampoo (O9, [NL] 106-111; arXiv 1802.09568)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from nestlearn.memory.associative import AssociativeMemory
from nestlearn.memory.models import Matrix
from nestlearn.memory.nesting import Consulted, Scene
from nestlearn.memory.objectives import dot_product
from nestlearn.memory.rules import GradientDescent
from nestlearn.ops.matrix import inverse_root
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
    value_is: ClassVar[str] = "left u right"
    retention: float = 0.95
    damping: float = 1e-6

    elementwise = False

    def memories(self, shape: torch.Size) -> tuple[Consulted, ...]:
        return (
            self._factor("left", shape[-2], lambda scene: scene.gradient.mT, "columns of u"),
            self._factor("right", shape[-1], lambda scene: scene.gradient, "rows of u"),
        )

    def _factor(self, name: str, size: int, rows: Callable[[Scene], Tensor], rows_are: str) -> Consulted:
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
            query=lambda scene: identity(scene.gradient),
            readout=lambda factor, scene: inverse_root(factor, 4, self.damping),
            every=self.period,
            keep_answer=lambda gradient: identity(gradient).clone(),
            key_is=rows_are,
            value_is=rows_are,
            query_is="unit vectors",
            readout_is="M^(-1/4)",
        )

    def __call__(self, scene: Scene) -> Tensor:
        return scene.answers["left"] @ scene.gradient @ scene.answers["right"]
