"""Inner momentum: between a gradient and the memory that it writes lies a box that sums steps (S2, [T] 9-10).

    S_t = theta_t S_{t-1} + eta_t dL/dM                     the box, one number for every entry of M
    M_t = alpha_t M_{t-1} - eta_t forgotten - S_t           forgotten = M k k^T for delta gradient descent, else 0

The learning rate stands on the box's line, so a token keeps the weight it was given however long it lasts. What delta
gradient descent forgets along the key does not pass through the box: forgetting is at once. [T] is arXiv 2501.00663.
"""

from dataclasses import dataclass
from typing import ClassVar, cast

import torch

from nestlearn.memory.associative import AssociativeMemory
from nestlearn.memory.models import Constant, Parameters
from nestlearn.memory.objectives import dot_product
from nestlearn.memory.rules import Context, DeltaGradientDescent, GradientDescent, Rule, Scalar, spread
from nestlearn.memory.state import State

__all__ = ["InnerMomentum"]


@dataclass(frozen=True)
class InnerMomentum(Rule):
    """A rule whose gradients pass through a momentum box (S2).

    Args:
        lr, retention: eta and alpha, as in every rule.
        rule: ``GradientDescent()`` or ``DeltaGradientDescent()``; its own lr and retention are not used.
        momentum: theta, what the box keeps from one write to the next; a write's ``observations["momentum"]``, a number
            or a tensor [*B], overrides it.

    State: ``{parameter name: the box's state}``.
    """

    rule: Rule = GradientDescent()  # noqa: RUF009 - frozen, like the dataclass itself
    momentum: Scalar = 0.9

    includes_lr: ClassVar[bool] = True

    box: ClassVar[AssociativeMemory] = AssociativeMemory(Constant(), dot_product, GradientDescent())
    """What holds the steps, for every entry of every parameter."""

    def __post_init__(self) -> None:
        if isinstance(self.lr, Rule):
            raise TypeError(f"InnerMomentum: lr comes first, pass the rule by name: rule={self.lr!r}")
        kind, implicit = type(self.rule), getattr(self.rule, "implicit", False)
        if kind not in (GradientDescent, DeltaGradientDescent) or implicit:
            raise TypeError(
                "InnerMomentum: rule must be GradientDescent() or DeltaGradientDescent(implicit=False), "
                f"got {self.rule!r}"
            )

    def init(self, parameters: Parameters, generator: torch.Generator | None = None) -> State:
        return {name: self.box.init(t.shape, dtype=t.dtype, device=t.device) for name, t in parameters.items()}

    def update(self, state: State, gradients: Parameters, context: Context) -> tuple[Parameters, State]:
        momentum = context.observations.get("momentum", self.momentum)
        nothing = {name: torch.zeros_like(gradient) for name, gradient in gradients.items()}
        forgotten = cast(Parameters, self.rule.update({}, nothing, context)[0])
        steps, written = {}, {}
        for name, gradient in gradients.items():
            lr = spread(context.lr, gradient)
            written[name], _ = self.box.write(state[name], gradient, lr * gradient, retention=momentum, surprise=False)
            steps[name] = written[name]["model"]["value"] + lr * forgotten[name]
        return steps, written
