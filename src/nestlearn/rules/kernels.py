"""Rules for single entries that are torch's own, recognised from the value and written by torch's kernels.

A fused kernel reads every tensor once and writes it once, many parameters in one call. What is recognised is the
arithmetic, not the name of an optimizer: the same links in the same order, with plain numbers. The composed path is the
reference, and has everything else: other links, memories wider than their parameter, tensors that are not contiguous.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from nestlearn.memory.rules import Rule
from nestlearn.memory.times import Scalar
from nestlearn.rules.boxes import average, second_moment, sum_of_squares
from nestlearn.rules.boxes import sum as summed
from nestlearn.rules.combine import chain
from nestlearn.rules.link import Link, gradient

__all__ = ["Kernel", "Rates", "fits", "recognised"]

Tensors = list[Tensor]


class Rates(NamedTuple):
    """How far a write goes, and which way.

    Args:
        lr: of the weights, a number or a tensor without dimensions.
        weight_decay: the share of the weights that is lost is lr times this.
        maximize: whether the gradient is climbed.
    """

    lr: Scalar
    weight_decay: float
    maximize: bool

    @property
    def retention(self) -> Scalar:
        """The share of the weights that is kept."""
        return 1 - self.lr * self.weight_decay if self.weight_decay else 1.0

    def downhill(self, gradients: list[Tensor]) -> list[Tensor]:
        """Gradients of what is to become less."""
        return list(torch._foreach_neg(gradients)) if self.maximize else gradients


@dataclass(frozen=True)
class Kernel(ABC):
    """A rule as one of torch's fused kernels computes it."""

    operator: ClassVar[str]
    """Its name among torch's operators; "" for what every device has."""

    counts: ClassVar[bool] = False
    """Whether it depends on how often it has written."""

    path: ClassVar[str] = "fused by torch"
    """How it writes, in words."""

    @property
    @abstractmethod
    def memories(self) -> tuple[str, ...]:
        """Names in the state of what it remembers, each shaped like the parameter."""

    @abstractmethod
    def write(
        self, weights: Tensors, gradients: Tensors, memories: Sequence[Tensors], times: Sequence[int], rates: Rates
    ) -> None:
        """One write of all parameters.

        Args:
            weights, gradients: alike in shape, type and device, pair by pair, and contiguous.
            memories: the same, for each name.
            times: how often each was written before.
            rates: of all of them; lr is a number, or a float32 tensor where the weights are.
        """


@dataclass(frozen=True)
class _Descent(Kernel):
    """W <- W - lr u."""

    operator = "_fused_sgd_"
    memories = ()

    def write(
        self, weights: Tensors, gradients: Tensors, memories: Sequence[Tensors], times: Sequence[int], rates: Rates
    ) -> None:
        # Without a memory it is the same whether decay is a part of the gradient or not.
        _descend(weights, gradients, [], rates, rates.weight_decay)


@dataclass(frozen=True)
class _Momentum(Kernel):
    """M <- retention M + (1 - dampening) u; W <- W - lr M, or lr (u + retention M)."""

    operator = "_fused_sgd_"

    memory: str
    retention: float
    dampening: float
    nesterov: bool

    @property
    def memories(self) -> tuple[str, ...]:
        return (self.memory,)

    def write(
        self, weights: Tensors, gradients: Tensors, memories: Sequence[Tensors], times: Sequence[int], rates: Rates
    ) -> None:
        if rates.weight_decay:  # the kernel would put it into the memory
            torch._foreach_mul_(weights, rates.retention)
        _descend(weights, gradients, memories[0], rates, 0.0, self.retention, self.dampening, self.nesterov)


