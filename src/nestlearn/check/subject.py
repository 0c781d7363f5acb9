"""The optimizer that is checked, and how it is put on a network."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import nn

from nestlearn.check.problem import WIDTHS, network

__all__ = ["Subject", "signature"]

Optimizer = torch.optim.Optimizer


@dataclass(frozen=True, eq=False)
class Subject:
    """An optimizer with its settings.

    Args:
        make: called as ``make(params, **settings)``; a class, or a function that returns an optimizer.
        name: ``module:Name``, by which it is found again.
        settings: keyword arguments, the same for every check.
        model: whether it is given ``model=``, the network.
        graph: whether its steps need a closure that keeps the graph of the loss.
        closure: whether its steps need a closure.
        matrices: whether it takes matrices alone.
        dtype: of the networks, float32 for those that do not take float64.
    """

    make: Callable[..., Optimizer]
    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    model: bool = False
    graph: bool = False
    closure: bool = False
    matrices: bool = False
    dtype: torch.dtype = torch.float64

    def network(self, dtype: torch.dtype | None = None, widths: Sequence[int] = WIDTHS) -> nn.Sequential:
        """A network that it takes, with the same weights every time."""
        return network(dtype or self.dtype, widths, bias=not self.matrices)

    def build(self, module: nn.Module, params: Iterable[Any] | None = None, **more: Any) -> Optimizer:
        """The optimizer of ``params``, by default all of ``module``; ``more`` is laid over the settings."""
        keywords = {**self.settings, **({"model": module} if self.model else {}), **more}
        torch.default_generator.manual_seed(0)  # for whoever draws what it begins with
        optimizer = self.make(module.parameters() if params is None else params, **keywords)
        # Those that put other weights into the model for evaluation, as schedule-free ones do, are told that it trains.
        train = getattr(optimizer, "train", None)
        if callable(train):
            train()
        return optimizer

    def takes(self, keyword: str) -> bool:
        """Whether the optimizer has a setting of that name."""
        if keyword in self._parameters:
            return True
        kinds = {parameter.kind for parameter in self._parameters.values()}
        return inspect.Parameter.VAR_KEYWORD in kinds and keyword in self._defaults

    @cached_property
    def _parameters(self) -> Mapping[str, inspect.Parameter]:
        return signature(self.make)

    @cached_property
    def _defaults(self) -> Mapping[str, Any]:
        return self.build(self.network()).defaults


def signature(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """The parameters of a function or class; empty where Python does not know them."""
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):  # something built in
        return {}
