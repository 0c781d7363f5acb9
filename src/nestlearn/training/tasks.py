"""A task: a network, the batches it sees, its loss, and the two held-out splits on which it is judged.

Everything that a seed decides is decided here and is the same for every contender: the initial weights and the order
of the batches. So two contenders with one seed differ by their optimizer alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nestlearn.errors import choice
from nestlearn.training.data import DIGITS, SPEECHES, DataFile, digits, read_data_file, speeches
from nestlearn.training.networks import ByteTransformer, digit_classifier

__all__ = ["TASKS", "DigitsTask", "SpeechesTask", "Task", "check_data", "make_task"]

Batch = tuple[Tensor, Tensor]


class Task(Protocol):
    """What the training loop asks of a task. Batches are (inputs, targets) on ``device``."""

    def build(self, seed: int) -> nn.Module:
        """The network with the initial weights of ``seed``."""

    def tables(self, model: nn.Module) -> list[nn.Module]:
        """The modules whose matrices are tables rather than maps (embeddings, head): for the element-wise rule."""

    def batches(self, seed: int) -> Iterator[Batch]:
        """An endless stream of training batches, the same for every contender."""

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The mean training loss of a batch, in nats, 0-D."""

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        """``loss`` (nats) and the task's other figures on a held-out split."""


def _cpu_generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _seeded(seed: int, build: Any) -> nn.Module:
    """Build a network with the global generator at ``seed``, and put the generator back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: nn.Module = build()
    return model


@dataclass(frozen=True)
class DigitsTask:
    """Handwritten digits, an MLP 64-hidden-10. Figures: ``loss`` (nats) and ``accuracy`` (percent)."""

    hidden: int = 128
    batch: int = 64
    device: str = "cpu"
    dtype: torch.dtype = torch.float32

    def build(self, seed: int) -> nn.Module:
        model = _seeded(seed, lambda: digit_classifier(self.hidden))
        return model.to(device=self.device, dtype=self.dtype)

    def tables(self, model: nn.Module) -> list[nn.Module]:
        return []

    def _split(self, split: str) -> Batch:
        images, labels = digits()[split]
        return images.to(self.device, self.dtype), labels.to(self.device)

    def batches(self, seed: int) -> Iterator[Batch]:
        images, labels = self._split("train")
        generator = _cpu_generator(seed)
        while True:
            order = torch.randperm(len(labels), generator=generator).to(self.device)
            for start in range(0, len(labels) - self.batch + 1, self.batch):
                chosen = order[start : start + self.batch]
                yield images[chosen], labels[chosen]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return F.cross_entropy(model(batch[0]).float(), batch[1])

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        images, labels = self._split(split)
        logits = model(images).float()
        right = (logits.argmax(-1) == labels).double().mean()
        return {"loss": F.cross_entropy(logits, labels).item(), "accuracy": 100.0 * right.item()}


@dataclass(frozen=True)
class SpeechesTask:
    """Bytes of the State of the Union speeches, a small transformer. Figures: ``loss`` (nats a byte), ``bits`` (a
    byte).

    ``validation_windows`` and ``test_windows`` windows of ``context`` bytes, evenly spaced over the whole split, are
    judged.
    """

    dim: int = 96
    depth: int = 2
    heads: int = 4
    context: int = 128
    batch: int = 16
    validation_windows: int = 64
    test_windows: int = 256
    device: str = "cpu"
    dtype: torch.dtype = torch.float32

    def build(self, seed: int) -> nn.Module:
        model = _seeded(seed, lambda: ByteTransformer(self.dim, self.depth, self.heads, self.context))
        return model.to(device=self.device, dtype=self.dtype)

    def tables(self, model: nn.Module) -> list[nn.Module]:
        assert isinstance(model, ByteTransformer)
        return [model.tokens, model.positions, model.head]

    def _windows(self, split: str, starts: Tensor) -> Batch:
        window = speeches()[split][starts[:, None] + torch.arange(self.context + 1)].long().to(self.device)
        return window[:, :-1], window[:, 1:]

    def batches(self, seed: int) -> Iterator[Batch]:
        generator, last = _cpu_generator(seed), len(speeches()["train"]) - self.context
        while True:
            yield self._windows("train", torch.randint(last, (self.batch,), generator=generator))

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return F.cross_entropy(model(batch[0]).float().flatten(0, 1), batch[1].flatten())

    @torch.no_grad()
    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        windows = {"validation": self.validation_windows, "test": self.test_windows}[split]
        starts = torch.linspace(0, len(speeches()[split]) - self.context - 1, windows).long()
        total = torch.zeros((), dtype=torch.float64)
        for chunk in starts.split(self.batch):  # training-sized pieces keep the peak memory that of a step
            total += self.loss(model, self._windows(split, chunk)).double().cpu() * len(chunk)
        loss = total.item() / windows
        return {"loss": loss, "bits": loss / 0.6931471805599453}


TASKS: Mapping[str, type[DigitsTask] | type[SpeechesTask]] = {"digits": DigitsTask, "speeches": SpeechesTask}


FILES: Mapping[str, DataFile] = {"digits": DIGITS, "speeches": SPEECHES}


def check_data(tasks: Iterable[str]) -> None:
    """Read the data file of each task, so that a wrong one is an error before anything is trained (DataFileError)."""
    for name in tasks:
        read_data_file(FILES[name])


def make_task(name: str, size: Mapping[str, int], device: str, dtype: str) -> Task:
    """The task called ``name``, with the fields in ``size`` in place of its defaults.

    Raises:
        ValueError: there is no such task; the message lists the names and the nearest one.
    """
    choice("task", name, TASKS)
    return TASKS[name](**size, device=device, dtype=getattr(torch, dtype))
