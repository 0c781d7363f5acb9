"""A curved ravine in two dimensions, [NL] Figure 4: does a momentum that forgets along its key turn faster?

    psi(r, t) = r^2 + k (r - t + a sin(w r))^2,     from (-3.5, 2),     lowest at (0, 0), where it is 0

The second term is a narrow valley along t = r + a sin(w r); the first slopes gently along its floor towards r = 0.
Gradients across the valley change their sign from step to step, and they change their direction where it bends.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from nestlearn.tasks.about import AboutRavine
from nestlearn.tasks.task import Task, cpu_generator

__all__ = ["RavineTask"]

START = (-3.5, 2.0)


class _Ravine(nn.Module):
    """psi at ``point`` = ``start`` + ``layer.weight``, [1, 2] each.

    The weight is how far the point has gone, so that weight decay pulls back to the start and not into the solution;
    it is the weight of a layer that sees the identity, so that optimizers which look at layers find one.
    """

    start: Tensor
    inputs: Tensor

    def __init__(self, start: Tensor, steepness: float, amplitude: float, frequency: float) -> None:
        super().__init__()
        self.register_buffer("start", start)
        self.register_buffer("inputs", torch.eye(2, dtype=start.dtype))
        # skip_init: the weights of a new layer would be drawn from the global generator.
        self.layer = skip_init(nn.Linear, 2, 1, bias=False, dtype=start.dtype)
        nn.init.zeros_(self.layer.weight)
        self.steepness, self.amplitude, self.frequency = steepness, amplitude, frequency

    def point(self) -> Tensor:
        answers: Tensor = self.layer(self.inputs)
        return self.start + answers.T

    def forward(self) -> Tensor:
        r, t = self.point()[0]
        across = r - t + self.amplitude * torch.sin(self.frequency * r)
        height: Tensor = r.square() + self.steepness * across.square()
        return height


@dataclass(frozen=True, kw_only=True)
class RavineTask(AboutRavine, Task):
    """The ravine of [NL] Figure 4. Figures: ``loss`` (psi) and ``distance`` (from the lowest point).

    The parameter has one row (r, t) [1, 2], to a rule for matrices what the vector is in the paper.

    There are no data: batches are empty, and both splits are the function itself at the present point. Seed 0 starts
    where the paper does; another seed moves that point by ``jitter`` times a standard normal number in each direction.
    """

    steepness: float = 10.0
    amplitude: float = 0.5
    frequency: float = 2.0
    jitter: float = 0.1

    def build(self, seed: int) -> nn.Module:
        start = torch.tensor([START], dtype=torch.float64)
        if seed:
            start += self.jitter * torch.randn(1, 2, generator=cpu_generator(seed), dtype=torch.float64)
        model = _Ravine(start, self.steepness, self.amplitude, self.frequency)
        return model.to(self.device, self.dtype)

    def batches(self, seed: int, start: int = 0) -> Iterator[tuple[()]]:
        return itertools.repeat(())

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        value: Tensor = model()
        return value

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        assert isinstance(model, _Ravine)
        return {"loss": model().item(), "distance": model.point().norm().item()}
