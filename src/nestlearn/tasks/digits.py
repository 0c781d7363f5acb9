"""Handwritten digits: small enough for a comparison in seconds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nestlearn.layers.sequence import full
from nestlearn.tasks.about import AboutDigits
from nestlearn.tasks.data import digits
from nestlearn.tasks.networks import digit_classifier
from nestlearn.tasks.task import Task, seeded, shuffled, size

__all__ = ["DigitsTask"]


@dataclass(frozen=True, kw_only=True)
class DigitsTask(AboutDigits, Task):
    """Handwritten digits, an MLP 64-hidden-10. Figures: ``loss`` (nats) and ``accuracy`` (percent)."""

    width: ClassVar[str | None] = "hidden"

    hidden: int = 128
    batch: int = size(64, least=1, most=1080)

    def build(self, seed: int) -> nn.Module:
        model = seeded(seed, lambda: digit_classifier(self.hidden))
        return model.to(device=self.device, dtype=self.dtype)

    def _split(self, split: str) -> tuple[Tensor, Tensor]:
        images, labels = digits()[split]
        return images.to(self.device, self.dtype), labels.to(self.device)

    def batches(self, seed: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        images, labels = self._split("train")
        for chosen in shuffled(len(labels), self.batch, seed, start):
            yield images[chosen.to(self.device)], labels[chosen.to(self.device)]

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(full(model(batch[0])), batch[1])

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        images, labels = self._split(split)
        logits = full(model(images))
        right = (logits.argmax(-1) == labels).double().mean()
        return {"loss": F.cross_entropy(logits, labels).item(), "accuracy": 100.0 * right.item()}
