"""The networks of the tasks on real data: small, plain, and the same for every contender.

They have nothing to do with nested learning: they are the ground on which the optimizers meet. The matrices inside a
transformer's blocks are separate (query, key, value, output, up, down), because a rule that acts on whole
matrices, such as orthogonalisation (O10), means something different on a stack of three.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nestlearn.memory.state import State

__all__ = ["ByteTransformer", "VisionTransformer", "check_heads", "digit_classifier", "image_classifier"]

BYTES = 256
CLASSES = 10


def digit_classifier(hidden: int = 128) -> nn.Sequential:
    """An MLP 64-``hidden``-10: images [n, 64] -> logits [n, 10]."""
    return image_classifier(64, hidden, 1)


def image_classifier(pixels: int, hidden: int, depth: int) -> nn.Sequential:
    """An MLP with ``depth`` hidden layers: images [n, ``pixels``] -> logits [n, 10]."""
    layers: list[nn.Module] = []
    for given in [pixels, *[hidden] * (depth - 1)]:
        layers += [nn.Linear(given, hidden), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(hidden, CLASSES))


def check_heads(dim: int, heads: int) -> None:
    """Raise ValueError unless ``dim`` can be shared out to ``heads``."""
    if dim % heads:
        raise ValueError(f"expected a dim that is a multiple of heads, got dim={dim} and heads={heads}")


class _Block(nn.Module):
    """Pre-norm attention, causal or not, and a four times wider MLP: [batch, time, dim] -> the same."""

    def __init__(self, dim: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        check_heads(dim, heads)
        self.heads, self.causal = heads, causal
        self.norm_attention, self.norm_mlp = nn.RMSNorm(dim), nn.RMSNorm(dim)
        self.query, self.key, self.value, self.output = (nn.Linear(dim, dim, bias=False) for _ in range(4))
        self.up, self.down = nn.Linear(dim, 4 * dim, bias=False), nn.Linear(4 * dim, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, time, dim = x.shape
        h = self.norm_attention(x)
        q, k, v = (p(h).view(batch, time, self.heads, -1).transpose(1, 2) for p in (self.query, self.key, self.value))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        x = x + self.output(mixed.transpose(1, 2).reshape(batch, time, dim))
        y: Tensor = self.down(F.gelu(self.up(self.norm_mlp(x))))
        return x + y


class ByteTransformer(nn.Module):
    """A decoder over bytes with learned positions and an untied head: tokens [batch, time] -> logits [batch, time,
    vocab_size].

    Args:
        dim: width; must be a multiple of ``heads``.
        depth: number of blocks.
        heads: attention heads.
        context: the longest sequence.
        scaled: first weights whose size keeps the residual stream at one scale; else torch's own.
        vocab_size: of the tokens.

    Attributes:
        config: the arguments as JSON can hold them.
    """

    def __init__(
        self, dim: int, depth: int, heads: int, context: int, *, scaled: bool = True, vocab_size: int = BYTES
    ) -> None:
        super().__init__()
        self.config = {"dim": dim, "depth": depth, "heads": heads, "context": context, "vocab_size": vocab_size}
        self.vocab_size, self.context = vocab_size, context
        self.tokens, self.positions = nn.Embedding(vocab_size, dim), nn.Embedding(context, dim)
        self.blocks = nn.ModuleList(_Block(dim, heads, causal=True) for _ in range(depth))
        self.norm, self.head = nn.RMSNorm(dim), nn.Linear(dim, vocab_size, bias=False)
        if scaled:
            _initialise(self, depth)

    def get_output_embeddings(self) -> nn.Module:
        """The layer that gives the logits."""
        return self.head

    @property
    def embedding(self) -> nn.Embedding:
        """By the name that language models have for it."""
        return self.tokens

    def initial_state(self, batch_size: int) -> State:
        """The state before the first token."""
        return {"tokens": torch.zeros(batch_size, 0, dtype=torch.int64, device=self.tokens.weight.device)}

    def forward(
        self,
        tokens: Tensor,
        state: State | None = None,
        return_state: bool = False,
        mask: Tensor | None = None,
    ) -> Any:
        """Logits, and with ``return_state`` (logits, state); a state takes the text on from an earlier call.

        A state is no memory but the last ``context`` tokens: {"tokens": [batch, up to context]}. Of a text that is
        longer with it than ``context`` each token is read with at least the half of these before it.

        Raises:
            ValueError: a ``mask`` says that tokens do not count: a position belongs to all sequences of a batch.
        """
        if mask is not None and not mask.all():
            raise ValueError(
                "a transformer with learned positions reads texts of one length side by side: give one prompt, or "
                "several with as many tokens"
            )
        if state is None and not return_state:
            return self._logits(tokens)
        seen = tokens[:, :0] if state is None else state["tokens"]
        found = []
        for piece in tokens.split(max(1, self.context // 2), 1):
            seen = torch.cat([seen, piece], 1)[:, -self.context :]
            found.append(self._logits(seen)[:, -piece.shape[1] :])
        logits = torch.cat(found, 1)
        return (logits, {"tokens": seen}) if return_state else logits

    def _logits(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x))
        return logits


class VisionTransformer(nn.Module):
    """An encoder over patches of a grey image, with learned positions, the mean over patches and a head: images
    [n, side * side] -> logits [n, 10].

    Args:
        side: of the image, in pixels.
        patch: side of a patch; must divide ``side``.
        dim: width; must be a multiple of ``heads``.
        depth: number of blocks.
        heads: attention heads.
    """

    def __init__(self, side: int, patch: int, dim: int, depth: int, heads: int) -> None:
        super().__init__()
        self.patch, self.across = patch, side // patch
        self.patches, self.positions = nn.Linear(patch * patch, dim), nn.Embedding(self.across**2, dim)
        self.blocks = nn.ModuleList(_Block(dim, heads, causal=False) for _ in range(depth))
        self.norm, self.head = nn.RMSNorm(dim), nn.Linear(dim, CLASSES, bias=False)
        _initialise(self, depth)

    def forward(self, images: Tensor) -> Tensor:
        tiles = images.view(-1, self.across, self.patch, self.across, self.patch).transpose(2, 3)
        x = self.patches(tiles.reshape(len(images), self.across**2, self.patch**2)) + self.positions.weight
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x).mean(1))
        return logits


def _initialise(network: nn.Module, depth: int) -> None:
    """Draw the matrices of a transformer."""
    for name, parameter in network.named_parameters():
        if parameter.ndim == 2:
            # The writers into the residual stream start smaller, so that depth does not change its scale.
            writer = name.endswith(("output.weight", "down.weight"))
            nn.init.normal_(parameter, std=0.5 / math.sqrt(parameter.shape[1] * (2 * depth if writer else 1)))
