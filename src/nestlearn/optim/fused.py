"""Lanes that a kernel of torch's writes: many parameters in one call."""

from collections.abc import Mapping, Sequence
from operator import is_

import torch
from torch import Tensor

from nestlearn.memory.times import Scalar, refuse_capture
from nestlearn.optim.stacks import Held, alone
from nestlearn.rules.kernels import Kernel, Rates

__all__ = ["Bound", "FusedLane", "bind"]

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

    def __init__(
        self, kernel: Kernel, parameters: list[Tensor], bound: Sequence[Bound], *, own_lr: bool, which: int
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

    def write(
        self, gradients: list[Tensor], observations: Mapping[str, Tensor], times: Sequence[int], rates: Rates
    ) -> None:
        """One write of every parameter, as ``Lane.write``."""
        if self._kernel.counts:
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
