"""Bytes of the State of the Union speeches: language modelling at the size of a laptop."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nestlearn.layers.sequence import full
from nestlearn.models import MODELS
from nestlearn.tasks.about import AboutSpeeches
from nestlearn.tasks.data import speeches
from nestlearn.tasks.networks import ByteTransformer, check_heads
from nestlearn.tasks.task import Task, cpu_generator, seeded, size

__all__ = ["SpeechesTask"]

TRANSFORMER = "transformer"  # the task's own, with learned positions
ROTARY = "rotary"  # the transformer of `nestlearn.models`
OBJECTIVES = ("local", "next_token")
STARTS = ("scaled", "torch")
TEXT = "text"
OWN_TEXT = ("file", "files", "text", "path", "data")  # what people call a text of their own


@dataclass(frozen=True, kw_only=True)
class SpeechesTask(AboutSpeeches, Task):
    """Bytes of the State of the Union speeches, a small language model. Figures: ``loss`` (nats a byte), ``bits`` (a
    byte).

    ``validation_windows`` and ``test_windows`` windows of ``context`` bytes, evenly spaced over the whole split, are
    judged. ``objective`` is that of the continuum memory in ``hope`` and ``hope_attention``; other networks have none.
    ``start`` is how the transformer's first weights are drawn; the other networks draw theirs themselves.
    """

    width: ClassVar[str | None] = "dim"

    network: str = size(TRANSFORMER, choices=(TRANSFORMER, ROTARY, *(name for name in MODELS if name != TRANSFORMER)))
    objective: str = size(OBJECTIVES[0], choices=OBJECTIVES)
    start: str = size(STARTS[0], choices=STARTS)
    dim: int = 96
    depth: int = 2
    heads: int = 4
    context: int = 128
    batch: int = 16
    validation_windows: int = 64
    test_windows: int = 256

    @classmethod
    def sized(cls, size: Mapping[str, Any], device: str, dtype: torch.dtype) -> Task:
        if cls.name != TEXT and (wrong := next((name for name in size if name in OWN_TEXT), "")):
            raise ValueError(
                f"unknown field of the task {cls.name} {wrong!r}: for a text of your own take the task {TEXT}, as in "
                f"--task {TEXT} --set task.files={size[wrong]}"
            )
        return super().sized(size, device, dtype)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_heads(self.dim, self.heads)
        if self.start != STARTS[0] and self.network != TRANSFORMER:
            raise ValueError(
                f"expected start={STARTS[0]!r} with network={self.network!r}, which draws its own first weights, got "
                f"start={self.start!r}"
            )

    @property
    def vocab_size(self) -> int:
        """How many tokens there are."""
        return 256

    @property
    def tokens_a_byte(self) -> float:
        """Of the text, for the loss of a byte."""
        return 1.0

    def length(self, split: str) -> int:
        """How many tokens a split has."""
        return len(speeches()[split])

    def windows(self, split: str, starts: Tensor) -> Tensor:
        """The ``context + 1`` tokens from each place of a split on, [len(starts), context + 1] int64 on the CPU."""
        return speeches()[split][starts[:, None] + torch.arange(self.context + 1)].long()

    def build(self, seed: int) -> nn.Module:
        return seeded(seed, self._network).to(device=self.device, dtype=self.dtype)

    def _network(self) -> nn.Module:
        if self.network == TRANSFORMER:
            scaled = self.start == STARTS[0]
            return ByteTransformer(
                self.dim, self.depth, self.heads, self.context, scaled=scaled, vocab_size=self.vocab_size
            )
        options = {"objective": self.objective} if self.network.startswith("hope") else {}
        model = MODELS[TRANSFORMER if self.network == ROTARY else self.network]
        return model(self.vocab_size, self.dim, self.depth, self.heads, feed_forward=options)

    def ends(self, model: nn.Module) -> None:
        return None

    def _windows(self, split: str, starts: Tensor) -> tuple[Tensor, Tensor]:
        window = self.windows(split, starts).to(self.device)
        return window[:, :-1], window[:, 1:]

    def batches(self, seed: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        generator, last = cpu_generator(seed), self.length("train") - self.context
        skip = start
        while True:
            starts = torch.randint(last, (self.batch,), generator=generator)
            if skip:
                skip -= 1
                continue
            yield self._windows("train", starts)

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(full(model(batch[0])).flatten(0, 1), batch[1].flatten())

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        windows = {"validation": self.validation_windows, "test": self.test_windows}[split]
        starts = torch.linspace(0, self.length(split) - self.context - 1, windows).long()
        total = torch.zeros((), dtype=torch.float64)
        for chunk in starts.split(self.batch):  # training-sized pieces keep the peak memory that of a step
            total += self.loss(model, self._windows(split, chunk)).double().cpu() * len(chunk)
        loss = total.item() / windows
        return {"loss": loss, "bits": loss / math.log(2) * self.tokens_a_byte}
