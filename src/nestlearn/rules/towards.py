"""Links with a target P: the gradient is replaced by what would have been useful (O3, O9)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from nestlearn.memory.nesting import Said
from nestlearn.rules.link import Link, Linked
from nestlearn.rules.settings import count
from nestlearn.targets import Target, make_target

__all__ = ["precondition"]


@dataclass(frozen=True, repr=False)
class precondition(Link):
    """Answers P u, a target's value for the gradient (O3, [NL] 46-47).

    Args:
        target: one of ``nl.targets.TARGETS``, or an instance.
        period: curvature is measured and factors are renewed every so many writes.
    """

    target: str | Target = "second_moment"
    period: int = count(1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.made.delayed:
            raise ValueError(f"target {self.target!r} is known one step late, so it cannot precondition this step")

    @property
    def made(self) -> Target:
        """The target itself."""
        return make_target(self.target, self.period)

    @property
    def on_matrices(self) -> bool:
        return not self.made.elementwise

    @property
    def observed(self) -> Target | None:
        target = self.made
        return target if target.observation is not None else None

    @property
    def reads(self) -> Mapping[str, int]:
        target = self.observed
        return {} if target is None else {str(target.observation): target.period}

    def link(self, shape: torch.Size, u: Said, a: Said) -> Linked:
        target = self.made
        return Linked(Said(target.words, target), target.memories(shape))
