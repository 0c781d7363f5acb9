"""Contenders made of a class: any optimizer of ``nestlearn.optim`` or ``torch.optim``, put on the whole model.

Ours leave embeddings and heads to their element-wise rule, those of torch treat all parameters alike. Nothing of them
is tuned.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import update_wrapper
from typing import Any

import torch
from torch import Tensor, nn

from nestlearn import optim
from nestlearn.contenders.contender import Contender, as_told

__all__ = ["TORCH", "class_contender", "optimizer_classes"]

OURS, TORCH = "nestlearn.optim.", "torch.optim."


def optimizer_classes() -> dict[str, type[torch.optim.Optimizer]]:
    """Every optimizer class that can be named, by its dotted name: ours and those of torch."""
    ours = {OURS + name: getattr(optim, name) for name in optim.__all__ if name not in ("Optimizer", "tables")}
    theirs = {
        TORCH + name: kind
        for name, kind in vars(torch.optim).items()
        if inspect.isclass(kind) and issubclass(kind, torch.optim.Optimizer) and kind is not torch.optim.Optimizer
    }
    return {**ours, **theirs}


def class_contender(name: str) -> Contender | None:
    """The class called ``name``, without regard to case: ``SGD``, ``torch.optim.SGD`` or ``nl.optim.M3``."""
    classes = optimizer_classes()
    known = {full.rpartition(".")[2]: full for full in classes} | {full: full for full in classes}
    known |= {full.replace(OURS, "nl.optim."): full for full in classes if full.startswith(OURS)}
    full = {spelt.casefold(): full for spelt, full in known.items()}.get(name.casefold())
    return None if full is None else _of_class(full, classes[full])


def _of_class(name: str, kind: type[torch.optim.Optimizer]) -> Contender:
    parameters = inspect.signature(kind).parameters
    lr: Any = parameters["lr"].default  # torch and we agree that every optimizer has a default
    ours = issubclass(kind, optim.Optimizer)

    def make(
        model: nn.Module, lr: float, *, tables: list[Tensor], elementwise_lr: float, **settings: Any
    ) -> list[torch.optim.Optimizer]:
        if "model" in parameters:
            settings.setdefault("model", model)
        if ours:
            settings |= {"elementwise": tables, "elementwise_lr": elementwise_lr}
        build: Callable[..., torch.optim.Optimizer] = as_told(kind, settings) if ours else kind
        return [build(model.named_parameters() if ours else model.parameters(), lr=lr, **settings)]

    about = (inspect.getdoc(kind) or name).split("\n", 1)[0]
    return Contender(name, update_wrapper(make, kind, assigned=()), float(lr), about, "own", tuned=(), control_tuned=())
