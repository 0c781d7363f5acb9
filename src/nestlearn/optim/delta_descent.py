"""The delta rule for the weights themselves (O12, [NL] 54-57)."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, ClassVar, Unpack

import torch
from torch import Tensor, nn

from nestlearn.memory.models import Parameters
from nestlearn.memory.rules import Context, GradientDescent, Rule, State, always
from nestlearn.optim.layered import LayeredOptimizer, require_model
from nestlearn.optim.optimizer import Common, Params

__all__ = ["DeltaGradientDescent"]


class DeltaGradientDescent(LayeredOptimizer):
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

    reads_weights = True

    def __init__(
        self, params: Params, lr: float | Tensor = 0.05, *, model: nn.Module, **common: Unpack[Common]
    ) -> None:
        require_model(model, type(self).__name__)
        super().__init__(params, lr, {}, model, **common)

    def matrix_rule(self, group: dict[str, Any]) -> Rule:
        return _LayerDelta()

    def element_rule(self, group: dict[str, Any]) -> Rule:
        return GradientDescent()


@dataclass(frozen=True)
class _LayerDelta(Rule):
    """(u + W A) / (1 + lr tr A): core's implicit DeltaGradientDescent, from the covariance instead of the keys."""

    def schedule(self, shape: torch.Size) -> Callable[[int], Hashable]:
        return always

    update_is: ClassVar[str] = "(u + W A) / (1 + lr tr A); A the covariance of the layer's inputs"

    def update(self, state: State, gradients: Parameters, context: Context) -> tuple[Parameters, State]:
        covariance = context.observations["inputs"]
        energy = covariance.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
        update = gradients["weight"] + context.parameters["weight"] @ covariance  # type: ignore[index]
        return {"weight": update / (1 + context.lr * energy)}, state
