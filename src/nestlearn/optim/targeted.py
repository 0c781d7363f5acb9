"""What optimizers with a target P share: naming it, and measuring the curvature it needs ([S] 5, O3, O5)."""

from typing import Any, Unpack

from torch import Tensor

from nestlearn.optim import curvature
from nestlearn.optim.checks import one_process
from nestlearn.optim.optimizer import Common, Optimizer, Params
from nestlearn.targets import GaussNewton, SecondMoment, Target, make_target

__all__ = ["TargetedOptimizer"]


class TargetedOptimizer(Optimizer):
    """Base of optimizers whose groups have a ``target`` and a ``target_period``.

    Groups keep the target's name, which any checkpoint can hold; target instances stay with the optimizer.
    """

    def __init__(self, params: Params, lr: float | Tensor, settings: dict[str, Any], **common: Unpack[Common]) -> None:
        self._targets: dict[str, Target] = {}
        super().__init__(params, lr, {**settings, "target": self._named(settings["target"])}, **common)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        if "target" in param_group:
            param_group["target"] = self._named(param_group["target"])
        super().add_param_group(param_group)

    def check_group(self, group: dict[str, Any]) -> None:
        self.target(group)

    def target(self, group: dict[str, Any]) -> Target:
        """The target of a group."""
        return make_target(self._targets.get(group["target"], group["target"]), group["target_period"])

    @property
    def needs_graph(self) -> bool:
        targets = [self.target(group) for group in self.param_groups]
        return any(target.observation is not None and not isinstance(target, GaussNewton) for target in targets)

    def element_target(self, group: dict[str, Any]) -> Target:
        """The target of parameters that are no matrices."""
        target = self.target(group)
        return target if target.elementwise else SecondMoment()

    def observe(self, loss: Any) -> dict[str, dict[Tensor, Tensor]]:
        """Measure the curvature for the parameters whose target is due for it."""
        if all(self.target(group).observation is None for group in self.param_groups):
            return {}
        one_process(
            self, "curvature", "Train in one process, or take a target that needs the gradient alone: 'second_moment'."
        )
        wanted: dict[Target, list[Tensor]] = {}
        for group in self.param_groups:
            target = self.target(group)
            if target.observation is not None:
                due = [p for p in group["params"] if p.grad is not None and self._due(p, group)]
                if due:
                    wanted.setdefault(target, []).extend(due)
        idle = all(float(group["lr"]) == 0 for group in self.param_groups)
        return curvature.measure(self, wanted, loss, idle=idle)

    def _due(self, parameter: Tensor, group: dict[str, Any]) -> bool:
        writes, rest = divmod(self.taken(parameter) + 1, group["period"])
        matrix = not self.entry(parameter, group).flat
        return matrix and rest == 0 and (writes - 1) % group["target_period"] == 0

    def _named(self, target: str | Target) -> str:
        if not isinstance(target, Target):
            return target
        self._targets[target.name] = target
        return target.name

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_targets": self._targets}
