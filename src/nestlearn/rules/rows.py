"""Memories on the rows of a matrix: a map that learns, whatever rule writes it (O5, O6).

A flattened 256 x 256 weight would need a memory of 134 million weights. Here the keys are the rows of the gradient, d
long with d the shorter side, so a memory with h hidden units has 2 h d weights and costs about 14 h FLOP an entry a
step.
"""

from __future__ import annotations

from dataclasses import dataclass

from nestlearn.errors import choice
from nestlearn.memory.associative import AssociativeMemory
from nestlearn.memory.models import MLP, Matrix, Model
from nestlearn.memory.nesting import Said
from nestlearn.memory.objectives import Objective
from nestlearn.rules.link import Link, gradient, written
from nestlearn.rules.settings import count, positive, share
from nestlearn.rules.shape import as_rows, unit

__all__ = ["RowLink", "rows_of"]


@dataclass(frozen=True, repr=False)
class RowLink(Link):
    """Base of links whose memory is a map on rows.

    Args:
        hidden: h, hidden units of the MLP.
        inner_lr: zeta, the memory's own learning rate.
        retention: alpha, the share of the memory's weights that a write keeps.
        model: "mlp", "matrix" for a linear map, or a ``nestlearn.memory.Model`` from rows to rows, which is asked for
            its form of each width (``Model.sized``).
        written_by: the rule that writes the memory from its own gradients; None is gradient descent.
    """

    on_matrices = True
    nested = ("written_by",)

    hidden: int = count(64)
    inner_lr: float = positive(0.1)
    retention: float = share(0.999)
    model: str | Model = "mlp"
    written_by: Link | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.model, Model):
            choice(f"{type(self).__name__}(): model", self.model, ("matrix", "mlp"))
        for link in () if self.written_by is None else self.written_by.everything():
            if link.outermost:
                raise ValueError(f"{type(self).__name__}(): {link!r} is for the weights, not for written_by= a memory")

    def rows_memory(self, width: int, objective: Objective, *, residual: bool = False) -> AssociativeMemory:
        """The memory for rows of ``width`` entries; a ``residual`` one adds its key to its answer."""
        rule = written(self.written_by or gradient(), lr=self.inner_lr, retention=self.retention)
        return AssociativeMemory(self._model(width, residual), objective.averaged(), rule)

    def _model(self, width: int, residual: bool) -> Model:
        if isinstance(self.model, Model):
            return self.model.sized(width)
        if self.model == "matrix":
            return Matrix(width, width, residual=residual)
        return MLP(width, self.hidden, width, residual=residual, fast=True)


def rows_of(a: Said) -> Said:
    """A matrix as rows along its longer side, scaled together to a mean squared length of one."""
    return Said(f"unit_rows({a.words})", lambda scene: unit(as_rows(a(scene))))
