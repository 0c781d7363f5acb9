"""Targets that need no memory: the gradient itself, and ones (O2, O5)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from nestlearn.memory.nesting import Scene
from nestlearn.targets.target import Target

__all__ = ["Identity", "Ones"]


@dataclass(frozen=True)
class Identity(Target):
    """P = u: no preconditioner. Preconditioned momentum with it is momentum (O2)."""

    name: ClassVar[str] = "identity"
    words: ClassVar[str] = "u"

    def __call__(self, scene: Scene) -> Tensor:
        return scene.gradient


@dataclass(frozen=True)
class Ones(Target):
    """P = 1 in every entry: with the dot-product objective this is DMGD as [NL] 50 prints it."""

    name: ClassVar[str] = "ones"
    words: ClassVar[str] = "ones(u)"

    def __call__(self, scene: Scene) -> Tensor:
        return torch.ones_like(scene.gradient)
