"""The secant memory: curvature learned from how gradients change as the weights move (O19)."""

from typing import Unpack

from torch import Tensor, nn

from nestlearn.errors import choice
from nestlearn.optim.optimizer import Common, Optimizer, Params
from nestlearn.optim.settings import Group
from nestlearn.rules import Link, adam, chain, orthogonal, secant
from nestlearn.rules.secant import KEYS

__all__ = ["SecantMomentum"]


class SecantMomentum(Optimizer):
    """Carry the average of old gradients to where the weights are now (O19).

    The momentum m averages gradients that were taken at other weights; w averages those weights. How the gradient
    changes along D = W - w is what the Hessian would tell, and a linear memory learns it online, with no Hessian
    product:

        key: D, seen through A and B   value: u - m      written by discounted least squares
        W <- W - lr scale NS(m + rho M(D))

    With B and A the covariances of error signals and inputs, B D A is the Kronecker-factored (Gauss-Newton) product of
    the curvature with D (Martens and Grosse 2015); the memory learns its size, and that of the other keys.

    Args:
        params: parameters, named parameters or groups of them; matrices get this rule, the rest Adam.
        lr: learning rate, in units that suit AdamW.
        model: the module whose layers are watched for A and B; None takes u^T u and u u^T instead, almost as good.
        retention: share of the momentum (and of w) that is kept.
        rho: how much of the learned change is applied; 0 is Muon. None: 1, and 0.5 with model=.
        keys: "kronecker" (B D A), "all" (D, D A, B D, B D A) or "displacement" (D alone, which over-corrects the flat
            directions that Newton-Schulz then makes as long as the steep ones). None: "kronecker", "all" with model=.
        nesterov: read between m + rho M(D) and the gradient.
        memory_retention: share of the least-squares statistics that is kept.
        covariance_retention: share of A and B that is kept.
        ridge: relative ridge of the least squares.
        refresh: A and B are renewed every so many writes.
        steps: Newton-Schulz iterations.
        memory: False is the control: the same read-out of m, nothing learned.
        **common: see ``nestlearn.optim.optimizer.Common``.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-2,
        *,
        model: nn.Module | None = None,
        retention: float = 0.8,
        rho: float | None = None,
        keys: str | None = None,
        nesterov: bool = False,
        memory_retention: float = 0.99,
        covariance_retention: float = 0.95,
        ridge: float = 1e-2,
        refresh: int = 1,
        steps: int = 5,
        memory: bool = True,
        **common: Unpack[Common],
    ) -> None:
        settings = {
            "retention": retention,
            "rho": rho,
            "keys": keys,
            "nesterov": nesterov,
            "memory_retention": memory_retention,
            "covariance_retention": covariance_retention,
            "ridge": ridge,
            "refresh": refresh,
            "steps": steps,
            "memory": memory,
        }
        super().__init__(params, lr, settings, model=model, **common)

    def check_group(self, group: Group) -> None:
        choice("keys", self._resolved(group)["keys"], KEYS)

    def element_rule(self, group: Group) -> Link:
        return adam()

    def _resolved(self, group: Group) -> Group:
        """The settings with what None stands for; A and B of layers deserve more keys, and less trust in each."""
        rho, keys = (1.0, "kronecker") if self.model is None else (0.5, "all")
        asked = {"rho": group["rho"], "keys": group["keys"]}
        return group | {"rho": rho, "keys": keys} | {name: value for name, value in asked.items() if value is not None}

    def matrix_rule(self, group: Group) -> Link:
        group = self._resolved(group)
        names = ("retention", "rho", "keys", "nesterov", "memory_retention", "covariance_retention", "ridge")
        learned = secant(
            **{name: group[name] for name in names},
            period=group["refresh"],
            of="gradient" if self.model is None else "layers",
            learns=group["memory"],
            name="",
        )
        return chain(learned, orthogonal(group["steps"]))
