"""How often memories of a batch have been written before, where that differs from one to the other."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

import torch
from torch import Tensor

__all__ = [
    "Number",
    "Scalar",
    "Spread",
    "Time",
    "Times",
    "happens_at",
    "number_at",
    "numbers_at",
    "refuse_capture",
]

Scalar = float | Tensor
"""A number, or one for each memory of the batch [*B]."""

Number = Callable[[Any], Scalar]
"""A number that depends on how often a memory was written before: an int, or a tensor in a compiled kernel."""

Spread = Callable[[Sequence[Scalar]], Tensor]
"""Puts one number a memory into a tensor that multiplies the batch's gradients."""


@dataclass(frozen=True)
class Times:
    """One count a memory of the batch, in the place of the one count that they would share.

    Rules use a time in two ways. What *happens* at a time (a memory with a period is written, a factor renewed) is the
    same for the whole batch: whoever batches sees to it (``Rule.schedule``). *Numbers* such as bias corrections may
    differ, and are spread over the batch.

    Args:
        each: how often each was written before.
        spread: puts one number a memory into a tensor that multiplies the batch's gradients.
    """

    each: tuple[int, ...]
    spread: Spread

    @staticmethod
    def of(each: Sequence[int], spread: Spread) -> "int | Times":
        """A plain number where all counts are equal."""
        return each[0] if len(set(each)) == 1 else Times(tuple(each), spread)

    def __add__(self, more: int) -> "int | Times":
        return Times.of([time + more for time in self.each], self.spread)

    def __floordiv__(self, every: int) -> "int | Times":
        return Times.of([time // every for time in self.each], self.spread)

    def __bool__(self) -> bool:
        if 0 in self.each:
            raise TypeError(f"some memories of the batch were written before and some were not ({self.each}): {_USE}")
        return True

    def __rpow__(self, base: float) -> float:
        raise TypeError(f"the memories of the batch have been written {self.each} times: {_USE}")


Time = int | Times | Tensor
"""How often memories were written before; a tensor in a compiled kernel."""


def refuse_capture(time: object) -> None:
    """Raise RuntimeError while a CUDA graph is captured, unless the time is a tensor that the graph can follow."""
    if isinstance(time, Tensor) or torch.compiler.is_compiling() or not torch.cuda.is_available():
        return
    if torch.cuda.is_current_stream_capturing():
        raise RuntimeError(
            "a CUDA graph is being captured, and this rule depends on how often it has written (a bias correction, "
            "say), which Python counts: replays would repeat the captured step. Capture the forward and backward pass "
            "alone and call optimizer.step() after the replay"
        )


_USE = "a function of the time is scene.number(lambda time: ...), which gives each memory its own number"


def number_at(time: Time | None, number: Number) -> Scalar:
    """``number(time)``; for times that differ, the number of each, spread over the batch."""
    refuse_capture(time)
    return time.spread([number(each) for each in time.each]) if isinstance(time, Times) else number(time)


@overload
def happens_at(time: int | Times, test: Callable[[Any], bool]) -> bool: ...


@overload
def happens_at(time: Time | None, test: Callable[[Any], bool | Tensor]) -> bool | Tensor: ...


def happens_at(time: Time | None, test: Callable[[Any], bool | Tensor]) -> bool | Tensor:
    """``test(time)``, whether something happens at a time; the same for all memories of a batch."""
    refuse_capture(time)
    if not isinstance(time, Times):
        return test(time)
    found = {bool(test(each)) for each in time.each}
    if len(found) > 1:
        raise ValueError(
            f"memories that have been written {sorted(set(time.each))} times differ in what happens now: they cannot "
            "be written in one batch"
        )
    return found.pop()


def numbers_at(time: Time | None, numbers: Callable[[Any], Mapping[str, Scalar]]) -> Mapping[str, Scalar]:
    """The same for several numbers with names."""
    if not isinstance(time, Times):
        known = numbers(time)
        if known:
            refuse_capture(time)
        return known
    found = [numbers(each) for each in time.each]
    return {name: time.spread([each[name] for each in found]) for name in found[0]}
