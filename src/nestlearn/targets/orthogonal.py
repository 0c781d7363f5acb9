"""P = the orthogonalised momentum, which is what Muon would step along (O10, [NL] 52)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from nestlearn.memory.boxes import average_box
from nestlearn.memory.nesting import Consulted, Scene
from nestlearn.ops.whitening import newton_schulz
from nestlearn.targets.target import Target

__all__ = ["OrthogonalMomentum"]


@dataclass(frozen=True)
class OrthogonalMomentum(Target):
    """P = Newton-Schulz of the averaged gradient, scaled to entries of mean square one.

    The iteration runs when a value is asked for: with ``period`` above one rarely, the memory carrying it in between.
    """

    name: ClassVar[str] = "orthogonal"
    retention: float = 0.95

    elementwise = False

    def memories(self, shape: torch.Size) -> tuple[Consulted, ...]:
        return (average_box("average_gradient", self.retention),)

    words: ClassVar[str] = "sqrt(max(rows(u), columns(u))) * newton_schulz(average_gradient)"

    def __call__(self, scene: Scene) -> Tensor:
        answer = scene.answers["average_gradient"]
        return max(answer.shape[-2:]) ** 0.5 * newton_schulz(answer)
