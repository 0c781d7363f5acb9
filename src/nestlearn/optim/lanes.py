"""Lanes: parameters whose memories are alike are written in one batched step.

A *matrix lane* stacks parameters of one shape [B, n, m], so that B matrices cost one batched matmul. A *flat lane*
joins small parameters of an element-wise rule, whatever their shapes, end to end; a large one has a lane of its own,
which is walked in blocks that stay in a processor's cache.

A lane is made of those members of a stack that are written now. They may have been written unequally often before, as
long as the rule does the same at these times (``Rule.schedule``).
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from nestlearn.memory.rules import Context, Kept, Rule, always
from nestlearn.memory.state import flatten, unflatten
from nestlearn.memory.times import Scalar, Time, Times
from nestlearn.optim.stacks import Stack, States
from nestlearn.rules.blocks import WHOLE, Cut
from nestlearn.rules.kernels import Rates

__all__ = ["Entry", "Lane", "as_real", "matrix_shape", "memory_dtype"]

SMALL = 1 << 14
"""Parameters of an element-wise rule with fewer elements share a flat lane: copying is cheaper than visiting them."""

BLOCK = 1 << 18
"""Elements of a large parameter written at once on a CPU: a block and the temporaries of its rule fit in the cache."""

MATRIX_BLOCK = 1 << 20
"""Entries of equal matrices written at once on a CPU; beyond that a batch saves no time and leaves the cache."""


class Entry(NamedTuple):
    """A parameter, the rule that writes it, whether the rule is element-wise, whether its lr is the named rule's, and
    how the parameter is cut before the rule sees it.
    """

    parameter: Tensor
    rule: Rule
    flat: bool
    own_lr: bool
    cut: Cut = WHOLE

    @property
    def shape(self) -> tuple[int, ...]:
        """What the rule is made for: that of a matrix or of each of its blocks, or that of the parameter."""
        real = as_real(self.parameter.detach())
        return tuple(real.shape) if self.flat else self.cut.shape(matrix_shape(real))


@dataclass
class Lane:
    """Members of a stack that are written together, and the rule that writes them.

    Args:
        rule: what writes them.
        stack: where their memories lie.
        places: which members of the stack they are, in its order.
        own_lr: whether their lr is the named rule's.
        which: of the terms of a step.
        reads_weights: whether the rule looks at the weights themselves.
        schedule: of the rule, for matrices of this shape.
        cut: how matrices are cut before the rule sees them.
    """

    rule: Rule
    stack: Stack
    places: Sequence[int]
    own_lr: bool
    which: int = 0
    reads_weights: bool = False
    schedule: Callable[[int], Hashable] = always
    cut: Cut = WHOLE

    def __post_init__(self) -> None:
        self.flat = self.stack.flat
        self.parameters = [self.stack.parameters[place] for place in self.places]
        self.alone = self.flat and self.parameters[0].numel() >= SMALL

    def holds(self, states: States) -> bool:
        """Whether the stack still holds what the states of its members do."""
        return all(self.stack.holds(place, states) for place in self.places)

    def together(self, times: Sequence[int]) -> bool:
        """Whether the rule does the same to all members when they have been written so often before."""
        return self.schedule is always or len({self.schedule(time) for time in set(times)}) == 1

    def write(
        self,
        gradients: list[Tensor],
        observations: Mapping[str, Tensor],
        times: Sequence[int],
        rates: Rates,
    ) -> None:
        """One write of every parameter of the lane: memories first, then the weights.

        Args:
            gradients: shaped like the parameters.
            observations: what the rule needs besides, stacked [B, ...].
            times: how often each parameter was written before.
            rates: of the weights.
        """
        gradients, lr, retention = rates.downhill(gradients), rates.lr, rates.retention
        weights = [as_real(parameter.detach()) for parameter in self.parameters]
        if not self.flat:
            self._write_matrices(weights, gradients, observations, times, lr, retention)
        elif self.alone:
            self._write_large(weights[0], gradients[0].reshape(-1), times[0], lr, retention)
        else:
            sizes = [weight.numel() for weight in weights]
            joined = torch.cat([gradient.reshape(-1) for gradient in gradients]).to(memory_dtype(weights[0]))
            context = self._context(Times.of(times, partial(_over_entries, joined, sizes)), lr, retention)
            if self.reads_weights:
                line = torch.cat([weight.reshape(-1) for weight in weights]).to(joined.dtype)
                context = replace(context, parameters={"weight": line})
            update = self._remember(joined, self.places, context)
            step_weights(weights, update, lr, retention, lambda tensor: tensor.split(sizes))

    def _context(self, time: Time, lr: Scalar, retention: Scalar) -> Context:
        return Context(time=time, lr=lr, retention=retention, scalars=self.rule.scalars(time))

    def _write_matrices(
        self,
        weights: list[Tensor],
        gradients: list[Tensor],
        observations: Mapping[str, Tensor],
        times: Sequence[int],
        lr: Scalar,
        retention: Scalar,
    ) -> None:
        shape, dtype = matrix_shape(weights[0]), memory_dtype(weights[0])
        count = max(1, MATRIX_BLOCK // weights[0].numel()) if weights[0].device.type == "cpu" else len(weights)
        for start in range(0, len(weights), count):
            part = slice(start, start + count)
            gradient = self.cut.apart(_stack([gradient.reshape(shape) for gradient in gradients[part]]).to(dtype))
            context = self._context(Times.of(times[part], partial(_over_matrices, gradient)), lr, retention)
            context = replace(context, observations={name: values[part] for name, values in observations.items()})
            if self.reads_weights:
                stacked = self.cut.apart(_stack([weight.reshape(shape) for weight in weights[part]]).to(dtype))
                context = replace(context, parameters={"weight": stacked})
            update = self._remember(gradient, self.places[part], context)
            step_weights(weights[part], _whole(update, self.cut), lr, retention, torch.unbind)

    def _write_large(self, weight: Tensor, gradient: Tensor, time: int, lr: Scalar, retention: Scalar) -> None:
        line = weight.view(-1) if weight.is_contiguous() else weight.reshape(-1)
        size = BLOCK if weight.device.type == "cpu" else weight.numel()
        context = self._context(time, lr, retention)
        held = self.stack.take(self.places)
        for start in range(0, weight.numel(), size):
            block = slice(start, start + size)
            buffers = {name: buffer[block] for name, buffer in held.items()}
            if self.reads_weights:
                context = replace(context, parameters={"weight": line[block].to(memory_dtype(weight))})
            update = remember(self.rule, gradient[block].to(memory_dtype(weight)), buffers, context)
            step_weights([line[block]], update, lr, retention)
        if not weight.is_contiguous():
            weight.copy_(line.view(weight.shape))

    def _remember(self, gradient: Tensor, places: Sequence[int], context: Context) -> Tensor | Kept:
        buffers = self.stack.take(places)
        update = remember(self.rule, gradient, buffers, context)
        self.stack.put(places, buffers)
        return update


def remember(rule: Rule, gradient: Tensor, buffers: dict[str, Tensor], context: Context) -> Tensor | Kept:
    """Let a rule write its memories into ``buffers``; return its update."""
    context = replace(context, inplace=True)
    updates, written = rule.update({"weight": unflatten(buffers)}, {"weight": gradient}, context)
    for name, tensor in flatten(written.get("weight", {})).items():
        if tensor is not buffers[name]:
            buffers[name].copy_(tensor)
    return updates["weight"]


def _over_entries(like: Tensor, sizes: list[int], numbers: Sequence[Scalar]) -> Tensor:
    """One number a parameter, repeated for each of its entries: [entries]."""
    each = torch.tensor(numbers, dtype=like.dtype).to(like.device, non_blocking=True)
    counts = torch.tensor(sizes).to(like.device, non_blocking=True)
    return each.repeat_interleave(counts, output_size=sum(sizes))


def _over_matrices(like: Tensor, numbers: Sequence[Scalar]) -> Tensor:
    """One number a parameter: [B, 1, 1], and one dimension more where matrices are cut."""
    each = torch.tensor(numbers, dtype=like.dtype).to(like.device, non_blocking=True)
    return each.reshape(-1, *(1,) * (like.ndim - 1))


def _whole(update: Tensor | Kept, cut: Cut) -> Tensor | Kept:
    """An update of blocks as one of the matrices that were cut."""
    if not isinstance(update, Kept):
        return cut.together(update)
    step, kept = update
    kept = cut.together(kept.expand_as(step)) if isinstance(kept, Tensor) and kept.ndim else kept
    return Kept(cut.together(step), kept)


def step_weights(
    weights: list[Tensor],
    update: Tensor | Kept,
    lr: Scalar,
    retention: Scalar,
    cut: Callable[[Tensor], Sequence[Tensor]] = lambda tensor: (tensor,),
) -> None:
    """W <- retention W - lr update, in place: ``apply_update`` for the outermost memory, the weights themselves.

    Args:
        weights: what is written.
        update: of all of them.
        lr, retention: numbers; an update that is ``Kept`` has a retention of its own.
        cut: takes a tensor over all weights apart.
    """
    if isinstance(update, Kept):
        update, retention = update
    if isinstance(retention, Tensor) and retention.ndim:
        for weight, share in zip(weights, cut(retention.expand_as(update)), strict=True):
            weight.mul_(share.reshape(weight.shape))
    elif isinstance(retention, Tensor) or retention != 1.0:
        for weight in weights:
            weight.mul_(retention)
    shaped = [part.view(weight.shape) for part, weight in zip(cut(update), weights, strict=True)]
    if isinstance(lr, Tensor):
        for weight, part in zip(weights, shaped, strict=True):
            weight.sub_(part * lr)
    elif weights[0].dtype == shaped[0].dtype:
        torch._foreach_add_(weights, shaped, alpha=-lr)
    else:
        for weight, part in zip(weights, shaped, strict=True):
            weight.add_(part, alpha=-lr)


def matrix_shape(parameter: Tensor) -> tuple[int, int]:
    """[out, in] of a parameter read as a matrix; a convolution is [out, in * kernel]."""
    return parameter.shape[0], parameter.numel() // max(parameter.shape[0], 1)


def memory_dtype(parameter: Tensor) -> torch.dtype:
    """Memories have at least single precision, whatever the parameter has."""
    return torch.promote_types(parameter.dtype, torch.float32)


def as_real(tensor: Tensor) -> Tensor:
    """A complex tensor [...] seen as a real one [..., 2]."""
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def _stack(tensors: list[Tensor]) -> Tensor:
    return torch.stack(tensors) if len(tensors) > 1 else tensors[0].unsqueeze(0)
