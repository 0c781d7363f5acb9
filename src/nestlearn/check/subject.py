"""The optimizer that is checked, and how it is put on a network."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import nn

from nestlearn.check.problem import network
from nestlearn.errors import SettingsError

__all__ = ["Subject", "prepared"]

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
    """

    make: Callable[..., Optimizer]
    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    model: bool = False
    graph: bool = False
    closure: bool = False
    matrices: bool = False

    def build(self, module: nn.Module, params: Iterable[Any] | None = None, **more: Any) -> Optimizer:
        """The optimizer of ``params``, by default all of ``module``; ``more`` is laid over the settings."""
        keywords = {**self.settings, **({"model": module} if self.model else {}), **more}
        torch.manual_seed(0)  # for whoever draws what it begins with
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
        return _signature(self.make)

    @cached_property
    def _defaults(self) -> Mapping[str, Any]:
        return self.build(network(bias=not self.matrices)).defaults


def prepared(subject: Subject) -> Subject:
    """The subject with all that its class needs by default.

    Raises:
        SettingsError: no optimizer can be made of it; the message says what it said.
    """
    needed = _signature(subject.make).get("model")
    if needed is not None and needed.default is inspect.Parameter.empty:
        subject = replace(subject, model=True)
    last: Exception | None = None
    for matrices in (False, True):
        found = replace(subject, matrices=matrices)
        try:
            optimizer = found.build(network(bias=not matrices))
        except Exception as error:  # noqa: BLE001 - told, whatever it is
            last = last or error
            continue
        if not hasattr(optimizer, "step"):
            raise SettingsError(f"expected {subject.name} to make an optimizer, got {type(optimizer).__name__}")
        closure = _signature(optimizer.step).get("closure")
        alone = closure is not None and closure.default is inspect.Parameter.empty
        return replace(found, closure=found.graph or found.closure or alone)
    raise SettingsError(
        f"{subject.name} cannot be made of the parameters of a network: {type(last).__name__}: {last}. "
        "Give what it needs by --set, and --model if it takes model="
    )


def _signature(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):  # something built in
        return {}
