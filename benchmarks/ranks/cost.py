"""A step's time and memory from FLOPs, bytes and three numbers of a machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch

import nestlearn as nl
from benchmarks.ranks.shapes import Matrices, Shape
from nestlearn.training.inspect_ranks import RankLoad, Work, loads, works

__all__ = ["OPTIMIZERS", "Machine", "make", "share_out"]

OPTIMIZERS = ("Muon", "Nested", "LayerMomentum", "DeepMomentum")
STEPS = 5
"""FLOPs are means over so many: Nested and LayerMomentum invert covariances every fifth step."""


@dataclass(frozen=True)
class Machine:
    """What ranks run on.

    Args:
        flops: of one rank in a second, in the products of the optimizer.
        bandwidth: bytes that a rank sends in a second, while all do.
        latency: seconds of a message to all.
        cores: ranks that compute at one time; more of them take turns. None for all.
    """

    flops: float
    bandwidth: float = float("inf")
    latency: float = 0.0
    cores: int | None = None

    def step(self, ranks: Sequence[RankLoad], observed: float = 0.0) -> float:
        """Seconds of a step: the busiest rank's products, two messages, and what observations add over ranks."""
        turns = 1.0 if self.cores is None else max(1.0, len(ranks) / self.cores)
        busiest = max(load.flops for load in ranks) if self.cores is None else _in_turns(ranks, self.cores)
        if len(ranks) == 1:
            return busiest / self.flops
        sent = max(load.sent_bytes for load in ranks) + 2 * observed * (len(ranks) - 1) / len(ranks)
        return busiest / self.flops + turns * sent / self.bandwidth + 2 * self.latency


def _in_turns(ranks: Sequence[RankLoad], cores: int) -> float:
    """FLOPs until all ranks are done, where fewer of them run at a time."""
    return max(max(load.flops for load in ranks), sum(load.flops for load in ranks) / cores)


def make(name: str, model: torch.nn.Module, **settings: object) -> nl.optim.Optimizer:
    """An optimizer of ours for a model."""
    watched = {"model": model} if name == "LayerMomentum" else {}
    made: nl.optim.Optimizer = getattr(nl.optim, name)(model.parameters(), lr=0.02, **watched, **settings)
    return made


@cache
def _works(name: str, shapes: tuple[Shape, ...], rows: int, dtype: torch.dtype) -> dict[Shape, Work]:
    """What a step does to a matrix of each shape."""
    with torch.device("meta"):
        model = Matrices(shapes, rows).to(dtype)
    optimizer = make(name, model, nonfinite="ignore")

    def differentiate() -> None:
        model.zero_grad()
        model().backward()

    return dict(zip(shapes, works([optimizer], differentiate, STEPS), strict=True))


def share_out(
    name: str, shapes: tuple[Shape, ...], ranks: int, rows: int, dtype: torch.dtype
) -> tuple[list[RankLoad], float]:
    """What each rank does, and the bytes of covariances of layers that are added over ranks, a step."""
    known = _works(name, tuple(sorted(set(shapes))), rows, dtype)
    found = loads([known[shape] for shape in shapes], ranks)
    observed = 0.0
    if name == "LayerMomentum":
        seen = [side for shape in shapes for side in shape if side <= 8192]
        observed = sum(4 * side**2 for side in seen) / STEPS
    return found, observed