@dataclass(frozen=True)
class _Adam(Kernel):
    """Two averages, both corrected for their start; W <- W - lr m^ / (sqrt(v^) + eps)."""

    operator = "_fused_adamw_"
    counts = True

    momentum: str
    squares: str
    betas: tuple[float, float]
    eps: float

    @property
    def memories(self) -> tuple[str, ...]:
        return self.momentum, self.squares

    def write(
        self, weights: Tensors, gradients: Tensors, memories: Sequence[Tensors], times: Sequence[int], rates: Rates
    ) -> None:
        torch._fused_adamw_(
            weights,
            gradients,
            memories[0],
            memories[1],
            [],
            _counts(times, weights[0].device),
            lr=rates.lr,
            beta1=self.betas[0],
            beta2=self.betas[1],
            weight_decay=rates.weight_decay,
            eps=self.eps,
            amsgrad=False,
            maximize=rates.maximize,
        )


@dataclass(frozen=True)
class _Adagrad(Kernel):
    """V <- V + u^2; W <- W - lr u / (sqrt(V) + eps)."""

    operator = "_fused_adagrad_"

    squares: str
    eps: float

    @property
    def memories(self) -> tuple[str, ...]:
        return (self.squares,)

    def write(
        self, weights: Tensors, gradients: Tensors, memories: Sequence[Tensors], times: Sequence[int], rates: Rates
    ) -> None:
        if rates.weight_decay:
            torch._foreach_mul_(weights, rates.retention)
        torch._fused_adagrad_(
            weights,
            gradients,
            memories[0],
            _counts([0] * len(weights), weights[0].device),  # of use to a decay of lr alone
            lr=rates.lr,
            lr_decay=0.0,
            weight_decay=0.0,
            eps=self.eps,
            maximize=rates.maximize,
        )


@dataclass(frozen=True)
class _SecondMoment(Kernel):
    """An average of squares, corrected for its start; W <- W - lr u / (sqrt(v^) + eps).

    RMSprop with a correction, which torch has no fused kernel for: a few operations over many tensors, on a CPU over so
    many entries at a time that they stay in the cache.
    """

    operator = ""
    counts = True
    path = "foreach by torch"

    squares: str
    retention: float
    eps: float

    @property
    def memories(self) -> tuple[str, ...]:
        return (self.squares,)

    def write(
        self, weights: Tensors, gradients: Tensors, memories: Sequence[Tensors], times: Sequence[int], rates: Rates
    ) -> None:
        for time in set(times):
            places = [place for place, other in enumerate(times) if other == time]
            some = [[tensors[place] for place in places] for tensors in (weights, gradients, memories[0])]
            for own_weights, own_gradients, own_squares in _in_pieces(some):
                self._write(own_weights, own_gradients, own_squares, time, rates)

    def _write(self, weights: Tensors, gradients: Tensors, squares: Tensors, time: int, rates: Rates) -> None:
        # u / (sqrt(v / c^2) + eps) = c u / (sqrt(v) + c eps), with the correction on numbers alone.
        corrected = (1 - self.retention ** (time + 1)) ** 0.5
        torch._foreach_mul_(squares, self.retention)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - self.retention)
        roots = torch._foreach_sqrt(squares)
        torch._foreach_add_(roots, self.eps * corrected)
        if rates.weight_decay:
            torch._foreach_mul_(weights, rates.retention)
        step = corrected if rates.maximize else -corrected
        if isinstance(rates.lr, Tensor):
            updates = torch._foreach_div(gradients, roots)
            torch._foreach_mul_(updates, rates.lr * step)
            torch._foreach_add_(weights, updates)
        else:
            torch._foreach_addcdiv_(weights, gradients, roots, rates.lr * step)


PIECE = 1 << 16
"""Entries that are written at once on a CPU."""


def _in_pieces(columns: list[Tensors]) -> Iterator[list[Tensors]]:
    """Lists of tensors that go together, so many entries at a time that what is computed of them stays in the cache."""
    if columns[0][0].device.type != "cpu":
        yield columns
        return
    held: list[Tensors] = [[] for _ in columns]
    room = PIECE
    for row in zip(*columns, strict=True):
        small = row[0].numel() <= PIECE
        for parts in [row] if small else zip(*(tensor.view(-1).split(PIECE) for tensor in row), strict=True):
            if room < parts[0].numel() and held[0]:
                yield held
                held, room = [[] for _ in columns], PIECE
            room -= parts[0].numel()
            for some, part in zip(held, parts, strict=True):
                some.append(part)
    yield held


