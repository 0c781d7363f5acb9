"""Where in an optimizer lies what can be measured: weights, what memories hold, and their surprises, by level (M4)."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from nestlearn.descriptions.data import WEIGHTS
from nestlearn.descriptions.ours import describe_ours, locate
from nestlearn.descriptions.torch_optimizers import describe_torch
from nestlearn.optim.lanes import as_real
from nestlearn.optim.optimizer import Optimizer
from nestlearn.optim.sharded import local

__all__ = ["ELEMENT", "MATRIX", "Copies", "Found", "Place", "Standing", "copies", "places", "standing", "unwrapped"]

MATRIX, ELEMENT = "matrix", "element"
"""What weights are called, after the two rules of an optimizer; with torch's, those with two dimensions or more."""

Kind = Literal["weights", "entries", "map", "surprise"]


class Found(NamedTuple):
    """What lies at a place on this rank.

    Args:
        tensor: real, without a graph.
        whole: whether that is all of it, and not a shard.
    """

    tensor: Tensor
    whole: bool


@dataclass(frozen=True, eq=False)
class Place:
    """One tensor that is measured.

    Args:
        level: of the memory that it belongs to.
        memory: the name of that memory: "matrix" and "element" are the weights, "matrix.momentum" is behind the former.
        kind: "weights"; "entries", one number for each of the weights, or "map" of what a memory holds; "surprise".
        parameter: which of the parameters.
        key: its name in ``optimizer.state[parameter]``; empty for the weights.
        period: the memory is written every so many steps.
    """

    level: int
    memory: str
    kind: Kind
    parameter: Tensor
    key: str = ""
    period: int = 1

    @property
    def spot(self) -> tuple[int, str]:
        """The same for the same tensor, as long as the parameter lives."""
        return id(self.parameter), self.key

    def find(self, optimizer: torch.optim.Optimizer) -> Found | None:
        """What is there; None for nothing, for what another rank has, and for what is no real or complex number."""
        raw = optimizer.state.get(self.parameter, {}).get(self.key) if self.key else self.parameter
        if not isinstance(raw, Tensor) or raw.is_meta:
            return None
        here = local(raw.detach())
        real = as_real(here)
        return Found(real, here.shape == raw.shape) if real.numel() and real.is_floating_point() else None


Copies = Mapping[tuple[int, str], Tensor]
"""What weights and memories were before a step, by their ``Place.spot``."""


@torch.no_grad()
def copies(optimizer: torch.optim.Optimizer, *, memories: bool = False, among: Iterable[Place] | None = None) -> Copies:
    """What weights are now, for ``scalars`` after the next step.

    Args:
        optimizer: whose weights.
        memories: copy what memories hold too, to measure how much of it the step changes.
        among: ``places(optimizer)``, if they are known.
    """
    optimizer = unwrapped(optimizer)
    kinds = {"weights", "entries", "map"} if memories else {"weights"}
    chosen = [place for place in (places(optimizer) if among is None else among) if place.kind in kinds]
    found = [(place, place.find(optimizer)) for place in chosen]
    return {place.spot: each.tensor.clone() for place, each in found if each is not None}


def unwrapped(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimizer inside those of Accelerate and Lightning, which hold it as ``.optimizer``."""
    while isinstance(inner := getattr(optimizer, "optimizer", None), torch.optim.Optimizer):
        optimizer = inner
    return optimizer


def places(optimizer: torch.optim.Optimizer) -> list[Place]:
    """All that can be measured as the optimizer stands now, slowest level first, matrices before the rest."""
    found = _of_ours(optimizer) if isinstance(optimizer, Optimizer) else _of_any(optimizer)
    return sorted(found, key=lambda place: (place.level, place.memory.partition(".")[0] != MATRIX))


Standing = list[tuple[int, bool, int]]
"""What ``places`` depends on; as long as it is alike, they are."""


def standing(optimizer: torch.optim.Optimizer) -> Standing:
    """Of each parameter which it is, whether it learns, and how much is kept for it."""
    return [
        (id(parameter), parameter.requires_grad, len(optimizer.state.get(parameter, ())))
        for group in optimizer.param_groups
        for parameter in group["params"]
    ]


def _of_ours(optimizer: Optimizer) -> Iterator[Place]:
    groups = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
    for system, parameters in describe_ours(optimizer):
        roles = {memory.name: memory for memory in system.memories}
        for parameter in parameters:
            of = MATRIX if optimizer.entry(parameter, groups[id(parameter)]).own_lr else ELEMENT
            yield Place(roles[WEIGHTS].level, of, "weights", parameter, period=roles[WEIGHTS].period)
            for key in optimizer.state.get(parameter, ()):
                role, rest = locate(key, roles)
                if role is not None and (rest[0] == "model" or rest == ["surprise"]):
                    holds: Kind = "map" if roles[role].holds == "map" else "entries"
                    kind = holds if rest[0] == "model" else "surprise"
                    yield Place(roles[role].level, f"{of}.{role}", kind, parameter, key, roles[role].period)


def _of_any(optimizer: torch.optim.Optimizer) -> Iterator[Place]:
    for system, parameters in describe_torch(optimizer):
        behind = {memory.state: memory for memory in system.memories if memory.state}
        (weights,) = [memory for memory in system.memories if memory.name == WEIGHTS]
        for parameter in parameters:
            of = MATRIX if parameter.ndim > 1 else ELEMENT
            yield Place(weights.level, of, "weights", parameter)
            for key in optimizer.state.get(parameter, ()):
                if key in behind:
                    yield Place(behind[key].level, f"{of}.{behind[key].name}", "entries", parameter, key)
