"""How much a token is written and how much is kept: eta and alpha, bounded so that nothing diverges (S4, S7).

With keys of at most unit length every write multiplies what the memory answers to its key by alpha - s eta, where s
counts what erases: l2 regression once, delta gradient descent once. It stays between -1 and 1 as long as

    0 < alpha < 1        0 < eta < min(max_eta, (1 + alpha) / s)

Up to ``max_eta = 1 / s`` it is never below zero at alpha = 1: a memory of averages. Tracking a state that flips, such
as parity, needs factors near -1 (Grazzi et al., arXiv 2411.12537): ``max_eta = 2 / s``. Where regression takes its
gradients at a chunk's start and nothing erases at once, or a momentum box holds them back, the chunk's tokens add up: s
counts them all. A window of w tokens erases w times as much.
"""

from torch import Tensor

from nestlearn.memory.associative import AssociativeMemory
from nestlearn.memory.inner_momentum import InnerMomentum
from nestlearn.memory.objectives import DotProduct
from nestlearn.memory.rules import DeltaGradientDescent
from nestlearn.ops.scan import inner_rule

__all__ = ["averaged", "bounded_eta", "check_max_eta", "erasures"]


def erasures(memory: AssociativeMemory, chunk: int, window: int = 1) -> int:
    """s: how often eta takes away what the memory answers to a key, at worst; 0 for a sum of outer products."""
    forgets = isinstance(inner_rule(memory), DeltaGradientDescent)
    regresses = not isinstance(memory.objective, DotProduct)
    held = regresses and (not forgets or isinstance(memory.rule, InnerMomentum))
    return (forgets + regresses) * window * (chunk if held else 1)


def check_max_eta(max_eta: float | None, strength: int) -> float:
    """The bound to use: by default the largest without negative factors."""
    if max_eta is None:
        return 1 / max(strength, 1)
    limit = 2 / strength if strength else float("inf")
    if not 0 <= max_eta <= limit:
        raise ValueError(f"max_eta: expected 0 to {limit:g}, beyond which this memory diverges, got {max_eta}")
    return float(max_eta)


def bounded_eta(logit: Tensor, alpha: Tensor | float, max_eta: float, strength: int) -> Tensor:
    """eta from any number."""
    if strength * max_eta <= 1:
        return logit.sigmoid() * max_eta
    limit = (1 + alpha) / strength
    most = limit.clamp(max=max_eta) if isinstance(limit, Tensor) else min(limit, max_eta)
    return logit.sigmoid() * most


def averaged(memory: AssociativeMemory, eta: Tensor, value: Tensor, momentum: Tensor) -> tuple[Tensor, Tensor]:
    """(eta, value) with the share 1 - theta, so that the momentum box averages what it would sum.

    The share belongs to what is written; under regression, which writes what is still missing, to eta.
    """
    share = 1 - momentum
    if isinstance(memory.objective, DotProduct):
        return eta, value * share.unsqueeze(-1)
    return eta * share, value
