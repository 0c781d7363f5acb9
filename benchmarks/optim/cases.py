"""Every optimizer with its own defaults, and the workloads on which it is compared with itself.

A worker starts them with the ``nestlearn`` of either tree, so a case names what both have: the class and ``model=``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import nestlearn as nl
from benchmarks.optim.timing import Unit
from benchmarks.optim.workloads import Workload, layers, plain

__all__ = ["CASES", "Case", "composed"]

Build = Callable[..., torch.optim.Optimizer]
"""Parameters, and ``model=`` where a case watches one, -> optimizer."""


@dataclass(frozen=True)
class Case:
    """A class of ``nestlearn.optim``.

    Args:
        name: of the class.
        workloads: names of workloads.
        watches: whether it is given ``model=``; the workload then is a chain of layers.
        cycle: steps after which its work repeats.
    """

    name: str
    workloads: tuple[str, ...]
    watches: bool = False
    cycle: int = 1

    def __str__(self) -> str:
        return f"{self.name}(model)" if self.watches else self.name

    def build(self, parameters: Any, **model: nn.Module) -> torch.optim.Optimizer:
        """The class with its defaults."""
        made: torch.optim.Optimizer = getattr(nl.optim, self.name)(parameters, **model)
        return made

    def start(self, workload: Workload, build: Build | None = None) -> tuple[Unit, torch.optim.Optimizer]:
        """A unit to time and its optimizer: the class's, or what ``build`` makes."""
        build = build or self.build
        torch.manual_seed(0)
        if self.watches:
            return layers(workload, lambda model: build(workload.given(list(model.parameters())), model=model), "cpu")
        return plain(workload, build, "cpu")


SMALL = ("200 small tensors", "32 layers of 128x128")
ENTRIES = ("transformer, 10M", *SMALL)
MATRICES = (*SMALL, "4 of 1024x1024")
WATCHED = ("8 of 128x128", "4 of 1024x1024")

CASES = (
    Case("GradientDescent", ENTRIES),
    Case("Momentum", ENTRIES),
    Case("Adam", ENTRIES),
    Case("PreconditionedMomentum", (*ENTRIES, "4 of 1024x1024")),
    Case("DeltaMomentum", MATRICES),
    Case("DeepMomentum", MATRICES),
    Case("DeepAdam", MATRICES),
    Case("Muon", MATRICES),
    Case("M3", MATRICES, cycle=10),
    Case("Nested", MATRICES, cycle=5),
    Case("SOAP", MATRICES, cycle=10),
    Case("SOAPMuon", MATRICES, cycle=10),
    Case("SecantMomentum", MATRICES),
    Case("SecantMomentum", WATCHED, watches=True),
    Case("LayerMomentum", WATCHED, watches=True, cycle=5),
    Case("DeltaGradientDescent", WATCHED, watches=True),
)


def composed(case: Case) -> Build:
    """The same optimizer from the rule that it prints: ``nestlearn.optim.Optimizer`` with two expressions."""
    names = {name: getattr(module, name) for module in (nl.rules, nl.targets) for name in module.__all__}
    small = nn.Linear(2, 2)  # no rule depends on it
    named: Any = case.build(small.parameters(), **({"model": small} if case.watches else {}))
    (group,) = named.param_groups
    made = named.rules(group)
    matrix, element = (None if rule is None else eval(repr(rule), dict(names)) for rule in (made.matrix, made.element))

    def build(parameters: Any, **model: nn.Module) -> torch.optim.Optimizer:
        return nl.optim.Optimizer(parameters, group["lr"], matrix=matrix, element=element, **model)

    return build
