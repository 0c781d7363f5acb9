"""``nl.describe``: what learns what, how often, in any torch optimizer and module (M4).

    print(nl.describe(optimizer))
    nl.describe(optimizer, model).to_json()
    nl.describe(optimizer).svg()

What comes back is a ``NestedSystem``, plain data; ``docs/describe.md`` shows how to read it.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from nestlearn.descriptions.modules import describe_module, with_layers
from nestlearn.descriptions.ours import describe_ours
from nestlearn.descriptions.parameters import covered, frozen_parameters, outermost
from nestlearn.descriptions.system import NestedSystem
from nestlearn.descriptions.torch_optimizers import describe_torch
from nestlearn.optim.optimizer import Optimizer

__all__ = ["describe"]


def describe(*objects: Any) -> NestedSystem:
    """The nested system behind optimizers, a module, or both, which together are one learning system.

    Nothing is trained, moved or allocated: bytes of a state that does not exist yet are predicted, also on the meta
    device. Optimizers of ``torch.optim`` and ``nestlearn.optim`` are known; of others the description lists the tensors
    in their state and says that it does not know how they are written. Memories that tokens write, in layers of
    `nestlearn.layers` anywhere in the module or in the continuum of a stacked model, are the fastest levels.

    Args:
        *objects: any number of ``torch.optim.Optimizer``, stepped together, the first being the main one, and at most
            one ``torch.nn.Module``, in any order.

    Raises:
        TypeError: something else was given, nothing, or two modules.

    Example:
        >>> model = torch.nn.Linear(8, 4)
        >>> system = describe(torch.optim.AdamW(model.parameters()))
        >>> len(system.memories), len(system.levels), system.state_bytes
        (3, 2, 296)
    """
    optimizers = [item for item in objects if isinstance(item, torch.optim.Optimizer)]
    modules = [item for item in objects if isinstance(item, nn.Module)]
    if len(optimizers) + len(modules) != len(objects) or not objects or len(modules) > 1:
        given = ", ".join(type(item).__name__ for item in objects) or "nothing"
        raise TypeError(f"describe takes torch.optim optimizers and at most one torch.nn.Module, got {given}")
    if not optimizers:
        return describe_module(modules[0])
    parts = [
        part
        for item in optimizers
        for part in (describe_ours(item) if isinstance(item, Optimizer) else describe_torch(item))
    ]
    if not parts:
        idle = NestedSystem(type(optimizers[0]).__name__, (), notes=("none of its parameters is trained",))
        return with_layers([(replace(idle, memories=(outermost(()),)), [])], modules[0]) if modules else idle
    if modules:
        return with_layers(parts, modules[0])
    (first, _), *rest = parts
    frozen = [p for item in optimizers for group in item.param_groups for p in frozen_parameters(item, group)]
    notes = (*first.notes, f"frozen, so nothing writes them: {covered(frozen)}") if frozen else first.notes
    return replace(first, notes=notes, others=tuple(system for system, _ in rest))
