"""The composition that we recommend: Muon in the geometry of the gradient's own covariances (O20, O10)."""

from typing import Unpack

from torch import Tensor

from nestlearn.optim.muon import MatrixOptimizer
from nestlearn.optim.optimizer import Common, Params
from nestlearn.optim.settings import Group
from nestlearn.rules import Link, average, chain, orthogonal, whiten, within

__all__ = ["Nested"]


class Nested(MatrixOptimizer):
    """What came lately, and which directions come often on either side of a matrix: three memories (O20, O10).

        M <- average of u,  A <- average of u^T u,  B <- average of u u^T
        W <- (1 - lr weight_decay) W - lr scale Z_B^T NS(Z_B m Z_A^T) Z_A       m between M and u
        with Z_A (A + damping I) Z_A^T = I,  Z_B (B + damping I) Z_B^T = I

    Newton-Schulz alone, ``Muon``, takes the steepest step where all directions are alike. Between two whitenings it
    takes the steepest step in the norm of the covariances, which ``damping`` trusts more or less. The
    answer has the length of an orthogonal matrix, entries of a root mean square of 0.2, so rates for AdamW are near.

    Args:
        params: parameters, named parameters or groups of them; matrices get this rule, the rest Adam (O7). Embeddings
            and the head belong into ``elementwise``.
        lr: learning rate.
        retention, nesterov: of the momentum, as in ``Muon``.
        covariance_retention: of A and B.
        damping: ridge of A and B, relative to their mean diagonal: without end it is Muon, at 0 nothing but they count.
        refresh: Z_A and Z_B are computed every so many steps.
        scale: "rms" or "spectral", see ``update_scale``.
        largest_side: a side with more entries has no covariance.
        memory: False remembers no covariance: Muon.
        **common: see ``nestlearn.optim.optimizer.Common``.

    Example:
        >>> import torch
        >>> layer = torch.nn.Linear(4, 3)
        >>> optimizer = Nested(layer.parameters(), lr=0.01)
        >>> layer(torch.ones(2, 4)).sum().backward()
        >>> optimizer.step()
        >>> optimizer.state[layer.weight]["inputs.model.value"].shape
        torch.Size([4, 4])
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 2e-2,
        *,
        retention: float = 0.7,
        nesterov: bool = True,
        covariance_retention: float = 0.97,
        damping: float = 1.0,
        refresh: int = 5,
        scale: str = "rms",
        largest_side: int = 8192,
        memory: bool = True,
        **common: Unpack[Common],
    ) -> None:
        settings = {
            "retention": retention,
            "nesterov": nesterov,
            "covariance_retention": covariance_retention,
            "damping": damping,
            "refresh": refresh,
            "scale": scale,
            "largest_side": largest_side,
            "memory": memory,
        }
        super().__init__(params, lr, settings, **common)

    def matrix_rule(self, group: Group) -> Link:
        momentum = average(group["retention"], group["nesterov"], name="momentum")
        # Four iterations with coefficients fitted to them come as near as Muon's five, which pays for the covariances.
        readout = orthogonal(4, group["scale"], coefficients="fitted")
        if not group["memory"]:
            return chain(momentum, readout)
        covariances = whiten(
            retention=group["covariance_retention"],
            damping=group["damping"],
            refresh=group["refresh"],
            largest_side=group["largest_side"],
            name="",
        )
        return chain(momentum, within(covariances, readout))
