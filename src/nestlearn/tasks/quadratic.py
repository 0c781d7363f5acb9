"""A quadratic with a rotated, badly conditioned Hessian: what is known in closed form about every optimizer meets here.

    L(W) = 1/2 sum over rows d of D = W - W* of d^T H d,     H = Q diag(1 .. 1 / condition) Q^T

It is written as what it also is, a linear layer on inputs whose covariance is H: L(W) = 1/2 ||X D^T||^2 with X^T X = H.
So optimizers that look at a layer's inputs (O12, O15) find them, and all others see the gradient D H. W starts at zero
and not W*, so that weight decay pulls back to the start and not into the solution.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from nestlearn.tasks.about import AboutQuadratic
from nestlearn.tasks.task import Task, cpu_generator, size

__all__ = ["QuadraticTask"]


class _Bowl(nn.Module):
    """``layer.weight`` W [rows, n], and as buffers the ``inputs`` X [n, n] and the ``answers`` X W*^T [n, rows]."""

    inputs: Tensor
    answers: Tensor

    def __init__(self, inputs: Tensor, lowest: Tensor) -> None:
        super().__init__()
        self.register_buffer("inputs", inputs)
        self.register_buffer("answers", inputs @ lowest.T)
        # skip_init: the weights of a new layer would be drawn from the global generator.
        self.layer = skip_init(nn.Linear, lowest.shape[1], lowest.shape[0], bias=False, dtype=lowest.dtype)
        nn.init.zeros_(self.layer.weight)

    def forward(self) -> Tensor:
        errors: Tensor = self.layer(self.inputs) - self.answers
        return 0.5 * errors.square().sum()


@dataclass(frozen=True, kw_only=True)
class QuadraticTask(AboutQuadratic, Task):
    """``rows`` points of one rotated quadratic in ``n`` dimensions, the rows of a matrix. Figure: ``loss``.

    The eigenvalues of the Hessian fall evenly on a logarithmic scale from 1 to 1 / ``condition``. The seed decides the
    rotation and the lowest point, standard normal. There are no data: batches are empty, and both splits are the
    function itself. In float32 the loss ends around 1e-12 of its start; take float64 to look further.
    """

    n: int = 64
    rows: int = 64
    condition: float = size(1000.0, least=1.0)

    def build(self, seed: int) -> nn.Module:
        generator = cpu_generator(seed)
        basis = torch.linalg.qr(torch.randn(self.n, self.n, generator=generator, dtype=torch.float64))[0]
        values = torch.logspace(0.0, -math.log10(self.condition), self.n, dtype=torch.float64)
        lowest = torch.randn(self.rows, self.n, generator=generator, dtype=torch.float64)
        return _Bowl(values.sqrt()[:, None] * basis.T, lowest).to(self.device, self.dtype)

    def batches(self, seed: int, start: int = 0) -> Iterator[tuple[()]]:
        return itertools.repeat(())

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        value: Tensor = model()
        return value

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        return {"loss": model().item()}
