"""What a task is: a network, the batches it sees, its loss, and the two held-out splits on which it is judged.

Everything that a seed decides is decided by the task and is the same for every contender: the initial weights and the
order of the batches. So two contenders with one seed differ by their optimizer alone.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nestlearn.errors import choice
from nestlearn.foreign import shown
from nestlearn.tasks.about import About

__all__ = ["Batch", "Task", "cpu_generator", "seeded", "shuffled", "size"]

MOST = 1e15  # of any number of a task: more of anything does not fit anywhere

Batch = Any
"""Whatever ``Task.loss`` understands; for most tasks a pair (inputs, targets) on the task's device."""


def size(default: Any, *, least: float = 0.0, most: float = math.inf, choices: Iterable[str] = ()) -> Any:
    """A field of a task with the values it may have: numbers from ``least`` to ``most``, or one of ``choices``.

    A plain ``name: int = 3`` is a field too: a whole number of at least 1.
    """
    return field(default=default, metadata={"least": least, "most": most, "choices": tuple(choices)})


@dataclass(frozen=True, kw_only=True)
class Task(About, ABC):
    """What the training loop asks of a task. Its fields say how large network, batches and held-out splits are.

    Attributes:
        name, title, unit, figure, data: see ``nestlearn.tasks.about``.
        width: the field that scales the network, for comparisons at equal bytes; None if it has one size.
        delay: how many steps late gradients arrive; 0 for ordinary training.
        device, dtype: of the network and of its inputs.
    """

    width: ClassVar[str | None] = None

    delay: int = size(0)
    device: str = "cpu"
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        """Raise ValueError for a field with a value that it cannot have."""
        for known in fields(self):
            _check_value(self.name, known, getattr(self, known.name))

    @classmethod
    def sized(cls, size: Mapping[str, Any], device: str, dtype: torch.dtype) -> Task:
        """The task with the fields in ``size`` in place of its defaults.

        Raises:
            ValueError: there is no such field (the message names the nearest one), or it cannot have this value.
        """
        known = [known.name for known in fields(cls) if known.name not in ("device", "dtype")]
        for name in size:
            choice(f"field of the task {cls.name}", name, known)
        return cls(**size, device=device, dtype=dtype)

    @abstractmethod
    def build(self, seed: int) -> nn.Module:
        """The network with the initial weights of ``seed``."""

    def ends(self, model: nn.Module) -> list[nn.Module] | None:
        """The layers besides embeddings and positions whose matrices are for the element-wise rule, as the ``output``
        of ``nestlearn.optim.tables`` says it: None leaves it to that function to find the output layer.
        """
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


def _check_value(task: str, known: Field[Any], value: Any) -> None:
    """Raise ValueError unless the field may have this value."""
    what = f"{known.name} of the task {task}"
    choices = known.metadata.get("choices", ())
    if choices:
        choice(what, value, choices)
    elif isinstance(known.default, int | float):
        _check_number(what, known, value)


def _check_number(what: str, known: Field[Any], value: Any) -> None:
    """Raise ValueError unless the value is a number of the field's kind and within its limits."""
    whole = isinstance(known.default, int)
    least, most = known.metadata.get("least", 1 if whole else 0.0), known.metadata.get("most", math.inf)
    right = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    top = min(most, MOST)
    if not right or not least <= value <= top or not math.isfinite(value):
        limits = f"of at least {least:g}" if most == math.inf else f"from {least:g} to {most:g}"
        limits += f", and at most {top:g}" if right and value > top and most == math.inf else ""
        kind = "whole number" if whole else "number"
        raise ValueError(f"expected the {what} to be a {kind} {limits}, got {shown(value)}")


def cpu_generator(seed: int) -> torch.Generator:
    """A stream of random numbers that is the same on every device."""
    return torch.Generator().manual_seed(seed)


def seeded(seed: int, build: Callable[[], nn.Module]) -> nn.Module:
    """Build a network on the CPU with the global generator at ``seed``, and put the generator back."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return build()


def shuffled(count: int, batch: int, seed: int, start: int = 0) -> Iterator[Tensor]:
    """Endless batches of the numbers below ``count``, [batch] int64: every epoch in another order, the incomplete last
    batch left out; ``start`` leaves out that many batches.
    """
    generator, each = cpu_generator(seed), count // batch
    for epoch in itertools.count():
        order = torch.randperm(count, generator=generator)
        for index in range(max(0, start - epoch * each), each):
            yield order[index * batch : (index + 1) * batch]
