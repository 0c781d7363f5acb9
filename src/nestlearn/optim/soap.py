"""Adam, or Muon, in the eigenbasis of the gradient's covariances: SOAP and SOAP-Muon (O20)."""

from typing import Unpack

from torch import Tensor

from nestlearn.optim.adam import check_betas
from nestlearn.optim.muon import MatrixOptimizer
from nestlearn.optim.optimizer import Common, Optimizer, Params
from nestlearn.optim.settings import Group
from nestlearn.rules import Link, adam, average, chain, muon, orthogonal, second_moment, whiten, within

__all__ = ["SOAP", "SOAPMuon"]


class SOAP(Optimizer):
    """Adam in the eigenbasis of two covariances: seven memories on three levels (O20; Vyas et al., arXiv 2409.11321).

        L <- average of u u^T,  R <- average of u^T u,  Q_L, Q_R their eigenvectors, turned every ``refresh`` steps
        v <- average of (Q_L^T u Q_R)^2
        W <- (1 - lr weight_decay) W - lr Q_L ((Q_L^T m^ Q_R) / (sqrt(v^) + eps)) Q_R^T

    As published, a step uses the basis that the steps before it have made, and m is kept in the coordinates of the
    weights. Unlike there, the first step is not left out: it knows no directions yet, so it divides the gradient by its
    root mean square.

    Args:
        params: parameters, named parameters or groups of them; matrices get this rule, the rest Adam (O7).
        lr: learning rate, in units that suit AdamW.
        betas: retention of m and of v.
        eps: added to the denominator.
        covariance_retention: of L and R.
        refresh: Q_L and Q_R are turned by one orthogonal iteration every so many steps.
        largest_side: a side with more entries has no covariance.
        memory: False remembers no covariance: Adam.
        **common: see ``nestlearn.optim.optimizer.Common``.

    Example:
        >>> import torch
        >>> layer = torch.nn.Linear(4, 3)
        >>> optimizer = SOAP(layer.parameters(), lr=3e-3)
        >>> layer(torch.ones(2, 4)).sum().backward()
        >>> optimizer.step()
        >>> optimizer.state[layer.weight]["inputs_basis.model.value"].shape
        torch.Size([4, 4])
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 3e-3,
        *,
        betas: tuple[float, float] = (0.95, 0.95),
        eps: float = 1e-8,
        covariance_retention: float = 0.95,
        refresh: int = 10,
        largest_side: int = 8192,
        memory: bool = True,
        **common: Unpack[Common],
    ) -> None:
        settings = {
            "betas": betas,
            "eps": eps,
            "covariance_retention": covariance_retention,
            "refresh": refresh,
            "largest_side": largest_side,
            "memory": memory,
        }
        super().__init__(params, lr, settings, **common)

    def check_group(self, group: Group) -> None:
        check_betas(group["betas"])

    def element_rule(self, group: Group) -> Link:
        return adam()

    def matrix_rule(self, group: Group) -> Link:
        first, second = group["betas"]
        if not group["memory"]:
            return adam((first, second), group["eps"])
        squares = second_moment(second, group["eps"])
        return chain(average(first, corrected=True, name="momentum"), within(_eigenbasis(group), squares))


class SOAPMuon(MatrixOptimizer):
    """Muon after SOAP's division: the orthogonal matrix next to the whitened momentum (O20, O10).

        W <- (1 - lr weight_decay) W - lr scale NS(Q_L ((Q_L^T m Q_R) / (sqrt(v^) + eps)) Q_R^T)

    The covariances say which directions come often, Newton-Schulz makes the rest of the answer equally long in all.

    Args:
        params: parameters, named parameters or groups of them; matrices get this rule, the rest Adam.
        lr: learning rate, in units that suit AdamW.
        retention, nesterov, steps, scale: as in ``Muon``.
        square_retention: of v, the squares in the eigenbasis.
        eps, covariance_retention, refresh, largest_side: as in ``SOAP``.
        memory: False remembers no covariance and no squares: Muon.
        **common: see ``nestlearn.optim.optimizer.Common``.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-2,
        *,
        retention: float = 0.9,
        nesterov: bool = True,
        steps: int = 5,
        scale: str = "rms",
        square_retention: float = 0.95,
        eps: float = 1e-8,
        covariance_retention: float = 0.95,
        refresh: int = 10,
        largest_side: int = 8192,
        memory: bool = True,
        **common: Unpack[Common],
    ) -> None:
        settings = {
            "retention": retention,
            "nesterov": nesterov,
            "steps": steps,
            "scale": scale,
            "square_retention": square_retention,
            "eps": eps,
            "covariance_retention": covariance_retention,
            "refresh": refresh,
            "largest_side": largest_side,
            "memory": memory,
        }
        super().__init__(params, lr, settings, **common)

    def matrix_rule(self, group: Group) -> Link:
        retention, nesterov, steps, scale = (group[name] for name in ("retention", "nesterov", "steps", "scale"))
        if not group["memory"]:
            return muon(retention, nesterov=nesterov, steps=steps, scale=scale)
        squares = second_moment(group["square_retention"], group["eps"])
        momentum = average(retention, nesterov=nesterov, name="momentum")
        return chain(momentum, within(_eigenbasis(group), squares), orthogonal(steps, scale))


def _eigenbasis(group: Group) -> whiten:
    return whiten(
        "eigen",
        retention=group["covariance_retention"],
        refresh=group["refresh"],
        largest_side=group["largest_side"],
        name="",
    )
