"""What a continuum has to be ahead of: a cache of the words just read, and dynamic evaluation."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from nestlearn.models.stacking_calls import cache_name

__all__ = ["cached", "dynamic"]


def cached(losses: Tensor, tokens: Tensor, share: float, length: int) -> Tensor:
    """The losses [time - 1] of (1 - share) p + share q, q being how often a token was among the last ``length``.

    Args:
        losses: of p, in nats, of all tokens but the first.
        tokens: [time].
    """
    counts: dict[int, int] = {}
    held: deque[int] = deque()
    seen = []
    for now, after in zip(tokens[:-1].tolist(), tokens[1:].tolist(), strict=True):
        counts[now] = counts.get(now, 0) + 1
        held.append(now)
        if len(held) > length:
            counts[held.popleft()] -= 1
        seen.append(counts.get(after, 0) / len(held))
    return -((1 - share) * (-losses.double()).exp() + share * torch.tensor(seen, dtype=torch.float64)).log()


def dynamic(
    model: Any,
    tokens: Tensor,
    make: Callable[[list[Tensor]], torch.optim.Optimizer],
    *,
    period: int,
    window: int,
    weights: list[torch.nn.Parameter],
) -> Tensor:
    """Dynamic evaluation: the losses of tokens [1, time] while an optimizer of torch's trains ``weights`` on them.

    A step every ``period`` tokens, on the loss of what they predicted, summed. Written apart from the library.
    """
    for weight in weights:
        weight.requires_grad_(True)
    optimizer, found = make(weights), []
    name = cache_name(model.forward)
    for start in range(0, tokens.shape[1], window):
        cache, stop = None, min(start + window, tokens.shape[1])
        for first in range(start, stop, period):
            last = min(first + period, stop)
            out = model(tokens[:, first:last], use_cache=True, **{name: cache})
            wanted = tokens[:, first + 1 : last + 1]
            logits = out.logits[0, : wanted.shape[1]]
            losses = F.cross_entropy(logits, wanted[0], reduction="none")
            if wanted.shape[1]:
                optimizer.zero_grad()
                losses.sum().backward()
                optimizer.step()
            cache = out[name]
            for layer in cache.layers:
                layer.keys, layer.values = layer.keys.detach(), layer.values.detach()
            found.append(losses.detach())
    return torch.cat(found)
