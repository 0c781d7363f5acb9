"""The optimizers that are put into hosts: AdamW, every class of ours, and forms of it that ask more of a host."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from nestlearn import optim

__all__ = ["CHOICES", "Choice"]


@dataclass(frozen=True)
class Choice:
    """An optimizer and its settings.

    Args:
        name: of the row.
        kind: the class.
        settings: keyword arguments.
        watches: whether it is given ``model=``.
        closure: whether a step needs a closure that keeps the graph.
    """

    name: str
    kind: type[torch.optim.Optimizer]
    settings: Mapping[str, Any] = field(default_factory=dict)
    watches: bool = False
    closure: bool = False

    def build(
        self, model: nn.Module, params: Iterable[Any] | None = None, elementwise: Any = (), **more: Any
    ) -> torch.optim.Optimizer:
        """The optimizer over ``params`` (default: all that is trained); ``more`` is laid over the settings."""
        trained = (each for each in model.parameters() if each.requires_grad)
        return self.kind(trained if params is None else params, **self.keywords(model, elementwise), **more)

    def keywords(self, model: nn.Module, elementwise: Any = ()) -> dict[str, Any]:
        """All keywords but the rate."""
        found = dict(self.settings) | ({"model": model} if self.watches else {})
        return found | ({"elementwise": elementwise} if self.ours and elementwise else {})

    @property
    def ours(self) -> bool:
        """Whether it is of this library."""
        return issubclass(self.kind, optim.Optimizer)

    def __str__(self) -> str:
        return self.name


def _ours(name: str, said: str = "", watches: bool = False, closure: bool = False, **settings: Any) -> Choice:
    return Choice(f"{name} {said}".strip(), getattr(optim, name), settings, watches, closure)


CHOICES: tuple[Choice, ...] = (
    Choice("torch AdamW", torch.optim.AdamW),
    _ours("GradientDescent"),
    _ours("Momentum"),
    _ours("PreconditionedMomentum"),
    _ours("DeltaMomentum"),
    _ours("DeepMomentum", hidden=4),
    _ours("Adam"),
    _ours("DeepAdam", hidden=4),
    _ours("Muon"),
    _ours("M3", slow_period=2),
    _ours("SOAP", refresh=2),
    _ours("SOAPMuon", refresh=2),
    _ours("Nested", refresh=2),
    _ours("SecantMomentum"),
    _ours("SecantMomentum", "watching", watches=True),
    _ours("LayerMomentum", "watching", watches=True, refresh=2),
    _ours("DeltaGradientDescent", "watching", watches=True),
    _ours("PreconditionedMomentum", "on curvature", closure=True, target="hessian", target_period=2),
    _ours("DeepMomentum", "on curvature", closure=True, hidden=4, objective="quadratic"),
)
"""Rows of the table, the simple ones first."""
