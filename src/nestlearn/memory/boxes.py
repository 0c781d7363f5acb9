"""Memories that are boxes, one number for every entry of the gradient (O2, O7)."""

from collections.abc import Callable
from typing import TypedDict, Unpack

from torch import Tensor

from nestlearn.memory.associative import AssociativeMemory
from nestlearn.memory.models import Constant
from nestlearn.memory.nesting import Consulted, Said, Scene, the_gradient
from nestlearn.memory.objectives import dot_product, l2
from nestlearn.memory.rules import GradientDescent, in_words
from nestlearn.memory.times import Number, Scalar

__all__ = ["Options", "average_box", "bias_corrected", "received", "received_in_words", "sum_box"]


class Options(TypedDict, total=False):
    """How a box is asked, and when: see ``Consulted``."""

    query: Callable[[Scene], Tensor] | None
    readout: Callable[[Tensor, Scene], Tensor] | None
    fresh: bool
    every: int
    refresh: int
    keep_answer: Callable[[Tensor], Tensor] | None
    track: bool
    rate: Callable[[Scene], Scalar] | None


def sum_box(
    name: str,
    retention: float,
    value: Callable[[Scene], Tensor] = the_gradient,
    *,
    period: int = 1,
    **options: Unpack[Options],
) -> Consulted:
    """M <- retention M + value: the dot-product objective on a box, which is momentum (O2)."""
    memory = AssociativeMemory(Constant(), dot_product, GradientDescent(lr=1.0, retention=retention), period)
    return Consulted(name, memory, value=value, **options)


def average_box(
    name: str,
    retention: float,
    value: Callable[[Scene], Tensor] = the_gradient,
    *,
    shape: tuple[int, ...] = (),
    period: int = 1,
    **options: Unpack[Options],
) -> Consulted:
    """M <- M - (1 - retention) (M - value): l2 regression on a box, which is an exponential average (O7).

    With a ``shape`` there is one box of that shape for every matrix instead of one number for every entry. With a
    ``period`` the box is written that rarely, with the mean of the values since (C1).
    """
    memory = AssociativeMemory(Constant(shape), l2, GradientDescent(lr=(1.0 - retention) / period), period)
    return Consulted(name, memory, value=value, **options)


def received(retention: float) -> Number:
    """The weight that the values of an exponential average, started at zero, have received by a time."""
    return lambda time: 1 - retention ** (time + 1)


def received_in_words(retention: float) -> str:
    """The same as an expression."""
    return f"(1 - {in_words(retention)}^t)"


def bias_corrected(retention: float) -> Said:
    """A read-out that divides an exponential average, started at zero, by the weight its values have received."""
    weight = received(retention)
    return Said(f"M / {received_in_words(retention)}", lambda answer, scene: answer / scene.number(weight))
