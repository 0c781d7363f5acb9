"""Who takes part, each a small model from tokens [batch, time] to logits [batch, time, ANSWERS]."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from experiments.sequence.formal_languages.languages import ANSWERS, SYMBOLS
from nestlearn.models import LanguageModel, hope, transformer

__all__ = ["CONTENDERS", "Contender"]

DIM, HEADS = 64, 4


@dataclass(frozen=True)
class Contender:
    """A model and the learning rates that tuning may give it; one that is a control names whose rate it takes."""

    build: Callable[[], nn.Module]
    rates: tuple[float, ...] = (2.5e-3, 5e-3, 1e-2)
    rate_of: str | None = None


class LSTM(nn.Module):
    """The network that solves all six in print."""

    def __init__(self, dim: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(SYMBOLS), dim)
        self.cells = nn.LSTM(dim, dim, layers, batch_first=True)
        self.head = nn.Linear(dim, ANSWERS)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.cells(self.embedding(tokens))[0])


def two_memories(max_eta: float = 2.0) -> LanguageModel:
    """Hope with two memories in its block: one adds up what it is shown, one modifies itself and erases as it writes.

    The second, under delta gradient descent, multiplies what it holds along a key by 1 - eta, down to -1 with a
    ``max_eta`` of 2: it tracks states. The first is a sum, with keys and values from fixed maps: it counts.
    """
    common: dict[str, Any] = {"heads": HEADS, "chunk": 32, "retention": False, "convolution": 1}
    adds = ("self_modifying", {**common, "dgd": False, "self_modifying": ()})
    erases = ("self_modifying", {**common, "max_eta": max_eta})
    # What the blocks learn in context is forgotten at their next write: over a long string it would add up.
    reads = ("continuum", {"periods": (16, 32), "inner_lr": 0.01, "retention": 0.0})
    return LanguageModel(ANSWERS, DIM, [[adds, erases, reads]])


def one_memory() -> LanguageModel:
    """Hope as it comes, with negative factors allowed."""
    return hope(ANSWERS, DIM, 1, HEADS, max_eta=2.0, chunk=32, periods=(16, 32))


def delta_net(max_eta: float = 1.0) -> LanguageModel:
    """A matrix memory a head under the delta rule, then SwiGLU."""
    block = [("memory", {"heads": HEADS, "rule": "delta", "max_eta": max_eta}), ("swiglu", {})]
    return LanguageModel(ANSWERS, DIM, [block])


CONTENDERS: Mapping[str, Contender] = MappingProxyType(
    {
        # At 1e-2 it learns as well, and more often what does not hold on longer strings.
        "Hope": Contender(two_memories, rates=(1.25e-3, 2.5e-3, 5e-3)),
        "Hope, max_eta 1": Contender(lambda: two_memories(1.0), rate_of="Hope"),
        "Hope, one memory": Contender(one_memory, rate_of="Hope"),
        "Transformer": Contender(lambda: transformer(ANSWERS, DIM, 2, HEADS)),
        "DeltaNet": Contender(delta_net),
        "DeltaNet, max_eta 2": Contender(lambda: delta_net(2.0), rate_of="DeltaNet"),
        "LSTM": Contender(lambda: LSTM(DIM, 2)),
    }
)
"""The contenders by name."""
