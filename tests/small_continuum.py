"""A small continuum memory, what it reads, and what it makes of a token, for the tests of its writes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from nestlearn.layers import ContinuumMemory

__all__ = ["PERIODS", "hidden_units", "layer", "shortened", "text", "unit"]

PERIODS = (4, 8)


def layer(variant: str = "sequential", periods: tuple[int, ...] = PERIODS, **options) -> ContinuumMemory:
    """A small layer whose rates differ from token to token."""
    torch.manual_seed(0)
    made = ContinuumMemory(6, hidden=5, periods=periods, variant=variant, **{"inner_lr": 0.3, **options}).double()
    for block in made.blocks:
        if hasattr(block, "rate_weight"):
            torch.nn.init.normal_(block.rate_weight)
            torch.nn.init.normal_(block.target)
    return made


def text(time: int, batch: int = 2, seed: int = 1) -> Tensor:
    return torch.randn(batch, time, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unit(x: Tensor) -> Tensor:
    return x / (x.square().sum(-1, keepdim=True) + 6e-6).sqrt()


def hidden_units(inner: Tensor, key: Tensor) -> Tensor:
    """[..., in] to [..., hidden], for a batch of matrices or one of all."""
    asked = key @ inner.mT if inner.ndim == 2 or key.ndim == 3 else (inner @ key[..., None])[..., 0]
    return F.silu(asked) / inner.shape[-2] ** 0.5


def shortened(length: Tensor) -> Tensor:
    """c of C3 for a step of length s: c s is s up to 1/2, and 1 - 1 / (4 s) beyond."""
    return torch.where(length > 0.5, (4 * length - 1) / (2 * length) ** 2, 1.0)
