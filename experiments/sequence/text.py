"""The speeches for any model of ``nestlearn.models`` with any options, judged beyond the length of its training too."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nestlearn.models import MODELS
from nestlearn.tasks.data import speeches
from nestlearn.tasks.speeches import SpeechesTask
from nestlearn.tasks.task import size

__all__ = ["BYTES", "Text"]

BYTES = 256
PIECE = 4  # long windows at a time: what is kept of them stays small


@dataclass(frozen=True, kw_only=True)
class Text(SpeechesTask):
    """Language modelling on the bytes of the State of the Union speeches.

    ``network`` and ``options`` name a model. On the test split there are figures besides those of the speeches if
    ``long`` is not 0. ``long_windows`` windows of ``long`` bytes are read from their start to their end, 8 times the
    context or so:

    ``to_N``
        bits a byte of the bytes before position N (and after half of it), for N = context, 2 context, ... ``long``;
    ``beyond``
        bits a byte of all bytes at positions from ``context`` on;
    ``afresh``
        bits of the same bytes when nothing is carried on: each is told from the half to the whole of a context before
        it, by a model that begins anew.

    ``long`` is ``context`` times a power of two, and ``context`` is even.
    """

    network: str = size("transformer", choices=MODELS)
    options: Mapping[str, Any] = field(default_factory=dict)
    long: int = size(0)
    long_windows: int = 16

    def _network(self) -> nn.Module:
        return MODELS[self.network](BYTES, self.dim, self.depth, self.heads, **self.options)

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        found = super().evaluate(model, split)
        return found | self._far(model) if split == "test" and self.long else found

    @torch.no_grad()
    def _far(self, model: nn.Module) -> dict[str, float]:
        half, text = self.context // 2, speeches()["test"]
        starts = torch.linspace(0, len(text) - self.long - 1, self.long_windows).long()
        on, anew = [], []
        for some in starts.split(PIECE):
            window = text[some[:, None] + torch.arange(self.long + 1)].long().to(self.device)
            on.append(_bits(model, window))
            pieces = window.unfold(1, self.context + 1, half)
            # Of every piece the second half is judged; that of the first lies within the context.
            anew.append(_bits(model, pieces.flatten(0, 1))[:, half:].reshape(len(window), -1)[:, half:])
        bits = torch.cat(on).mean(0)
        ends = [self.context * 2**power for power in range(int(math.log2(self.long / self.context)) + 1)]
        starts_at = [0, *ends[:-1]]
        by_place = {f"to_{end}": bits[start:end] for start, end in zip(starts_at, ends, strict=True)}
        told = by_place | {"beyond": bits[self.context :], "afresh": torch.cat(anew)}
        return {name: part.double().mean().item() for name, part in told.items()}


def _bits(model: nn.Module, window: Tensor) -> Tensor:
    """Bits of every byte but the first, [windows, bytes - 1]."""
    logits = model(window[:, :-1]).float()
    return F.cross_entropy(logits.transpose(1, 2), window[:, 1:], reduction="none") / math.log(2)
