"""Gradient descent and the momenta: from no memory to one that is addressed by its key (O1-O4, O10, O11)."""

from typing import Unpack

from torch import Tensor

from nestlearn.errors import choice
from nestlearn.optim.optimizer import Common, Optimizer, Params
from nestlearn.optim.settings import Group
from nestlearn.optim.targeted import TargetedOptimizer
from nestlearn.rules import (
    Link,
    adam,
    chain,
    delta,
    delta_entries,
    features,
    gradient,
    orthogonal,
    precondition,
)
from nestlearn.rules import sum as summed
from nestlearn.targets import Target

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

    def element_rule(self, group: Group) -> Link:
        return gradient()


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

    def check_group(self, group: Group) -> None:
        choice("readout", group["readout"], ("identity", "newton_schulz"))
        if group["feature_map"] is not None:
            choice("feature_map", group["feature_map"], ("random_features",))

    def matrix_rule(self, group: Group) -> Link | None:
        before = () if group["feature_map"] is None else (features(),)
        after = (orthogonal(scale="none"),) if group["readout"] == "newton_schulz" else ()
        return chain(*before, _momentum(group), *after) if before or after else None

    def element_rule(self, group: Group) -> Link:
        return _momentum(group) if self.matrix_rule(group) is None else adam()


def _momentum(group: Group) -> Link:
    return summed(group["retention"], group["nesterov"], name="momentum")


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

    def check_group(self, group: Group) -> None:
        super().check_group(group)
        if self.target(group).delayed:
            raise ValueError(f"target {group['target']!r} is known one step late, so it cannot precondition this step")

    def matrix_rule(self, group: Group) -> Link | None:
        target = self.target(group)
        return None if target.elementwise else self._rule(group, target)

    def element_rule(self, group: Group) -> Link:
        return self._rule(group, self.element_target(group))

    def _rule(self, group: Group, target: Target) -> Link:
        return chain(precondition(target), summed(group["retention"], name="momentum"))


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

    def matrix_rule(self, group: Group) -> Link | None:
        return delta(group["retention"], group["inner_lr"], group["literal"], name="momentum")

    def element_rule(self, group: Group) -> Link:
        return delta_entries(group["retention"], group["inner_lr"], group["literal"], name="momentum")
