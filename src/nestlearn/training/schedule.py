"""How the learning rates move over a run: a rise over the warm-up, then one of three shapes.

With t the number of steps already taken, w the warm-up and T all steps, the factor on every rate is

    t < w     (t + 1) / (w + 1)
    t >= w    shape((t - w) / (T - w)),  shape(x) = 1 - x ("linear"), 1 ("constant"), (1 + cos(pi x)) / 2 ("cosine")
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from nestlearn.errors import choice

__all__ = ["SCHEDULES", "make_schedule"]

SCHEDULES: Mapping[str, Callable[[float], float]] = {
    "linear": lambda x: 1.0 - x,
    "constant": lambda x: 1.0,
    "cosine": lambda x: 0.5 * (1.0 + math.cos(math.pi * x)),
}


def make_schedule(name: str, warmup: int, steps: int) -> Callable[[int], float]:
    """The function from the number of steps already taken, 0 to ``steps - 1``, to the factor on the learning rates.

    Raises:
        ValueError: an unknown name, or a warm-up that leaves no step.
    """
    choice("schedule", name, SCHEDULES)
    if not 0 <= warmup < steps:
        raise ValueError(f"expected a warmup of at least 0 and less than the {steps} steps, got {warmup}")
    shape = SCHEDULES[name]

    def factor(taken: int) -> float:
        if taken < warmup:
            return (taken + 1) / (warmup + 1)
        return shape((taken - warmup) / (steps - warmup))

    return factor
