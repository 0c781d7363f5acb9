"""A deep memory that is judged by the quadratic model of the loss: Newton's direction, learned (O16)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from nestlearn.memory.nesting import Consulted, Said, Scene
from nestlearn.memory.objectives import Quadratic
from nestlearn.rules.link import Linked, once
from nestlearn.rules.rows import RowLink, rows_of
from nestlearn.rules.settings import count
from nestlearn.rules.shape import as_rows, from_rows

__all__ = ["MeasuredQuadratic", "newton"]


@dataclass(frozen=True, repr=False)
class newton(RowLink):
    """Answers M(u), M judged by <u, d> + 1/2 <d, H d> at its answer d: its optimum is a Newton step (O16).

    H d is measured by one Hessian product a step, before the memory is written: ``step`` needs a closure that keeps
    the graph. The memory adds its key to its answer, is asked about a gradient of unit length, and gives the answer the
    gradient's own length.

    Args:
        hidden: h, hidden units of the MLP.
        inner_lr: zeta, the memory's own learning rate.
        retention: alpha, the share of the memory's weights that a write keeps.
        model: "mlp", "matrix" for a linear map, or a ``nestlearn.memory.Model`` from rows to rows.
        written_by: the rule that writes the memory; None is gradient descent.
        period: curvature is measured, and the memory written, every so many writes.
    """

    period: int = count(1)

    @property
    def reads(self) -> Mapping[str, int]:
        return {"curvature_product": self.period}

    def link(self, shape: torch.Size, u: Said, a: Said) -> Linked:
        key, name = once(rows_of(u)), self.label

        def value(scene: Scene) -> Tensor:
            # u has unit length, as the key has.
            return torch.cat([-key(scene), as_rows(scene.observations["curvature_product"])], -1)

        def answer(scene: Scene) -> Tensor:
            rows, matrix = scene.answers[name], u(scene)
            length = torch.linalg.matrix_norm(as_rows(matrix), keepdim=True) / rows.shape[-2] ** 0.5
            return from_rows(rows, matrix.shape) * length

        memory = Consulted(
            name,
            self.rows_memory(min(shape[-2:]), _MEASURED, residual=True),
            key=key,
            value=Said(f"side_by_side(-{key.words}, as_rows(seen_curvature_product))", value),
            every=self.period,
            track=True,
        )
        words = f"norm({u.words}) / sqrt(rows({name})) * as_matrix({name}, u)"
        return Linked(Said(words, answer), (memory,))


@dataclass(frozen=True)
class MeasuredQuadratic(Quadratic):
    """O16 when H d was measured beforehand: the value holds (-u, H d) side by side."""

    name: ClassVar[str] = "measured_quadratic"

    def loss(self, answer: Tensor, value: Tensor) -> Tensor:
        slope, product = value.chunk(2, -1)
        return answer * slope + 0.5 * answer * product

    def error(self, answer: Tensor, value: Tensor) -> Tensor:
        slope, product = value.chunk(2, -1)
        return slope + product


_MEASURED = MeasuredQuadratic()
