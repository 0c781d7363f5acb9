"""The members of the contract: every exported optimizer, with the settings under which the suite runs it.

One list drives every test of this folder. `test_members.py` fails when an exported optimizer is missing from it.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import nn

import nestlearn as nl

__all__ = ["EVERY", "MEMBERS", "OPEN", "Member", "exported_optimizers", "over"]


@dataclass(frozen=True)
class Member:
    """One optimizer class with one setting of its arguments.

    Args:
        name: class name in `nl.optim`.
        settings: keyword arguments of the constructor.
        inner: settings a parameter group may override (used by the tests of parameter groups).
        model: whether `model=` is passed.
        closure: whether `step` needs a closure that keeps the graph (curvature targets).
        rests: whether a zero gradient leaves the weights where they are; the decay of O12 does not.
        linear: whether the first displacement is proportional to lr; the implicit step of O12 is not.
        extra: a further setting of a class that other members stand for in the fast part of the suite.
        collects: whether `period` may be above 1; O16 measures curvature at each gradient and refuses.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    inner: Mapping[str, Any] = field(default_factory=dict)
    model: bool = False
    closure: bool = False
    rests: bool = True
    linear: bool = True
    extra: bool = False
    collects: bool = True

    @property
    def cls(self) -> type[torch.optim.Optimizer]:
        return getattr(nl.optim, self.name)

    def build(self, module: nn.Module, params: Iterable[Any] | None = None, **overrides: Any) -> torch.optim.Optimizer:
        """The optimizer over `params` (default: all of `module`), with `overrides` on top of the settings.

        Members that read layers refuse matrices that belong to none. Where `module` has no layer, all its parameters
        are named as element-wise.
        """
        keywords = {**self.settings, **({"model": module} if self.model else {})}
        if self.model and not any(isinstance(layer, (nn.Linear, nn.Conv2d)) for layer in module.modules()):
            keywords["elementwise"] = [module]
        keywords |= overrides
        return self.cls(module.parameters() if params is None else params, **keywords)

    def __str__(self) -> str:
        words = [f"{key}={value}" for key, value in self.settings.items()] + (["model"] if self.model else [])
        return "-".join([self.name, *words]).replace(" ", "")


def deep(closure: bool = False, extra: bool = False, **settings: Any) -> Member:
    """A small deep momentum: four hidden units are enough for every property tested here."""
    inner = {"retention": 0.5, "inner_lr": 0.05}
    collects = settings.get("objective") != "quadratic"
    return Member("DeepMomentum", {"hidden": 4, **settings}, inner, closure=closure, extra=extra, collects=collects)


MEMBERS: tuple[Member, ...] = (
    Member("GradientDescent"),
    Member("Momentum", {}, {"retention": 0.5}),
    Member("Momentum", {"nesterov": True}, {"retention": 0.5}, extra=True),
    Member("Momentum", {"readout": "newton_schulz"}, {"retention": 0.5}, extra=True),
    Member("Momentum", {"feature_map": "random_features"}, {"retention": 0.5}, extra=True),
    Member("PreconditionedMomentum", {}, {"retention": 0.5}),
    Member("PreconditionedMomentum", {"target": "kronecker", "target_period": 2}, {"retention": 0.5}, extra=True),
    Member(
        "PreconditionedMomentum",
        {"target": "hessian", "target_period": 2},
        {"retention": 0.5},
        closure=True,
        extra=True,
    ),
    Member("DeltaMomentum", {}, {"retention": 0.5, "inner_lr": 0.05}),
    Member("DeltaMomentum", {"literal": True}, {"retention": 0.5, "inner_lr": 0.05}, extra=True),
    deep(),
    deep(memory=False, extra=True),
    deep(levels=2, extra=True),
    deep(levels=3, extra=True),
    deep(readout="identity", extra=True),
    deep(objective="dot_product", extra=True),
    deep(objective="hypergradient", extra=True),
    deep(objective="quadratic", closure=True),
    deep(memory="matrix", extra=True),
    deep(target="orthogonal", target_period=2, extra=True),
    deep(target="next_gradient", extra=True),
    deep(target="kronecker", target_period=2, extra=True),
    deep(target="average_gradient", extra=True),
    deep(target="random_features", extra=True),
    deep(target="identity", extra=True),
    deep(target="ones", objective="dot_product", extra=True),
    Member("Adam", {}, {"betas": (0.5, 0.7)}),
    Member("DeepAdam", {"hidden": 4}, {"inner_lr": 0.05}),
    Member("DeepAdam", {"hidden": 4, "memory": False}, {"inner_lr": 0.05}, extra=True),
    Member("Muon", {}, {"retention": 0.5}),
    Member("Muon", {"scale": "spectral", "nesterov": False}, {"retention": 0.5}, extra=True),
    Member("M3", {"slow_period": 2}, {"retention": 0.5, "slow_period": 3}),
    Member("M3", {"slow_period": 2, "literal": True}, {"slow_period": 3}, extra=True),
    Member("SOAP", {"refresh": 2}, {"betas": (0.5, 0.7)}),
    Member("SOAP", {"memory": False}, {"betas": (0.5, 0.7)}, extra=True),
    Member("SOAPMuon", {"refresh": 2}, {"retention": 0.5}),
    Member("Nested", {"refresh": 2}, {"retention": 0.5}),
    Member("Nested", {"memory": False}, {"retention": 0.5}, extra=True),
    Member("SecantMomentum", {}, {"retention": 0.5}),
    Member("SecantMomentum", {"memory": False}, {"retention": 0.5}, extra=True),
    Member("SecantMomentum", {}, {"retention": 0.5}, model=True),
    Member("LayerMomentum", {"refresh": 2}, {"retention": 0.5}, model=True),
    Member("LayerMomentum", {"sides": "input"}, {"retention": 0.5, "refresh": 1}, model=True, extra=True),
    Member("LayerMomentum", {"sides": "input", "readout": "identity"}, {"retention": 0.5}, model=True, extra=True),
    Member("LayerMomentum", {"memory": False}, {"retention": 0.5}, model=True, extra=True),
    Member("DeltaGradientDescent", {}, {}, model=True, rests=False, linear=False),
)


ALIKE = frozenset({"GradientDescent", "PreconditionedMomentum", "DeltaMomentum", "DeepAdam", "M3", "SOAP", "SOAPMuon"})
"""Classes whose state and steps are those of others, as Adam's are element-wise and Nested's in bases."""


def over(members: Iterable[Member]) -> dict[str, Any]:
    """Keywords of `pytest.mark.parametrize` for these members; the extra ones are slow, and classes like others."""
    marked = [
        pytest.param(each, marks=pytest.mark.slow if each.extra or each.name in ALIKE else ()) for each in members
    ]
    return {"argnames": "member", "argvalues": marked, "ids": str}


EVERY = over(MEMBERS)
COLLECTING = over(member for member in MEMBERS if member.collects)
"""The members that can collect the gradients of a period."""

OPEN = over(member for member in MEMBERS if not member.closure)
"""The members whose step needs no closure."""


def exported_optimizers() -> dict[str, type[torch.optim.Optimizer]]:
    """Every public optimizer class of `nl.optim`, by name; their common base is not one of them."""
    named = {name: getattr(nl.optim, name) for name in nl.optim.__all__ if name not in ("Optimizer", "tables")}
    return {
        name: value
        for name, value in named.items()
        if inspect.isclass(value) and issubclass(value, torch.optim.Optimizer)
    }
