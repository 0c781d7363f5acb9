"""What optimizers with a target P share: groups keep its name ([S] 5, O3, O5)."""

from typing import Any, Unpack

from torch import Tensor

from nestlearn.optim.optimizer import Common, Optimizer, Params
from nestlearn.optim.settings import Group
from nestlearn.targets import SecondMoment, Target, make_target

__all__ = ["TargetedOptimizer"]


class TargetedOptimizer(Optimizer):
    """Base of optimizers whose groups have a ``target`` and a ``target_period``.

    Groups keep the target's name, which any checkpoint can hold; target instances stay with the optimizer.
    """

    def __init__(self, params: Params, lr: float | Tensor, settings: Group, **common: Unpack[Common]) -> None:
        self._targets: dict[str, Target] = {}
        super().__init__(params, lr, {**settings, "target": self._named(settings["target"])}, **common)

    def add_param_group(self, param_group: Group) -> None:
        if "target" in param_group:
            param_group["target"] = self._named(param_group["target"])
        super().add_param_group(param_group)

    def check_group(self, group: Group) -> None:
        self.target(group)

    def target(self, group: Group) -> Target:
        """The target of a group."""
        return make_target(self._targets.get(group["target"]) or group["target"], group["target_period"])

    def element_target(self, group: Group) -> Target:
        """The target of parameters that are no matrices."""
        target = self.target(group)
        return target if target.elementwise else SecondMoment()

    def _named(self, target: str | Target) -> str:
        if not isinstance(target, Target):
            return target
        self._targets[target.name] = target
        return target.name

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_targets": self._targets}
