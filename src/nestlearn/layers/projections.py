"""What surrounds a memory in a layer: the convolution before it, keys of unit length, the norm after it (S9)."""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, rms_norm, silu

from nestlearn.layers.sequence import full, merge_heads
from nestlearn.ops.tracing import by_hand, transformed
from nestlearn.precision import no_autocast

__all__ = ["CausalConvolution", "Readout", "retention_bias", "shortened", "unit"]


class CausalConvolution(nn.Module):
    """Every channel sees its own last few tokens, through one filter each and then silu (S9, [NL] 8.3).

    Args:
        dim: channels.
        width: tokens that a filter sees, the newest included; 1 leaves only a factor for each channel.
    """

    def __init__(self, dim: int, width: int = 4) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"convolution: expected a width of at least 1 token, got {width}")
        self.width = width
        self.weight = nn.Parameter(torch.empty(width, dim))
        # Mostly the newest token, so that a fresh layer is nearly one without a convolution.
        nn.init.normal_(self.weight, std=0.5 / math.sqrt(width))
        with torch.no_grad():
            self.weight[-1] += 1

    def initial_state(self, batch_size: int) -> Tensor:
        """The tokens before the first: zeros [batch, width - 1, dim]."""
        return full(self.weight).new_zeros(batch_size, self.width - 1, self.weight.shape[-1])

    def forward(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """[batch, time, dim] in full precision to the same, and the tokens that the next call has to know."""
        seen, weight = torch.cat([past, x], 1), self.weight.to(x.dtype).mT[:, None, None]
        # Channels last, as an image of height one: no copies, and the fastest form on a processor.
        image = seen.mT.unsqueeze(2)
        if not transformed():  # which keep no layout
            weight = weight.contiguous(memory_format=torch.channels_last)
        with no_autocast(x):
            y = silu(conv2d(image, weight, groups=x.shape[-1]))
        return y.squeeze(2).mT, seen[:, x.shape[1] :]


class Readout(nn.Module):
    """From the answers of the heads to the layer's output: a norm for each head, and a linear map.

    Args:
        dim, heads: of the layer.
        gate: multiply by silu of a linear map of the layer's input before the last map, as gated DeltaNet does.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        gate: bool = False,
    ) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(dim // heads))
        self.gate = nn.Linear(dim, dim, bias=False) if gate else None
        self.out = nn.Linear(dim, dim, bias=False)

    def forward(self, answers: Tensor, x: Tensor) -> Tensor:
        """Answers [batch, heads, time, d] in full precision, x [batch, time, dim] -> [batch, time, dim]."""
        y = merge_heads(rms_norm(answers, self.scale.shape, self.scale.to(answers.dtype), 1e-5)).to(x.dtype)
        if self.gate is not None:
            y = y * silu(self.gate(x))
        out: Tensor = self.out(y)
        return out


def unit(x: Tensor) -> Tensor:
    """Scaled to unit length along the last dimension; zero stays zero, and has a slope."""
    return shortened(x, 1e-6)


def shortened(x: Tensor, softening: float = 1.0) -> Tensor:
    """x / sqrt(softening + ||x||^2) along the last dimension, below unit length without a kink."""
    return _Shortened.apply(x, softening) if by_hand() else _scaled(x, softening)[0]


def _scaled(x: Tensor, softening: float) -> tuple[Tensor, Tensor]:
    scale = (x.square().sum(-1, keepdim=True) + softening).rsqrt()
    return x * scale, scale


class _Shortened(torch.autograd.Function):
    """With the slope scale (g - y <y, g>), in fewer passes over memory than single operations make."""

    apply: ClassVar[Callable[[Tensor, float], Tensor]]

    @staticmethod
    def forward(ctx: Any, x: Tensor, softening: float) -> Tensor:
        y, scale = _scaled(x, softening)
        ctx.save_for_backward(x, y, scale)
        ctx.softening = softening
        return y

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        x, y, scale = ctx.saved_tensors
        if torch.is_grad_enabled():  # a slope with a slope: from what depends on x
            y, scale = _scaled(x, ctx.softening)
            return scale * (slope - y * (y * slope).sum(-1, keepdim=True)), None
        return torch.addcmul(slope, y, (y * slope).sum(-1, keepdim=True), value=-1).mul_(scale), None


def retention_bias(heads: int) -> Tensor:
    """Logits of alpha [heads] with which a head remembers from 16 up to 1024 tokens."""
    horizons = torch.logspace(4, 10, heads, base=2.0) if heads > 1 else torch.tensor([128.0])
    return (horizons - 1).log()
