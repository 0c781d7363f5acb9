"""Memories that act on the rows of a matrix: the deep memory of O5 and what writes it (O6).

A flattened 256 x 256 weight would need a memory of 134 million weights. Here the keys are the rows of the gradient, d
long with d the shorter side, so a memory with h hidden units has 2 h d weights and costs about 14 h FLOP an entry a
step.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nestlearn.memory.associative import AssociativeMemory
from nestlearn.memory.models import MLP, Matrix, Model
from nestlearn.memory.nesting import Consult, Consulted, Scene
from nestlearn.memory.objectives import Objective, l2
from nestlearn.memory.rules import GradientDescent, Rule
from nestlearn.targets import SecondMoment

__all__ = ["RowMemory", "as_rows", "from_rows", "unit"]


@dataclass(frozen=True)
class RowMemory:
    """Settings of a memory on rows.

    Args:
        model: "mlp" or "matrix".
        hidden: h, hidden units of the MLP.
        inner_lr: zeta, the memory's own learning rate.
        retention: alpha, the share of the memory's weights that a write keeps.
        objective: scores answers, averaged over rows.
        levels: 1 is written by gradient descent, 2 by a memory on the rows of its own gradients, and so on (O6).
        every: a pair is shown at every ``every``-th write only.
        residual: the memory adds its key to its answer.
    """

    model: str = "mlp"
    hidden: int = 64
    inner_lr: float = 0.1
    retention: float = 0.999
    objective: Objective = l2
    levels: int = 1
    every: int = 1
    residual: bool = False

    def consulted(
        self,
        name: str,
        shape: torch.Size,
        *,
        key: Callable[[Scene], Tensor],
        value: Callable[[Scene], Tensor],
        query: Callable[[Scene], Tensor] | None = None,
        key_is: str = "rows of u",
        value_is: str = "rows of P",
        query_is: str = "",
    ) -> Consulted:
        """The memory for gradients of ``shape``; key, value and query give rows [*B, n, d]."""
        return Consulted(
            name,
            AssociativeMemory(self._model(min(shape[-2:])), self.objective.averaged(), self._rule()),
            key=key,
            value=value,
            query=query,
            every=self.every,
            track=True,
            key_is=key_is,
            value_is=value_is,
            query_is=query_is,
        )

    def _model(self, width: int) -> Model:
        if self.model == "matrix":
            return Matrix(width, width, residual=self.residual)
        return MLP(width, self.hidden, width, residual=self.residual, fast=True)

    def _rule(self) -> Rule:
        if self.levels == 1:
            return GradientDescent(lr=self.inner_lr, retention=self.retention)
        return _written_by_memory(
            replace(self, levels=self.levels - 1, objective=l2, every=1, residual=False), self.inner_lr
        )


def _written_by_memory(inner: RowMemory, lr: float) -> Rule:
    """A rule that consults a memory on the rows of the gradient it is given, with its second moment as target (O6).

    The answer keeps the length of the gradient, so a memory that knows nothing makes this gradient descent.
    """
    target = SecondMoment()

    def value(scene: Scene) -> Tensor:
        return unit(as_rows(target(scene))) - unit(as_rows(scene.gradient))

    def key(scene: Scene) -> Tensor:
        return unit(as_rows(scene.gradient))

    def memories(shape: torch.Size) -> tuple[Consulted, ...]:
        value_is = f"rows of {target.value_is} - u"
        return (*target.memories(shape), inner.consulted("momentum", shape, key=key, value=value, value_is=value_is))

    def combine(scene: Scene) -> Tensor:
        answer = from_rows(key(scene) + scene.answers["momentum"], scene.gradient.shape)
        length = torch.linalg.matrix_norm(scene.gradient, keepdim=True)
        return answer * (length / torch.linalg.matrix_norm(answer, keepdim=True).clamp_min(1e-30))

    update_is = "u + momentum; as long as u"
    return Consult(lr=lr, retention=inner.retention, memories=memories, combine=combine, update_is=update_is)


def as_rows(matrix: Tensor) -> Tensor:
    """[*B, out, in] seen as rows along its longer side: [*B, n, d] with n >= d."""
    return matrix if matrix.shape[-2] >= matrix.shape[-1] else matrix.mT


def from_rows(rows: Tensor, shape: torch.Size) -> Tensor:
    """The inverse of ``as_rows`` for a matrix of ``shape``."""
    return rows if rows.shape[-2:] == shape[-2:] else rows.mT


def unit(rows: Tensor) -> Tensor:
    """Rows [*B, n, d] scaled together to a mean squared length of one; zero stays zero."""
    length = torch.linalg.matrix_norm(rows, keepdim=True) / rows.shape[-2] ** 0.5
    return rows / torch.where(length > 0, length, torch.ones_like(length))