def _descend(
    weights: Tensors,
    gradients: Tensors,
    momenta: Tensors,
    rates: Rates,
    weight_decay: float,
    momentum: float = 0.0,
    dampening: float = 0.0,
    nesterov: bool = False,
) -> None:
    torch._fused_sgd_(
        weights,
        gradients,
        momenta,
        weight_decay=weight_decay,
        momentum=momentum,
        lr=rates.lr,
        dampening=dampening,
        nesterov=nesterov,
        maximize=rates.maximize,
        is_first_step=False,  # memories begin at zero here
    )


def _counts(times: Sequence[int], device: torch.device) -> Tensors:
    """How often each has been written when this write is done, as kernels read it."""
    different = set(times)
    if len(different) == 1:
        return [torch.full((), times[0] + 1.0, device=device)] * len(times)
    if device.type == "cpu":
        return list(torch.tensor([time + 1.0 for time in times]).unbind(0))
    made = {time: torch.full((), time + 1.0, device=device) for time in different}  # what is copied would be waited for
    return [made[time] for time in times]


def recognised(rule: Link | Rule) -> Kernel | None:
    """The kernel that computes what a rule says, if torch has one."""
    if not isinstance(rule, Link):
        return None
    match list(_in_a_row(rule)):
        case []:
            return _Descent()
        case [summed() | average() as box] if _is_plain(box) and box.retention > 0:
            kept, name = box.retention, f"{box.label}.model.value"
            if isinstance(box, average):
                return None if box.nesterov or box.corrected else _Momentum(name, kept, kept, False)
            if box.nesterov and box.weight != 1:
                return None
            return _Momentum(name, kept, 1 - box.weight, box.nesterov)
        case [average() as first, second_moment() as second] if _is_plain(first) and _is_plain(second):
            if first.nesterov or not first.corrected or second.length_kept:
                return None
            names = f"{first.label}.model.value", f"{second.label}.model.value"
            return _Adam(*names, (first.retention, second.retention), second.eps)
        case [second_moment() as box] if _is_plain(box) and not box.length_kept:
            return _SecondMoment(f"{box.label}.model.value", box.retention, box.eps)
        case [sum_of_squares() as box] if _is_plain(box) and box.weight == 1 and not box.under_root:
            return _Adagrad(f"{box.label}.model.value", box.eps)
    return None


def _in_a_row(rule: Link) -> Iterator[Link]:
    """The links of a rule, one after the other, without those that answer what they are given."""
    if type(rule) is chain:
        for each in rule.links:
            yield from _in_a_row(each)
    elif type(rule) is not gradient:
        yield rule


_KNOWN = (average, second_moment, sum_of_squares, summed)


def _is_plain(link: Link) -> bool:
    """Whether it is one of ours, made of plain numbers, written every time, and read as it is."""
    if type(link) not in _KNOWN:  # a subclass may answer something else
        return False
    numbers = all(type(getattr(link, name, 0.0)) in (float, int) for name in ("retention", "weight", "eps"))
    return numbers and getattr(link, "period", 1) == 1 and getattr(link, "readout", None) is None


def fits(kernel: Kernel, parameter: Tensor, device: str | None = None) -> bool:
    """Whether a kernel can write a parameter: dense, contiguous, as precise as its memories, on a device it knows.

    Args:
        kernel, parameter: the two.
        device: kind of the device, if it is not the parameter's own.
    """
    return (
        type(parameter) in (nn.Parameter, Tensor)
        and parameter.dtype in (torch.float32, torch.float64)
        and parameter.layout is torch.strided
        and parameter.is_contiguous()
        and _exists(kernel.operator, device or parameter.device.type)
    )


@cache
def _exists(operator: str, device: str) -> bool:
    """Whether this torch has a kernel for a kind of device."""
    if device not in ("cpu", "cuda") or not operator:
        return device in ("cpu", "cuda")
    return torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{operator}", device.upper())
