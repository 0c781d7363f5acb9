"""Lanes: parameters whose memories are alike are written in one batched step.

A *matrix lane* stacks parameters of one shape [B, n, m], so that B matrices cost one batched matmul. A *flat lane*
joins small parameters of an element-wise rule, whatever their shapes, end to end; a large one has a lane of its own,
which is walked in blocks that stay in a processor's cache.

The truth is ``state[parameter]``, a flat dictionary of tensors with dotted names. A lane holds the stacked tensors of
which those are views, and notices when somebody (``load_state_dict``, a distributed checkpoint) has put other tensors
there.
"""

from collections.abc import MutableMapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nestlearn.memory.rules import Context, Rule, State

__all__ = ["Entry", "Lane", "as_real", "flatten", "make_lanes", "matrix_shape", "memory_dtype", "unflatten"]

SMALL = 1 << 14
"""Parameters of an element-wise rule with fewer elements share a flat lane: copying is cheaper than visiting them."""

BLOCK = 1 << 18
"""Elements of a large parameter written at once on a CPU: a block and the temporaries of its rule fit in the cache."""

MATRIX_BLOCK = 1 << 20
"""Entries of equal matrices written at once on a CPU; beyond that a batch saves no time and leaves the cache."""

Scalar = float | Tensor
States = MutableMapping[Tensor, dict[str, Tensor]]


class Entry(NamedTuple):
    """A parameter, the rule that writes it, whether the rule is element-wise, whether its lr is the named rule's."""

    parameter: Tensor
    rule: Rule
    flat: bool
    own_lr: bool


