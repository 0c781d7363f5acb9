"""How nested-learning's ``DeepMomentum`` is driven: it turns a gradient into an update and is no optimizer.

Its own manager asks it for the update of each named parameter and subtracts ``lr`` times the answer. This does the same
and nothing else, so that the module can be timed and checked; what an optimizer has and the module lacks
(``param_groups``, a closure, a state in its ``state_dict``) is not added here.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

__all__ = ["Managed"]


class Managed:
    """Steps of ``DeepMomentum(variant=..., beta=...)`` on some parameters."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float = 1e-2, *, variant: str, beta: float = 0.9) -> None:
        from nested_learning.optim.deep import DeepMomentum

        self.memory = DeepMomentum(variant=variant, beta=beta)
        self.lr = lr
        self._parameters = {str(index): parameter for index, parameter in enumerate(params)}

    @torch.no_grad()
    def step(self) -> None:
        for name, parameter in self._parameters.items():
            if parameter.grad is not None:
                parameter.add_(self.memory(parameter.grad, param_key=name), alpha=-self.lr)

    @property
    def state(self) -> dict[str, dict[str, Any]]:
        return {name: vars(state) for name, state in self.memory.state.items()}

    def state_dict(self) -> dict[str, Any]:
        return self.memory.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.memory.load_state_dict(state)
