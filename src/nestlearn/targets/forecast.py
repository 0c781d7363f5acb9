"""P = the next gradient: a momentum that forecasts (O17's value, with a regression objective)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from nestlearn.memory.nesting import Scene
from nestlearn.targets.target import Target

__all__ = ["NextGradient"]


@dataclass(frozen=True)
class NextGradient(Target):
    """P(u_t) = u_{t+1}, known one write later: the memory is shown (u_{t-1}, u_t) and asked about u_t."""

    name: ClassVar[str] = "next_gradient"
    words: ClassVar[str] = "u"

    delayed = True

    def __call__(self, scene: Scene) -> Tensor:
        return scene.gradient
