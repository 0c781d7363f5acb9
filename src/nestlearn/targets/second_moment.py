"""P from running averages of the gradient: its second moment, its mean (O3, O7)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from nestlearn.memory.boxes import average_box, bias_corrected
from nestlearn.memory.nesting import Consulted, Said, Scene
from nestlearn.memory.rules import in_words
from nestlearn.targets.target import Target

__all__ = ["AverageGradient", "SecondMoment"]


@dataclass(frozen=True)
class SecondMoment(Target):
    """P = u / (sqrt(v) + eps) with v the running mean of u^2: the diagonal preconditioner of RMSprop and Adam (O3, O7).

    Args:
        retention: of the box that holds v.
        eps: added to the denominator.
    """

    name: ClassVar[str] = "second_moment"
    retention: float = 0.99
    eps: float = 1e-8

    def memories(self, shape: torch.Size) -> tuple[Consulted, ...]:
        return (
            average_box(
                "second_moment",
                self.retention,
                value=Said("u^2", lambda scene: scene.gradient.square()),
                readout=bias_corrected(self.retention),
            ),
        )

    @property
    def words(self) -> str:
        return f"u / (sqrt(second_moment) + {in_words(self.eps)})"

    def __call__(self, scene: Scene) -> Tensor:
        return scene.gradient / scene.answers["second_moment"].sqrt().add_(self.eps)


@dataclass(frozen=True)
class AverageGradient(Target):
    """P = the running mean of the gradient: the box that the memory is asked to imitate (O2)."""

    name: ClassVar[str] = "average_gradient"
    retention: float = 0.9

    def memories(self, shape: torch.Size) -> tuple[Consulted, ...]:
        return (average_box("average_gradient", self.retention, readout=bias_corrected(self.retention)),)

    words: ClassVar[str] = "average_gradient"

    def __call__(self, scene: Scene) -> Tensor:
        return scene.answers["average_gradient"]