@dataclass
class Lane:
    """Parameters written together, their rule, and the stacked state behind ``state[parameter]``.

    ``step`` is the step count of its parameters when the lane was made.
    """

    rule: Rule
    parameters: list[Tensor]
    flat: bool
    own_lr: bool
    step: int = 0
    reads_weights: bool = False
    buffers: dict[str, Tensor] = field(default_factory=dict)
    views: list[dict[str, Tensor]] = field(default_factory=list)

    @property
    def alone(self) -> bool:
        """Whether this is the lane of one large parameter of an element-wise rule."""
        return self.flat and self.parameters[0].numel() >= SMALL

    def bound(self, states: States) -> bool:
        """Whether ``states`` still holds this lane's own views."""
        return all(
            all(states[parameter].get(name) is view for name, view in views.items())
            for parameter, views in zip(self.parameters, self.views, strict=True)
        )

    def bind(self, states: States) -> None:
        """Stack the parameters' states and put views of the stack in their place."""
        self.views = [{} for _ in self.parameters]
        for name in [name for name in states[self.parameters[0]] if _is_memory(name)]:
            leaves = [states[parameter][name] for parameter in self.parameters]
            if self.flat:
                buffer = torch.cat([leaf.reshape(-1) for leaf in leaves]) if len(leaves) > 1 else leaves[0].reshape(-1)
                pieces = buffer.split([leaf.numel() for leaf in leaves])
                own = [piece.view(leaf.shape) for piece, leaf in zip(pieces, leaves, strict=True)]
            else:
                buffer = _stack(leaves)
                own = list(buffer.unbind(0))
            self.buffers[name] = buffer
            for parameter, views, view in zip(self.parameters, self.views, own, strict=True):
                states[parameter][name] = views[name] = view

    def write(
        self, gradients: list[Tensor], observations: dict[str, Tensor], time: int, lr: Scalar, retention: Scalar
    ) -> None:
        """One write of every parameter of the lane: memories first, then the weights."""
        weights = [as_real(parameter.detach()) for parameter in self.parameters]
        context = Context(time=time, lr=lr, observations=observations, scalars=self.rule.scalars(time))
        if not self.flat:
            self._write_matrices(weights, gradients, context, retention)
        elif not self.alone:
            joined = torch.cat([gradient.reshape(-1) for gradient in gradients]).to(memory_dtype(weights[0]))
            update = self.remember(joined, self.buffers, context)
            step_weights(weights, list(update.split([weight.numel() for weight in weights])), lr, retention)
        else:
            self._write_large(weights[0], gradients[0].reshape(-1), context, retention)

    def _write_matrices(
        self, weights: list[Tensor], gradients: list[Tensor], context: Context, retention: Scalar
    ) -> None:
        shape, dtype = matrix_shape(weights[0]), memory_dtype(weights[0])
        count = max(1, MATRIX_BLOCK // weights[0].numel()) if weights[0].device.type == "cpu" else len(weights)
        for start in range(0, len(weights), count):
            part = slice(start, start + count)
            if self.reads_weights:
                stacked = _stack([weight.reshape(shape) for weight in weights[part]]).to(dtype)
                context = replace(context, parameters={"weight": stacked})
            seen = {name: values[part] for name, values in context.observations.items()}
            buffers = {name: buffer[part] for name, buffer in self.buffers.items()}
            gradient = _stack([gradient.reshape(shape) for gradient in gradients[part]]).to(dtype)
            update = self.remember(gradient, buffers, replace(context, observations=seen))
            step_weights(weights[part], list(update.unbind(0)), context.lr, retention)

    def _write_large(self, weight: Tensor, gradient: Tensor, context: Context, retention: Scalar) -> None:
        line = weight.view(-1) if weight.is_contiguous() else weight.reshape(-1)
        size = BLOCK if weight.device.type == "cpu" else weight.numel()
        for start in range(0, weight.numel(), size):
            block = slice(start, start + size)
            buffers = {name: buffer[block] for name, buffer in self.buffers.items()}
            update = self.remember(gradient[block].to(memory_dtype(weight)), buffers, context)
            step_weights([line[block]], [update], context.lr, retention)
        if not weight.is_contiguous():
            weight.copy_(line.view(weight.shape))

    def remember(self, gradient: Tensor, buffers: dict[str, Tensor], context: Context) -> Tensor:
        """Let the rule write its memories into ``buffers``; return its update."""
        context = replace(context, inplace=True)
        updates, written = self.rule.update({"weight": unflatten(buffers)}, {"weight": gradient}, context)
        for name, tensor in flatten(written.get("weight", {})).items():
            if tensor is not buffers[name]:
                buffers[name].copy_(tensor)
        return updates["weight"]


def make_lanes(entries: list[Entry], states: States, *, reads_weights: bool) -> list[Lane]:
    """Group entries into lanes, parameters of a lane having taken equally many steps, and bind them to ``states``."""
    groups: dict[Any, list[Entry]] = {}
    for entry in entries:
        parameter = entry.parameter
        kind: tuple[Any, ...] = (id(entry.rule), entry.flat, entry.own_lr, parameter.dtype, parameter.device)
        kind = (*kind, int(states[parameter]["step"]))
        if not entry.flat:
            kind = (*kind, matrix_shape(parameter))
        elif parameter.numel() >= SMALL:
            kind = (*kind, id(parameter))
        groups.setdefault(kind, []).append(entry)
    lanes = [
        Lane(
            group[0].rule,
            [entry.parameter for entry in group],
            group[0].flat,
            group[0].own_lr,
            int(states[group[0].parameter]["step"]),
            reads_weights=reads_weights,
        )
        for group in groups.values()
    ]
    for lane in lanes:
        lane.bind(states)
    return lanes


def step_weights(weights: list[Tensor], updates: list[Tensor], lr: Scalar, retention: Scalar) -> None:
    """W <- retention W - lr update, in place: ``apply_update`` for the outermost memory, the weights themselves."""
    if isinstance(retention, Tensor) or retention != 1.0:
        for weight in weights:
            weight.mul_(retention)
    shaped = [update.view(weight.shape) for update, weight in zip(updates, weights, strict=True)]
    if isinstance(lr, Tensor):
        for weight, update in zip(weights, shaped, strict=True):
            weight.sub_(update * lr)
    elif weights[0].dtype == shaped[0].dtype:
        torch._foreach_add_(weights, shaped, alpha=-lr)
    else:
        for weight, update in zip(weights, shaped, strict=True):
            weight.add_(update, alpha=-lr)


def matrix_shape(parameter: Tensor) -> tuple[int, int]:
    """[out, in] of a parameter read as a matrix; a convolution is [out, in * kernel]."""
    return parameter.shape[0], parameter.numel() // max(parameter.shape[0], 1)


def memory_dtype(parameter: Tensor) -> torch.dtype:
    """Memories have at least single precision, whatever the parameter has."""
    return torch.promote_types(parameter.dtype, torch.float32)


def as_real(tensor: Tensor) -> Tensor:
    """A complex tensor [...] seen as a real one [..., 2]."""
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def flatten(state: State, prefix: str = "") -> dict[str, Tensor]:
    """Nested dictionaries of tensors as one dictionary with dotted names."""
    flat: dict[str, Tensor] = {}
    for name, value in state.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat


def unflatten(flat: dict[str, Tensor]) -> State:
    """The inverse of ``flatten``, except that empty dictionaries are gone."""
    nested: State = {}
    for name, value in flat.items():
        *path, last = name.split(".")
        place = nested
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
    return nested


def _is_memory(name: str) -> bool:
    """Whether a state belongs to a rule; the step count and what waits for the end of a period are the adapter's."""
    return name != "step" and not name.startswith("pending")


def _stack(tensors: list[Tensor]) -> Tensor:
    return torch.stack(tensors) if len(tensors) > 1 else tensors[0].unsqueeze(0)
