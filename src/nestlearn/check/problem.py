"""The small problem that checks train on, in float64."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["ROWS", "WIDTHS", "batch", "network"]

ROWS = 16
"""Rows of a batch."""

WIDTHS = (6, 8, 4)


def network(dtype: torch.dtype = torch.float64, widths: Sequence[int] = WIDTHS, *, bias: bool = True) -> nn.Sequential:
    """A tanh network with ``len(widths) - 1`` linear layers, with the same weights every time."""
    generator = torch.Generator().manual_seed(1)
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        layer = nn.utils.skip_init(nn.Linear, fan_in, fan_out, bias=bias, dtype=torch.float64)
        for parameter in layer.parameters():
            draw = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.data.copy_(draw / fan_in**0.5)
        layers += [layer, nn.Tanh()]
    return nn.Sequential(*layers[:-1]).to(dtype)


def batch(index: int, module: nn.Sequential) -> tuple[Tensor, Tensor]:
    """Batch ``index`` of a network: inputs [ROWS, in] and targets [ROWS, out], in the dtype of its weights."""
    first, last = (layer for layer in (module[0], module[-1]))
    generator = torch.Generator().manual_seed(100 + index)
    sides = (int(first.in_features), int(last.out_features))  # type: ignore[arg-type]
    inputs, targets = (torch.randn(ROWS, side, generator=generator, dtype=torch.float64) for side in sides)
    weight: Any = first.weight
    return inputs.to(weight.dtype), targets.to(weight.dtype)
