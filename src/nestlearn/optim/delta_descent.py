"""The delta rule for the weights themselves (O12, [NL] 54-57)."""

from typing import Unpack

from torch import Tensor, nn

from nestlearn.optim.optimizer import Common, Optimizer, Params
from nestlearn.optim.settings import Group
from nestlearn.rules import Link, delta_inputs, gradient

__all__ = ["DeltaGradientDescent"]


class DeltaGradientDescent(Optimizer):
    """W <- W (I - lr' A) - lr' u with lr' = lr / (1 + lr tr A): the delta rule for the weights themselves (O12, [NL]
    54-57).

    Of the general form argmin L(x, u) + Ret(W) (O13) this is the member with the l2 objective; gradient descent is the
    one with the dot product. It is one exact proximal step on 1/2 ||W x + delta||^2 for one input x; a batch replaces
    x x^T by its mean A. The layer forgets what it answers for this input before it learns, so it differs from gradient
    descent by W A. Biases and other vectors get plain gradient descent.

    Args:
        params: parameters, named parameters or groups of them; matrices must be weights of nn.Linear or nn.Conv2d, or
            be named in ``elementwise``.
        lr: learning rate.
        model: the module whose layers are watched; required, since the rule is not defined without layer inputs.
        **common: see ``nestlearn.optim.optimizer.Common``.
    """

    def __init__(
        self, params: Params, lr: float | Tensor = 0.05, *, model: nn.Module, **common: Unpack[Common]
    ) -> None:
        super().__init__(params, lr, {}, model=model, **common)

    def matrix_rule(self, group: Group) -> Link:
        return delta_inputs()

    def element_rule(self, group: Group) -> Link:
        return gradient()
