"""Gradient descent and the momenta: from no memory to one that is addressed by its key (O1-O4, O10, O11)."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Unpack

import torch
from torch import Tensor

from nestlearn.errors import choice
from nestlearn.memory.associative import AssociativeMemory
from nestlearn.memory.boxes import sum_box
from nestlearn.memory.models import Constant, Parameters
from nestlearn.memory.nesting import Consult, Consulted, Scene, the_gradient
from nestlearn.memory.objectives import dot_product
from nestlearn.memory.rules import Context, Rule, State, always, in_words
from nestlearn.memory.rules import GradientDescent as GradientStep
from nestlearn.ops.matrix import newton_schulz
from nestlearn.optim.adam import adam_rule
from nestlearn.optim.optimizer import Common, Optimizer, Params
from nestlearn.optim.targeted import TargetedOptimizer
from nestlearn.targets import Target, random_features

__all__ = ["DeltaMomentum", "GradientDescent", "Momentum", "PreconditionedMomentum"]


class GradientDescent(Optimizer):
    """W <- (1 - lr weight_decay) W - lr u: one memory on one level (O1, [S] 4.1).

    Args:
        params: parameters, named parameters or groups of them.
        lr: learning rate.
        **common: see ``nestlearn.optim.optimizer.Common``.
    """

    def __init__(self, params: Params, lr: float | Tensor = 0.1, **common: Unpack[Common]) -> None:
        super().__init__(params, lr, {}, **common)

    def element_rule(self, group: dict[str, Any]) -> Rule:
        return GradientStep()


class Momentum(Optimizer):
    """M <- retention M + u; W <- W - lr M: a box behind the rule, two memories on two levels (O2, [S] 4.2).

    Equal to ``torch.optim.SGD(momentum=retention)``. The box may be given a feature map on its key, and be read
    through a non-linear map; either of them makes it a rule for matrices, and vectors then go to Adam.

    Args:
        params: parameters, named parameters or groups of them.
        lr: learning rate.
        retention: alpha, the share of the box that is kept; 0 is gradient descent.
        nesterov: step along u + retention M.
        feature_map: None, or "random_features" for phi(u) in the place of u (O11).
        readout: "identity", or "newton_schulz" for the orthogonal matrix next to M (O10).
        **common: see ``nestlearn.optim.optimizer.Common``.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.05,
        *,
        retention: float = 0.9,
        nesterov: bool = False,
        feature_map: str | None = None,
        readout: str = "identity",
        **common: Unpack[Common],
    ) -> None:
        settings = {"retention": retention, "nesterov": nesterov, "feature_map": feature_map, "readout": readout}
        super().__init__(params, lr, settings, **common)

    def check_group(self, group: dict[str, Any]) -> None:
        choice("readout", group["readout"], ("identity", "newton_schulz"))
        if group["feature_map"] is not None:
            choice("feature_map", group["feature_map"], ("random_features",))

    def matrix_rule(self, group: dict[str, Any]) -> Rule | None:
        if group["readout"] == "identity" and group["feature_map"] is None:
            return None
        value = the_gradient if group["feature_map"] is None else _features
        return _momentum_rule(group, value, newton_schulz if group["readout"] == "newton_schulz" else None)

    def element_rule(self, group: dict[str, Any]) -> Rule:
        if self.matrix_rule(group) is None:
            return _momentum_rule(group, the_gradient, None)
        return adam_rule((0.9, 0.999), 1e-8)


