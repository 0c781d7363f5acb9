"""The matrices of models, as a list of shapes, and a module that has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

__all__ = ["BENCHED", "MODELS", "Matrices", "matrices"]

Shape = tuple[int, int]
"""[out, in]."""


def matrices(dim: int, hidden: int, keys: int, depth: int) -> list[Shape]:
    """Of transformers with grouped queries and gated feed-forward layers; embeddings follow the element-wise rule."""
    attention = [(dim, dim), (keys, dim), (keys, dim), (dim, dim)]
    return [*attention, (hidden, dim), (hidden, dim), (dim, hidden)] * depth


MODELS: Mapping[str, list[Shape]] = {
    "1B": matrices(2048, 8192, 512, 16),
    "8B": matrices(4096, 14336, 1024, 32),
    "70B": matrices(8192, 28672, 1024, 80),
}
"""Shapes of the Llama 3 family (arXiv 2407.21783)."""

BENCHED: list[Shape] = [(8192, 1024), *[(3072, 1024), (1024, 1024), (4096, 1024), (1024, 4096)] * 24]
"""The model of 300M parameters whose steps `dev/gpu` times."""


class Matrices(nn.Module):
    """Linear layers side by side, each of which sees noise of its own.

    Args:
        shapes: of the layers.
        rows: of what they see.
    """

    def __init__(self, shapes: Sequence[Shape], rows: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(wide, out, bias=False) for out, wide in shapes)
        self.rows = rows

    def forward(self) -> Tensor:
        """A loss that depends on all of them."""
        answers = []
        for layer in self.layers:
            x = torch.randn(self.rows, layer.in_features, device=layer.weight.device, dtype=layer.weight.dtype)
            answers.append(layer(x).square().mean())
        return torch.stack(answers).sum()
