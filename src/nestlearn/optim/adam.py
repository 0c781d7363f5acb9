"""Adam as two memories that share a level (O7, [S] 5.4, [NL] App. B)."""

from typing import Unpack

from torch import Tensor

from nestlearn.optim.optimizer import Common, Optimizer, Params
from nestlearn.optim.settings import Group
from nestlearn.rules import Link, adam

__all__ = ["Adam", "check_betas"]


class Adam(Optimizer):
    """Adam with decoupled weight decay: three memories on two levels (O7, [S] 5.4).

    Equal to ``torch.optim.AdamW`` (Loshchilov and Hutter, arXiv 1711.05101). The momentum m and the second moment v
    are boxes with the l2 objective, written side by side; the rule of the weights consults both:

        m <- m - (1 - beta1) (m - u),  v <- v - (1 - beta2) (v - u^2)
        W <- (1 - lr weight_decay) W - lr m^ / (sqrt(v^) + eps)

    Args:
        params: parameters, named parameters or groups of them.
        lr: learning rate.
        betas: retention of the momentum and of the second moment.
        eps: added to the denominator.
        **common: see ``nestlearn.optim.optimizer.Common``.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = Adam([weight], lr=0.1)
        >>> weight.square().sum().backward()
        >>> optimizer.step()
        >>> round(weight.item(), 4)
        0.9
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(params, lr, {"betas": betas, "eps": eps}, **common)

    def element_rule(self, group: Group) -> Link:
        return adam(tuple(group["betas"]), group["eps"])

    def check_group(self, group: Group) -> None:
        check_betas(group["betas"])


def check_betas(betas: object) -> None:
    """Raise ValueError unless ``betas`` are two retentions in [0, 1)."""
    if not isinstance(betas, (tuple, list)) or len(betas) != 2:
        raise ValueError(f"betas are two retentions, got {betas!r}")
    for place, beta in enumerate(betas):
        if not 0 <= beta < 1:
            raise ValueError(f"Invalid beta parameter at index {place}: expected a retention in [0, 1), got {beta}")