class PreconditionedMomentum(TargetedOptimizer):
    """M <- retention M + P u; W <- W - lr M: the box receives preconditioned gradients (O3, [NL] 46-47).

    Args:
        params: parameters, named parameters or groups of them.
        lr: learning rate. The box sums, so a step is about 1 / (1 - retention) times P.
        retention: alpha, the share of the box that is kept.
        target: P u, one of ``nl.targets.TARGETS`` or an instance. Targets for matrices leave other parameters to
            "second_moment". A forecast cannot be a preconditioner.
        target_period: curvature is measured and factors are renewed every so many writes.
        **common: see ``nestlearn.optim.optimizer.Common``.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        *,
        retention: float = 0.9,
        target: str | Target = "second_moment",
        target_period: int = 1,
        **common: Unpack[Common],
    ) -> None:
        settings = {"retention": retention, "target": target, "target_period": target_period}
        super().__init__(params, lr, settings, **common)

    def check_group(self, group: dict[str, Any]) -> None:
        super().check_group(group)
        if self.target(group).delayed:
            raise ValueError(f"target {group['target']!r} is known one step late, so it cannot precondition this step")

    def matrix_rule(self, group: dict[str, Any]) -> Rule | None:
        target = self.target(group)
        return None if target.elementwise else _preconditioned_rule(group, target)

    def element_rule(self, group: dict[str, Any]) -> Rule:
        return _preconditioned_rule(group, self.element_target(group))


class DeltaMomentum(Optimizer):
    """M <- M (retention I - inner_lr k^T k) + u, k = u / ||u||: momentum that first forgets along its key (O4, [NL]
    48-49).

    The l2 objective on a linear memory: what M already answers for the new key is taken out before the gradient is put
    in, so that directions which keep coming back do not pile up. Rows of the gradient are the keys; of a matrix with
    one row that is the print's vector. Parameters of one dimension or none have M <- M (retention - inner_lr k^2) + u
    entry by entry.

    Args:
        params: parameters, named parameters or groups of them.
        lr: learning rate.
        retention: alpha, the share of the memory that is kept.
        inner_lr: zeta, the share that is forgotten along the key; 0 is ``Momentum``.
        literal: use k = u as printed, which diverges once inner_lr ||u||^2 > 2. By default a matrix has k = u / ||u||
            (Frobenius norm), and an entry forgets the bounded share inner_lr u^2 / (1 + inner_lr u^2).
        **common: see ``nestlearn.optim.optimizer.Common``.
    """

    smallest_side = 1

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 0.05,
        *,
        retention: float = 0.9,
        inner_lr: float = 0.5,
        literal: bool = False,
        **common: Unpack[Common],
    ) -> None:
        settings = {"retention": retention, "inner_lr": inner_lr, "literal": literal}
        super().__init__(params, lr, settings, **common)

    def matrix_rule(self, group: dict[str, Any]) -> Rule | None:
        return _delta_rule(group, matrix=True)

    def element_rule(self, group: dict[str, Any]) -> Rule:
        return _delta_rule(group, matrix=False)


@dataclass(frozen=True)
class ForgetAlongKey(Rule):
    """theta <- retention theta - gradient - inner_lr theta k^T k: O4's write of the momentum.

    The memory is stored like the gradient and written whole, so its model is a box; what makes it linear is this rule,
    which reads the rows of the gradient as keys.
    """

    inner_lr: float = 0.5
    literal: bool = False
    matrix: bool = True

    def schedule(self, shape: torch.Size) -> Callable[[int], Hashable]:
        return always

    @property
    def update_is(self) -> str:
        """The update in words, k being the key."""
        forgotten = "k^T k" if self.matrix else "k^2" if self.literal else f"k^2 / (1 + {self.inner_lr:g} k^2)"
        return f"-value + {self.inner_lr:g} M {forgotten}"

    def update(self, state: State, gradients: Parameters, context: Context) -> tuple[Parameters, State]:
        if context.parameters is None or context.key is None:
            raise ValueError("forgetting along a key needs the memory's parameters and key: the write must pass them")
        memory, key = context.parameters["value"], context.key
        if self.matrix:
            norm = torch.linalg.matrix_norm(key, keepdim=True)
            rows = key if self.literal else key / torch.where(norm > 0, norm, torch.ones_like(norm))
            tall = rows.shape[-2] > rows.shape[-1]
            forgotten = memory @ (rows.mT @ rows) if tall else (memory @ rows.mT) @ rows
        else:
            energy = key.square()
            forgotten = memory * (energy if self.literal else energy / (1 + self.inner_lr * energy))
        return {"value": gradients["value"] + self.inner_lr * forgotten}, state


def _delta_rule(group: dict[str, Any], *, matrix: bool) -> Rule:
    write = ForgetAlongKey(
        retention=group["retention"], inner_lr=group["inner_lr"], literal=group["literal"], matrix=matrix
    )
    key_is = "u" if not matrix else "rows of u" if group["literal"] else "rows of u / ||u||"
    memories = (Consulted("momentum", AssociativeMemory(Constant(), dot_product, write), key_is=key_is),)
    return Consult(
        memories=lambda shape: memories, combine=lambda scene: scene.answers["momentum"], update_is="momentum"
    )


def _momentum_rule(group: dict[str, Any], value: Any, readout: Any) -> Rule:
    retention, nesterov = group["retention"], group["nesterov"]
    value_is = "u" if value is the_gradient else "phi(u)"
    memories = (sum_box("momentum", retention, value=value, value_is=value_is),)
    update_is = f"{value_is} + {in_words(retention)} * momentum" if nesterov else "momentum"

    def combine(scene: Scene) -> Tensor:
        answer = scene.answers["momentum"]
        if nesterov:
            answer = value(scene) + retention * answer
        return answer if readout is None else readout(answer)

    update_is = update_is if readout is None else f"NS({update_is})"
    return Consult(memories=lambda shape: memories, combine=combine, update_is=update_is)


def _preconditioned_rule(group: dict[str, Any], target: Target) -> Rule:
    momentum = sum_box("momentum", group["retention"], value=target, value_is=target.value_is)
    return Consult(
        memories=lambda shape: (*target.memories(shape), momentum),
        combine=lambda scene: scene.answers["momentum"],
        update_is="momentum",
    )


def _features(scene: Scene) -> Tensor:
    return random_features(scene.gradient)
