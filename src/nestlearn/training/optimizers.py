"""Any optimizer by name: a contender of ``nestlearn compare``, a class of ``nestlearn.optim`` or ``torch.optim``, or a
function of one's own.

A contender is put on a model as the comparison does it. A class is put on the whole model: ours leave embeddings and
heads to their element-wise rule, those of torch treat all parameters alike. A name that is both is the contender;
``torch.optim.AdamW`` in full is the class.
"""

from __future__ import annotations

import inspect
from functools import lru_cache, update_wrapper
from typing import Any

import torch
from torch import nn

from nestlearn import optim
from nestlearn.errors import choice
from nestlearn.training.contender import Contender
from nestlearn.training.contenders import CONTENDERS, find_contender

__all__ = ["find_optimizer", "optimizer_classes", "optimizer_settings"]

OURS, TORCH = "nestlearn.optim.", "torch.optim."
SET_BY_TRAINING = {"params", "model", "tables", "lr", "elementwise", "elementwise_lr", "named_parameters"}


def optimizer_classes() -> dict[str, type[torch.optim.Optimizer]]:
    """Every optimizer class that can be named, by its dotted name: ours and those of torch."""
    ours = {OURS + name: getattr(optim, name) for name in optim.__all__ if name != "Optimizer"}
    theirs = {
        TORCH + name: kind
        for name, kind in vars(torch.optim).items()
        if inspect.isclass(kind) and issubclass(kind, torch.optim.Optimizer) and kind is not torch.optim.Optimizer
    }
    return {**ours, **theirs}


@lru_cache
def find_optimizer(name: str) -> Contender:
    """The optimizer called ``name``, without regard to case, as what the training loop asks of a contender.

    Raises:
        ValueError: there is none; the message gives all names and the nearest one.
    """
    if ":" in name or name.casefold() in {known.casefold() for known in CONTENDERS}:
        return find_contender(name)
    classes = optimizer_classes()
    known = {full.rpartition(".")[2]: full for full in classes} | {full: full for full in classes}
    known |= {full.replace(OURS, "nl.optim."): full for full in classes if full.startswith(OURS)}
    folded = {spelt.casefold(): full for spelt, full in known.items()}
    if name.casefold() not in folded:
        choice("optimizer", name, {*CONTENDERS, *(full.rpartition(".")[2] for full in classes)})
    full = folded[name.casefold()]
    return _of_class(full, classes[full])


def _of_class(name: str, kind: type[torch.optim.Optimizer]) -> Contender:
    parameters = inspect.signature(kind).parameters
    lr: Any = parameters["lr"].default  # torch and we agree that every optimizer has a default
    ours = issubclass(kind, optim.Optimizer)

    def make(
        model: nn.Module, lr: float, *, tables: list[nn.Module], elementwise_lr: float, **settings: Any
    ) -> list[torch.optim.Optimizer]:
        if "model" in parameters:
            settings.setdefault("model", model)
        if ours:
            settings |= {"elementwise": tables, "elementwise_lr": elementwise_lr}
        named = model.named_parameters() if ours else model.parameters()
        return [kind(named, lr=lr, **settings)]  # type: ignore[call-arg]

    about = (inspect.getdoc(kind) or name).split("\n", 1)[0]
    return Contender(name, update_wrapper(make, kind, assigned=()), float(lr), about, "own", tuned=(), control_tuned=())


def optimizer_settings(name: str) -> dict[str, Any] | None:
    """The settings that the optimizer called ``name`` takes besides its rates, with their defaults; None if it takes
    whatever it is given.
    """
    contender = find_optimizer(name)
    kind = inspect.unwrap(contender.make)
    parameters = inspect.signature(kind).parameters
    ours = inspect.isclass(kind) and issubclass(kind, optim.Optimizer)
    if not ours and any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return None
    plain = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    known: dict[str, Any] = {**dict.fromkeys(contender.tuned), **(_COMMON if ours else {})}
    known |= {key: parameter.default for key, parameter in parameters.items() if parameter.kind in plain}
    return {key: value for key, value in known.items() if key not in SET_BY_TRAINING}


_COMMON = optim.GradientDescent([torch.zeros(1)]).defaults
