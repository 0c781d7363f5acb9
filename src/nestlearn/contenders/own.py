"""A contender that the user brings: ``module:function``, beside the ones of the registry.

    def make(named_parameters, lr=0.02, *, retention=0.9, weight_decay=0.0): -> torch.optim.Optimizer

gets the hidden matrices as (name, parameter) pairs; Adam has everything else, as for every contender. A class will do,
``torch.optim:SGD`` for one. Its signature says what is tuned: lr, whose default is the middle of the grid, and those
of retention, weight_decay and inner_lr that it has. If it has ``memory``, then ``memory=False`` is the control.
"""

from __future__ import annotations

import inspect
from typing import Any

from nestlearn.contenders.contender import Contender, beside_adam
from nestlearn.imported import imported

__all__ = ["own_contender"]

TUNED = ("retention", "weight_decay", "inner_lr")


def _default(name: str, parameters: Any, setting: str) -> float:
    value = parameters[setting].default if setting in parameters else inspect.Parameter.empty
    if not isinstance(value, int | float) or isinstance(value, bool) or value <= 0:
        raise ValueError(
            f"the optimizer {name}: expected an argument `{setting}` with a default above zero, the middle of its grid"
        )
    return float(value)


def own_contender(name: str) -> Contender:
    """The contender called ``module:function``.

    Raises:
        ValueError: there is no such function, or its signature does not say where the grids begin.
    """
    make = imported(name, "optimizer")
    parameters = inspect.signature(make).parameters
    tuned = tuple(setting for setting in TUNED if setting in parameters)
    return Contender(
        name,
        beside_adam(make),
        _default(name, parameters, "lr"),
        (inspect.getdoc(make) or "an optimizer of your own").split("\n", 1)[0],
        "own",
        tuned=tuned,
        inner_lr=_default(name, parameters, "inner_lr") if "inner_lr" in tuned else None,
        control={"memory": False} if "memory" in parameters else None,
        control_tuned=tuple(setting for setting in tuned if setting != "inner_lr"),
    )
