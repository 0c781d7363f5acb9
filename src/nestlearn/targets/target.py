"""What a target is: the value P that an optimizer's memory is asked for ([S] 5, [NL] 46-50).

A momentum that only repeats gradients needs no target. A momentum that *maps* gradients does: P is whatever would have
been useful to answer, such as the gradient divided by the curvature. Signs: here P points uphill like the gradient,
and the step subtracts the answer; the seed article prints both signs reversed.

A target may keep memories of its own (a running second moment is one); they are consulted before the memory it trains.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from nestlearn.memory.nesting import Consulted, Scene

__all__ = ["Target"]


@dataclass(frozen=True)
class Target(ABC):
    """P for one parameter. Instances hold settings only; what they remember is in the memories they name.

    Args:
        period: the target is computed at every ``period``-th write; the memory carries it in between.
    """

    period: int = 1

    name: ClassVar[str] = "target"

    elementwise = True
    """Whether P of an entry depends on that entry alone; the others are for matrices."""

    delayed = False
    """Whether P of a gradient is known only at the next write (a forecast)."""

    observation: ClassVar[str | None] = None
    """The measurement it needs from outside, None if the gradient is enough."""

    needs_graph: ClassVar[bool] = False
    """Whether it is measured by differentiating the loss of the step once more."""

    @property
    def words(self) -> str:
        """P as an expression over u and the names of the memories it keeps; "P" where nobody has said which."""
        return "P"

    def memories(self, shape: torch.Size) -> tuple[Consulted, ...]:
        """The memories the target keeps for gradients of this shape."""
        return ()

    @abstractmethod
    def __call__(self, scene: Scene) -> Tensor:
        """P, shaped like ``scene.gradient``, the answers of ``memories`` being in the scene."""
