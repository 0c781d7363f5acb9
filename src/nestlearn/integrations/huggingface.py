"""The Trainer of transformers makes an optimizer of groups without names, or of the model: how to get the second.

``Trainer(optimizer_cls_and_kwargs=(Class, settings))`` calls ``Class(groups, **settings)``, and takes a setting called
``model`` out of them. What is no class of optimizers is called as ``factory()(model, **settings)``, and that sees names
and layers.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import nn

from nestlearn.errors import MissingPackageError

__all__ = ["for_trainer"]

Make = Callable[..., torch.optim.Optimizer]


def for_trainer(
    kind: Make,
    *,
    watch: bool | None = None,
    elementwise: Any = None,
    weight_decay: float = 0.0,
    **settings: Any,
) -> tuple[Callable[[], Make], dict[str, Any]]:
    """What ``Trainer(optimizer_cls_and_kwargs=...)`` takes, for an optimizer that is made of the model.

    The optimizer gets named parameters, those that are trained, so that ``elementwise`` may be a pattern of names and a
    message names what it is about. As Trainer has it, biases and norms are in a group of their own, without decay.

    Args:
        kind: a class of ``nl.optim``, or a function that is called like one.
        watch: whether it is given ``model=``. By default where it cannot be made without, as ``LayerMomentum``.
        elementwise: as everywhere, or a function that gives it for the model, which need not be there yet.
        weight_decay: of the matrices and tables; what ``TrainingArguments`` says is for the optimizers that Trainer
            makes without this.
        **settings: of the optimizer, ``lr`` for one. The rate of ``TrainingArguments`` is not used.

    Returns:
        A factory and its settings.

    Raises:
        MissingPackageError: when Trainer calls the factory, and transformers is not installed.

    Example:
        >>> import nestlearn as nl
        >>> from nestlearn.integrations.huggingface import for_trainer
        >>> chosen = for_trainer(nl.optim.LayerMomentum, lr=0.01, elementwise=lambda model: [model.lm_head])
        >>> chosen[1]
        {'lr': 0.01}
    """
    if watch is None:
        model = inspect.signature(kind).parameters.get("model")
        watch = model is not None and model.default is inspect.Parameter.empty

    def make(model: nn.Module, **settings: Any) -> torch.optim.Optimizer:
        if watch:
            settings["model"] = model
        if elementwise is not None:
            function = callable(elementwise) and not isinstance(elementwise, nn.Module)
            settings["elementwise"] = elementwise(model) if function else elementwise
        return kind(_groups(model, weight_decay), **settings)

    return lambda: make, settings


def _groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The trained parameters with their names: those that Trainer would let decay, and the others."""
    try:
        trainer: Any = import_module("transformers").Trainer
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            'Trainer needs transformers and accelerate, one of which is not installed: pip install "nestlearn[hosts]"',
            name=error.name,
        ) from error
    # A method for subclasses to override; as it stands it looks at the model alone.
    decaying = set(trainer.get_decay_parameter_names(None, model))
    trained = [(name, each) for name, each in model.named_parameters() if each.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [each for each in trained if each[0] in decaying], "weight_decay": weight_decay},
        {"params": [each for each in trained if each[0] not in decaying], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
