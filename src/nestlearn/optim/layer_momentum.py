"""Momentum whitened by the covariances of what a layer sees (O15, [NL] 37)."""

from typing import Unpack

from torch import Tensor, nn

from nestlearn.errors import choice
from nestlearn.optim.optimizer import Common, Optimizer, Params
from nestlearn.optim.settings import Group
from nestlearn.rules import Link, adam, average, chain, orthogonal, regress, scale, whiten, within

__all__ = ["LayerMomentum"]


class LayerMomentum(Optimizer):
    """Momentum whitened by what the layer sees: keys are inputs x, values are error signals, objective l2 (O15, [NL]
    37).

    The least-squares optimum (sum delta x^T)(sum x x^T + damping)^-1 is the momentum times the inverse input
    covariance A. By default both sides are whitened and the result is orthogonalised,

        W <- W - lr scale Z_B^T NS(Z_B M Z_A^T) Z_A    with  Z_A A Z_A^T = I,  Z_B B Z_B^T = I,

    B being the covariance of the error signals: the steepest descent step in the norm that the layer's own data define.

    Args:
        params: parameters, named parameters or groups of them. Weights of nn.Linear and nn.Conv2d get this rule,
            vectors and what ``elementwise`` names get Adam.
        lr: learning rate, in units that suit AdamW.
        model: the module whose layers are watched; required.
        retention: share of the momentum that is kept.
        covariance_retention: share of A and B that is kept.
        damping: ridge of A and B, relative to their mean diagonal.
        sides: "input" (A alone) or "both".
        readout: "newton_schulz", or "identity" for the optimum M (A + damping)^-1 itself (with sides="input").
        refresh: A, B and their factors are renewed every so many writes.
        memory: False remembers no covariance: the same read-out of the momentum with A = B = I.
        **common: see ``nestlearn.optim.optimizer.Common``.
    """

    # The control without covariances is for the same parameters.
    smallest_side = 1

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-2,
        *,
        model: nn.Module,
        retention: float = 0.8,
        covariance_retention: float = 0.95,
        damping: float = 0.1,
        sides: str = "both",
        readout: str = "newton_schulz",
        refresh: int = 5,
        memory: bool = True,
        **common: Unpack[Common],
    ) -> None:
        settings = {
            "retention": retention,
            "covariance_retention": covariance_retention,
            "damping": damping,
            "sides": sides,
            "readout": readout,
            "refresh": refresh,
            "memory": memory,
        }
        super().__init__(params, lr, settings, model=model, **common)

    def check_group(self, group: Group) -> None:
        choice("sides", group["sides"], ("input", "both"))
        choice("readout", group["readout"], ("identity", "newton_schulz"))
        if group["readout"] == "identity" and group["sides"] == "both":
            raise ValueError("readout='identity' is the regression on inputs alone: pass sides='input' with it")

    def element_rule(self, group: Group) -> Link:
        return adam()

    def matrix_rule(self, group: Group) -> Link:
        momentum = average(group["retention"], name="momentum")
        seen = {
            "retention": group["covariance_retention"],
            "damping": group["damping"],
            "period": group["refresh"],
            "of": "layers",
            "name": "",
        }
        if group["readout"] == "identity":
            return chain(momentum, regress(**seen)) if group["memory"] else momentum
        if not group["memory"]:
            return chain(momentum, orthogonal(normed=True))
        basis = whiten(side="both" if group["sides"] == "both" else "inputs", **seen)
        return chain(momentum, within(basis, orthogonal(scale="none")), scale())
