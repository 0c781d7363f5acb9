"""An expensive P every 1, 4 and 16 steps: with a memory that answers in between, and with the old P in its place.

P is Shampoo's, the gradient between inverse fourth roots of its Kronecker factors (O9), or the orthogonalised momentum
(O10). The damping of the roots is well above the default of ``Kronecker``: roots that are kept for 16 steps meet
gradients outside of what they have seen, and would stretch them without it.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch

from nestlearn.optim import DeepMomentum, PreconditionedMomentum
from nestlearn.targets import Kronecker, OrthogonalMomentum, Target

__all__ = ["PERIODS", *(f"{kind}_{period}" for kind in ("kept", "kronecker", "orthogonal") for period in (1, 4, 16))]

PERIODS = (1, 4, 16)
DAMPING = 1e-2

Make = Callable[..., torch.optim.Optimizer]


def _with_memory(target: Callable[[], Target], period: int) -> Make:
    def make(
        named: Iterable[Any],
        lr: float = 0.03,
        *,
        retention: float = 0.8,
        inner_lr: float = 0.3,
        memory: bool = True,
    ) -> torch.optim.Optimizer:
        return DeepMomentum(
            named,
            lr,
            skip_retention=retention,
            inner_lr=inner_lr,
            target=target(),
            target_period=period,
            readout="identity",
            memory=memory,
        )

    make.__doc__ = f"An MLP is shown P every {period} steps and asked for it at every step; its answer is the step."
    return make


def _kept(period: int) -> Make:
    def make(named: Iterable[Any], lr: float = 0.003, *, retention: float = 0.8) -> torch.optim.Optimizer:
        target = Kronecker(damping=DAMPING)
        return PreconditionedMomentum(named, lr, retention=retention, target=target, target_period=period)

    make.__doc__ = f"The factors and their roots are renewed every {period} steps and kept in between; no memory maps."
    return make


kept_1, kept_4, kept_16 = (_kept(period) for period in PERIODS)
kronecker_1, kronecker_4, kronecker_16 = (
    _with_memory(lambda: Kronecker(damping=DAMPING), period) for period in PERIODS
)
orthogonal_1, orthogonal_4, orthogonal_16 = (_with_memory(OrthogonalMomentum, period) for period in PERIODS)
