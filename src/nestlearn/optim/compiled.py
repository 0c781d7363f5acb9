"""Large element-wise lanes in one compiled kernel: every tensor is read once and written once a step."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nestlearn.memory.rules import Context
from nestlearn.optim.lanes import Lane, Scalar, States, as_real, memory_dtype, step_weights

__all__ = ["CompiledLanes", "compile_lanes"]

CHUNK = 16
"""Lanes in one kernel. More save calls (a tenth of a millisecond each) and cost compilation time."""


class CompiledLanes:
    """Lanes of one rule, dtype and step count, each of a single contiguous parameter, that one kernel writes."""

    def __init__(self, lanes: list[Lane]) -> None:
        self.lanes = lanes
        self.own_lr = lanes[0].own_lr
        self.parameters = [lane.parameters[0] for lane in lanes]
        self._kernel: Callable[..., None] = torch.compile(self._write, dynamic=False)

    def bound(self, states: States) -> bool:
        """Whether ``states`` still holds the lanes' own tensors."""
        return all(lane.bound(states) for lane in self.lanes)

    def write(
        self, gradients: list[Tensor], observations: dict[str, Tensor], time: int, lr: Scalar, retention: Scalar
    ) -> None:
        """One write of every parameter; element-wise rules observe nothing but gradients."""
        lines = [as_real(parameter.detach()).view(-1) for parameter in self.parameters]
        numbers = {"lr": lr, "retention": retention, **self.lanes[0].rule.scalars(time)}
        # As tensors, these change from step to step without a new compilation.
        dtype = memory_dtype(lines[0])
        as_tensors = {name: torch.as_tensor(number, dtype=dtype) for name, number in numbers.items()}
        flat = [gradient.reshape(-1) for gradient in gradients]
        self._kernel(lines, flat, [lane.buffers for lane in self.lanes], torch.tensor(time, dtype=dtype), as_tensors)

    def _write(
        self,
        lines: list[Tensor],
        gradients: list[Tensor],
        buffers: list[dict[str, Tensor]],
        time: Any,
        numbers: dict[str, Tensor],
    ) -> None:
        context = Context(time=time, lr=numbers["lr"], scalars=numbers)
        for lane, line, gradient, held in zip(self.lanes, lines, gradients, buffers, strict=True):
            update = lane.remember(gradient.to(memory_dtype(line)), held, context)
            step_weights([line], [update], numbers["lr"], numbers["retention"])


def compile_lanes(lanes: list[Lane]) -> list[Lane | CompiledLanes]:
    """Lanes with those that one kernel can write together put together."""
    kinds: dict[Any, list[Lane]] = {}
    rest: list[Lane | CompiledLanes] = []
    for lane in lanes:
        parameter = lane.parameters[0]
        if lane.alone and parameter.is_contiguous():
            kinds.setdefault((id(lane.rule), lane.own_lr, parameter.dtype, parameter.device, lane.step), []).append(
                lane
            )
        else:
            rest.append(lane)
    for alike in kinds.values():
        rest += [CompiledLanes(alike[start : start + CHUNK]) for start in range(0, len(alike), CHUNK)]
    return rest
