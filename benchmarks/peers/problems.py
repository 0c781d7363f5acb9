"""The small problems of the gate and the drop-in checks."""

import random
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Shapes", "advance", "batch", "equal", "network", "seed_everything", "weights"]


def seed_everything(seed: int) -> None:
    """Every generator that an optimizer may draw from."""
    random.seed(seed)
    torch.manual_seed(seed)


def network(seed: int = 0, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """6-8-3 with tanh and no biases, so that optimizers of matrices alone can train it."""
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, 8, bias=False), nn.Tanh(), nn.Linear(8, 3, bias=False))
    for parameter in model.parameters():
        drawn = torch.randn(parameter.shape, generator=generator) / parameter.shape[1] ** 0.5
        parameter.data.copy_(drawn)
    return model.to(dtype)


def batch(index: int, dtype: torch.dtype = torch.float32, rows: int = 32) -> tuple[Tensor, Tensor]:
    """Inputs [rows, 6] and the answers [rows, 3] of another network to them."""
    inputs = torch.randn(rows, 6, generator=torch.Generator().manual_seed(1000 + index))
    with torch.no_grad():
        return inputs.to(dtype), network(seed=77)(inputs).to(dtype)


def advance(model: nn.Module, optimizer: Any, indices: Iterable[int]) -> list[float]:
    """One step a batch; returns the losses before the steps."""
    losses = []
    for index in indices:
        inputs, targets = batch(index, next(model.parameters()).dtype)
        model.zero_grad()
        loss = F.mse_loss(model(inputs), targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


class Shapes(nn.Module):
    """Parameters of 0, 1, 2 and 4 dimensions, all of them in layers or in use."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(2, 3, 2, bias=False)
        self.linear = nn.Linear(12, 3)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        return self.scale * self.linear(self.convolution(images).flatten(1))


def weights(model: nn.Module) -> list[Tensor]:
    """Copies of all parameters."""
    return [parameter.detach().clone() for parameter in model.parameters()]


def equal(one: list[Tensor], two: list[Tensor]) -> bool:
    """Same bits."""
    return all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
