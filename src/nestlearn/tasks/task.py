"""What a task is: a network, the batches it sees, its loss, and the two held-out splits on which it is judged.

Everything that a seed decides is decided by the task and is the same for every contender: the initial weights and the
order of the batches. So two contenders with one seed differ by their optimizer alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

__all__ = ["Batch", "Figure", "Task", "cpu_generator", "seeded"]

Batch = Any
"""Whatever ``Task.loss`` understands; for most tasks a pair (inputs, targets) on the task's device."""


@dataclass(frozen=True)
class Figure:
    """A figure that a task reports besides the loss: its key in ``evaluate``, its heading, meaning and digits."""

    name: str
    heading: str
    meaning: str
    digits: int = 2


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """What the training loop asks of a task. Its fields say how large network, batches and held-out splits are.

    Attributes:
        name: what users type.
        title: what readers of a report see.
        unit: of the loss.
        figure: the figure shown beside the loss; None if the loss says it all.
        width: the field that scales the network, for comparisons at equal bytes; None if it has one size.
        delay: how many steps late gradients arrive; 0 for ordinary training.
        device, dtype: of the network and of its inputs.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    unit: ClassVar[str] = "nats"
    figure: ClassVar[Figure | None] = None
    width: ClassVar[str | None] = None

    delay: int = 0
    device: str = "cpu"
    dtype: torch.dtype = torch.float32

    @abstractmethod
    def build(self, seed: int) -> nn.Module:
        """The network with the initial weights of ``seed``."""

    def tables(self, model: nn.Module) -> list[nn.Module]:
        """The modules whose matrices are tables rather than maps (embeddings, head): for the element-wise rule."""
        return []

    @abstractmethod
    def batches(self, seed: int, start: int = 0) -> Iterator[Batch]:
        """An endless stream of training batches, the same for every contender; ``start`` leaves out that many."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The mean training loss of a batch, 0-D."""

    @abstractmethod
    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        """``loss`` and the task's other figures on a held-out split, "validation" or "test"."""


def cpu_generator(seed: int) -> torch.Generator:
    """A stream of random numbers that is the same on every device."""
    return torch.Generator().manual_seed(seed)


def seeded(seed: int, build: Callable[[], nn.Module]) -> nn.Module:
    """Build a network with the global generator at ``seed``, and put the generator back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()
