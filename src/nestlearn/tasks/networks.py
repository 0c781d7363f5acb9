"""The two networks that ``nestlearn compare`` trains: small, plain, and the same for every contender.

Neither has anything to do with nested learning: they are the ground on which the optimizers meet. The matrices inside
the transformer's blocks are separate (query, key, value, output, up, down), because a rule that acts on whole
matrices, such as orthogonalisation (O10), means something different on a stack of three.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["ByteTransformer", "digit_classifier"]

BYTES = 256


def digit_classifier(hidden: int = 128) -> nn.Sequential:
    """An MLP 64-``hidden``-10: images [n, 64] -> logits [n, 10]."""
    return nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))


class _Block(nn.Module):
    """Pre-norm causal attention and a four times wider MLP: [batch, time, dim] -> the same."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_mlp = nn.RMSNorm(dim), nn.RMSNorm(dim)
        self.query, self.key, self.value, self.output = (nn.Linear(dim, dim, bias=False) for _ in range(4))
        self.up, self.down = nn.Linear(dim, 4 * dim, bias=False), nn.Linear(4 * dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, time, dim = x.shape
        h = self.norm_attention(x)
        q, k, v = (p(h).view(batch, time, self.heads, -1).transpose(1, 2) for p in (self.query, self.key, self.value))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.output(mixed.transpose(1, 2).reshape(batch, time, dim))
        return x + self.down(F.gelu(self.up(self.norm_mlp(x))))


class ByteTransformer(nn.Module):
    """A decoder over bytes with learned positions and an untied head: tokens [batch, time] -> logits [batch, time,
    256].

    Args:
        dim: width; must be a multiple of ``heads``.
        depth: number of blocks.
        heads: attention heads.
        context: the longest sequence.
    """

    def __init__(self, dim: int, depth: int, heads: int, context: int) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"expected a dim that is a multiple of heads, got dim={dim} and heads={heads}")
        self.tokens, self.positions = nn.Embedding(BYTES, dim), nn.Embedding(context, dim)
        self.blocks = nn.ModuleList(_Block(dim, heads) for _ in range(depth))
        self.norm, self.head = nn.RMSNorm(dim), nn.Linear(dim, BYTES, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                # The writers into the residual stream start smaller, so that depth does not change its scale.
                writer = name.endswith(("output.weight", "down.weight"))
                fan_in = dim if name.startswith(("tokens", "positions")) else parameter.shape[1]
                nn.init.normal_(parameter, std=0.5 / math.sqrt(fan_in * (2 * depth if writer else 1)))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x))
        return logits
