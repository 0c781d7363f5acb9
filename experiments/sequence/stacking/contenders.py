"""Who reads the book, by name: what is written, by which rule, and at which rates."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from nestlearn.rules import adam, average, chain, gradient, muon, orthogonal, whiten

__all__ = ["CONTENDERS", "MORE", "VARIANTS", "Contender"]


@dataclass(frozen=True)
class Contender:
    """Settings of ``add_continuum`` without the rate, and the rates that are tried."""

    rates: tuple[float, ...]
    writer: Any = None
    blocks: int = 4
    settings: dict[str, Any] = field(default_factory=dict)


CONTENDERS = {
    "gradient": Contender((3e-5, 1e-4, 3e-4), gradient()),
    "Adam": Contender((1.5e-4, 3e-4, 6e-4), adam()),
    "Adam, period 64": Contender((1.5e-4, 3e-4), adam(), settings={"periods": 64}),
    "Muon": Contender((3e-4, 1e-3), muon(0.9)),
}

MORE = {
    "Adam, 8 blocks, period 64": Contender((1.5e-4, 3e-4), adam(), blocks=8, settings={"periods": 64}),
    "Muon, 8 blocks": Contender((1e-3, 2e-3), muon(0.9), blocks=8),
}
"""Read the longer text as well, for what more of the model and of the time buys."""

VARIANTS = {
    "Adam, 8 blocks": Contender((3e-4,), adam(), blocks=8),
    "Adam, 1 block": Contender((6e-4,), adam(), blocks=1),
    "Adam, gate, up and down": Contender((3e-4,), adam(), settings={"matrices": ("gate", "up", "down")}),
    "Adam, periods 64 to 512": Contender((3e-4,), adam(), settings={"periods": (64, 128, 256, 512)}),
    "Adam, rank 64": Contender((6e-4,), adam(), settings={"rank": 64}),
    "Adam, losses above 1": Contender((3e-4,), adam(), settings={"gate": 1.0}),
    "Adam, retention 0.9": Contender((3e-4,), adam(), settings={"retention": 0.9}),
    "Adam, direct": Contender((3e-4,), adam(), settings={"objective": "direct"}),
    "whitened": Contender((1e-3,), chain(average(0.9), whiten("root"), orthogonal())),
}
"""Tried on the other text alone."""
