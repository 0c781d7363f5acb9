"""Rules for single entries that are torch's own, recognised from the value and written by torch's fused kernels.

A kernel reads every tensor once and writes it once, many parameters in one call. What is recognised is the arithmetic,
not the name of an optimizer: the same links in the same order, with plain numbers. The composed path is the reference,
and has everything else: other links, memories wider than their parameter, tensors that are not contiguous.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from operator import is_
from typing import ClassVar

import torch
from torch import Tensor, nn

from nestlearn.memory.rules import Rule
from nestlearn.memory.times import Scalar, refuse_capture
from nestlearn.optim.lanes import Rates
from nestlearn.optim.stacks import Held, alone
from nestlearn.rules import Link, average, chain, gradient, second_moment, sum_of_squares
from nestlearn.rules import sum as summed

__all__ = ["Bound", "FusedLane", "Kernel", "bind", "fits", "recognised", "still"]

Tensors = list[Tensor]


@dataclass(frozen=True)
class Kernel(ABC):
    """A rule as one of torch's fused kernels computes it."""

    operator: ClassVar[str]
    """Its name among torch's operators."""

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
    made = {time: torch.full((), time + 1.0, device=device) for time in set(times)}
    return [made[time] for time in times] if len(made) > 1 else [made[times[0]]] * len(times)


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
    if device not in ("cpu", "cuda"):
        return False
    return torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{operator}", device.upper())


Bound = tuple[tuple[Tensor, ...], tuple[int, ...]]
"""The memories of a parameter, and where they lie."""


def bind(kernel: Kernel, parameter: Tensor, state: Held) -> Bound:
    """What a state holds for a kernel, made as it reads it: of the parameter's type, in its place, in order."""
    memories = []
    for name in kernel.memories:
        found: Tensor = state[name]
        memories.append(alone(found.to(parameter.device, parameter.dtype).contiguous()))
        if memories[-1] is not found:
            state[name] = memories[-1]
    return tuple(memories), tuple(memory.data_ptr() for memory in memories)


def still(kernel: Kernel, bound: Bound, parameter: Tensor, state: Held) -> bool:
    """Whether a state holds what it did when it was bound, and the parameter is like that."""
    return len(bound[0]) == len(kernel.memories) and all(
        state.get(name) is memory
        and memory.data_ptr() == address
        and memory.shape == parameter.shape
        and memory.dtype is parameter.dtype
        for name, memory, address in zip(kernel.memories, *bound, strict=True)
    )


class FusedLane:
    """Parameters of one type and device that one call of a kernel writes.

    Their memories are the tensors of the state themselves. A lane compares them with what it has seen before it is
    used, as somebody may put others there.

    Args:
        kernel: what writes them.
        parameters: what is written.
        bound: their memories.
        own_lr: whether their lr is the named rule's.
        which: of the terms of a step.
    """

    path = "fused by torch"

    def __init__(
        self, kernel: Kernel, parameters: Tensors, bound: Sequence[Bound], *, own_lr: bool, which: int
    ) -> None:
        self.parameters = parameters
        self.own_lr = own_lr
        self.which = which
        self._kernel = kernel
        self._shapes = [parameter.shape for parameter in parameters]
        places = range(len(kernel.memories))
        self._memories = [[memories[place] for memories, _ in bound] for place in places]
        self._addresses = [[addresses[place] for _, addresses in bound] for place in places]

    def holds(self, states: Sequence[Mapping[str, object]]) -> bool:
        """Whether these are the states that it was made with, as they were."""
        for name, memories, addresses in zip(self._kernel.memories, self._memories, self._addresses, strict=True):
            if not all(map(is_, [state.get(name) for state in states], memories)):
                return False
            if [memory.data_ptr() for memory in memories] != addresses:
                return False
        return True

    def write(self, gradients: Tensors, observations: Mapping[str, Tensor], times: Sequence[int], rates: Rates) -> None:
        """One write of every parameter, as ``Lane.write``."""
        if self._kernel.operator == "_fused_adamw_":
            refuse_capture(times)
        dtype = self.parameters[0].dtype
        fitting = {gradient.dtype for gradient in gradients} == {dtype} and all(map(Tensor.is_contiguous, gradients))
        if not fitting or [gradient.shape for gradient in gradients] != self._shapes:
            gradients = [
                gradient.to(dtype).reshape(shape).contiguous()
                for gradient, shape in zip(gradients, self._shapes, strict=True)
            ]
        rates = rates._replace(lr=_known(rates.lr, self.parameters[0].device))
        self._kernel.write(self.parameters, gradients, self._memories, times, rates)


def _known(lr: Scalar, device: torch.device) -> Scalar:
    """A learning rate as a kernel takes it; one that lies beside the weights is not waited for."""
    if isinstance(lr, Tensor) and lr.device == device and device.type != "cpu":
        return lr.float()
    return float(lr)
