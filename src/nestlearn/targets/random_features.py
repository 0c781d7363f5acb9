"""P = fixed random features of the gradient's rows, also offered as a feature map on keys (O11, [NL] 51)."""

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from nestlearn.memory.nesting import Scene
from nestlearn.targets.target import Target

__all__ = ["RandomFeatures", "random_features"]


def random_features(matrix: Tensor, seed: int = 0) -> Tensor:
    """phi(u) = Omega^T tanh(Omega u) / 2 for every row u of [*B, n, d], after scaling the matrix to mean square one.

    Omega is fixed, [2 d, d] with entries of variance 1 / d, drawn once from ``seed``. Going back through the same
    Omega keeps <u, phi(u)> >= 0, so that phi(u) still points uphill, and a zero gradient has zero features.
    """
    omega = _frequencies(matrix.shape[-1], seed, matrix.dtype, matrix.device)
    scale = matrix.square().mean((-2, -1), keepdim=True).sqrt()
    rows = matrix / torch.where(scale > 0, scale, torch.ones_like(scale))
    return torch.tanh(rows @ omega.mT) @ omega / 2


@lru_cache(maxsize=32)
def _frequencies(size: int, seed: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Omega; drawn on the CPU, so that it is the same on every device, and kept where it is used."""
    generator = torch.Generator().manual_seed(seed)
    omega = torch.randn(2 * size, size, generator=generator, dtype=torch.float64) / size**0.5
    return omega.to(device, dtype)


@dataclass(frozen=True)
class RandomFeatures(Target):
    """P = phi(u), random features of the rows: a fixed non-linear map for a memory to learn."""

    name: ClassVar[str] = "random_features"
    seed: int = 0

    elementwise = False

    @property
    def words(self) -> str:
        return f"random_features(u, {self.seed})" if self.seed else "random_features(u)"

    def __call__(self, scene: Scene) -> Tensor:
        return random_features(scene.gradient, self.seed)
