"""A task of a few hundred numbers, for tests of training: ``tiny_task:lines`` draws random numbers in every loss."""

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["lines"]


def lines(width: int = 8, dropout: float = 0.2):
    """Find a rotation through a network with dropout and batch normalisation, whose buffers are state too."""
    model = nn.Sequential(
        nn.Linear(4, width), nn.BatchNorm1d(width), nn.Tanh(), nn.Dropout(dropout), nn.Linear(width, 4)
    )
    turn = torch.linalg.qr(torch.randn(4, 4))[0]

    def pairs(count: int):
        for _ in range(count):
            x = torch.randn(16, 4)
            yield x, x @ turn

    held_out = {"validation": list(pairs(2)), "test": list(pairs(2))}
    return model, list(pairs(30)), lambda model, batch: F.mse_loss(model(batch[0]), batch[1]), held_out
