"""Adam with two deep memories: the momentum and the second moment both learn (O8, [S] 5.4)."""

from typing import Unpack

from torch import Tensor

from nestlearn.optim.adam import check_betas
from nestlearn.optim.deep import written_by
from nestlearn.optim.optimizer import Common, Optimizer, Params
from nestlearn.optim.settings import Group
from nestlearn.rules import Link, adam, deep_adam

__all__ = ["DeepAdam"]


class DeepAdam(Optimizer):
    """Adam whose momentum M and second moment V are MLP memories, side by side on one level (O8, [S] 5.4).

        W <- (1 - lr weight_decay) W - lr M(u) / (sqrt(V(u)) + eps)
        M(u) = m + sqrt(v) * MLP_M(u),   V(u) = v * max(1 + MLP_V(u), 0.1)

    m and v are Adam's boxes, the skip paths on which the MLPs (zero at the start) put what the boxes cannot know:
    after seeing u_{t-1}, what will u_t be? Both are written by l2 regression on such pairs: MLP_M towards u_t - m,
    MLP_V towards u_t^2 / v - 1. Keys are rows of the gradient.

    Args:
        params: parameters, named parameters or groups of them; matrices get this rule, the rest Adam.
        lr: learning rate.
        betas: retention of the boxes m and v.
        eps: added to the denominator.
        inner_lr: learning rate of both MLPs.
        retention: share of the MLPs' weights kept by a write.
        hidden: hidden units of each MLP.
        levels: as in ``DeepMomentum`` (O6).
        memory: False silences both MLPs: Adam.
        seed: of the MLPs' first weights.
        **common: see ``nestlearn.optim.optimizer.Common``.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        inner_lr: float = 0.1,
        retention: float = 0.999,
        hidden: int = 64,
        levels: int = 1,
        memory: bool = True,
        seed: int = 0,
        **common: Unpack[Common],
    ) -> None:
        settings = {
            "betas": betas,
            "eps": eps,
            "inner_lr": inner_lr,
            "retention": retention,
            "hidden": hidden,
            "levels": levels,
            "memory": memory,
            "seed": seed,
        }
        super().__init__(params, lr, settings, **common)

    def check_group(self, group: Group) -> None:
        check_betas(group["betas"])

    def element_rule(self, group: Group) -> Link:
        return adam(tuple(group["betas"]), group["eps"])

    def matrix_rule(self, group: Group) -> Link | None:
        if not group["memory"]:
            return None
        first, second = group["betas"]
        return deep_adam(
            group["hidden"],
            group["inner_lr"],
            group["retention"],
            written_by=written_by(group, group["levels"]),
            first=first,
            second=second,
            eps=group["eps"],
            name="",
        )
