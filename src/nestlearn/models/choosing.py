"""Which token comes next: the likeliest, or a draw from the likeliest."""

from __future__ import annotations

from typing import TypedDict

import torch
from torch import Tensor

__all__ = ["Choice", "Drawn"]


class Drawn(TypedDict):
    """How tokens are chosen, as arguments of `Choice`."""

    temperature: float
    top_k: int | None
    top_p: float | None
    seed: int


class Choice:
    """A token [batch] for each row of logits [batch, vocab_size], drawn from a generator of its own.

    Args:
        temperature: 0 takes the likeliest token, 1 draws as the model says, more is bolder.
        top_k: draw from so many of the likeliest tokens alone; None for all.
        top_p: draw from the likeliest alone, as few as have this probability together (arXiv 1904.09751); with
            ``top_k`` from those that both leave.
        seed: of the draws, the same on every device.

    Raises:
        ValueError: settings that make no sense.
    """

    def __init__(self, temperature: float, top_k: int | None, top_p: float | None, seed: int) -> None:
        if not temperature >= 0 or (top_k is not None and top_k < 1):
            raise ValueError(
                f"expected temperature of at least 0 and top_k of at least 1, got {temperature} and {top_k}"
            )
        if top_p is not None and not 0 < top_p <= 1:
            raise ValueError(f"top_p: expected more than 0 and at most 1, got {top_p}")
        self.temperature, self.top_k, self.top_p = temperature, top_k, top_p
        # On the CPU, so that a seed draws the same everywhere.
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(self, logits: Tensor) -> Tensor:
        if self.temperature == 0:
            return logits.argmax(-1)
        device, logits = logits.device, logits.double().cpu() / self.temperature
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            least = logits.topk(self.top_k).values[..., -1:]
            logits = logits.masked_fill(logits < least, float("-inf"))
        if self.top_p is not None and self.top_p < 1:
            logits = _nucleus(logits, self.top_p)
        return torch.multinomial(logits.softmax(-1), 1, generator=self._generator).squeeze(-1).to(device)


def _nucleus(logits: Tensor, top_p: float) -> Tensor:
    """Without what is less likely than the fewest tokens that have ``top_p`` together; the likeliest always stays."""
    ordered, order = logits.softmax(-1).sort(-1, descending=True)
    beyond = ordered.cumsum(-1) - ordered >= top_p
    return logits.masked_fill(torch.zeros_like(beyond).scatter(-1, order, beyond), float("-inf"))
