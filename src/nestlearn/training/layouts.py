"""How a network lies on many ranks, and how states come from there into one file and back.

- ``ddp``: a replica on every rank (``DistributedDataParallel``); gradients are averaged while they are measured.
- ``fsdp2``: every parameter in shards over all ranks (``fully_shard``), gathered for a block at a time.
- ``hsdp``: two replicas, each in shards over half of the ranks.

A state in a file is that of one process: whole tensors by the names that they have there. So a run goes on with
another layout, or with none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from nestlearn.models import LanguageModel
from nestlearn.models.next_token import learning_parts
from nestlearn.optim.sharded import alike, is_sharded, whole

__all__ = ["gathered", "handed_out", "handed_out_to", "laid_out", "outline"]

REPLICAS = 2  # of hsdp


def laid_out(model: nn.Module, strategy: str, device: str) -> nn.Module:
    """What is called in the place of ``model``, which is the same on every rank of the default process group.

    Args:
        model: its parameters become DTensors, except under ``ddp``.
        strategy: ``ddp``, ``fsdp2`` or ``hsdp``.
        device: of the model, ``cpu`` or ``cuda``.
    """
    if strategy == "ddp":
        return nn.parallel.DistributedDataParallel(model, find_unused_parameters=True)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    ranks = dist.get_world_size()
    if strategy == "hsdp":
        mesh = init_device_mesh(device, (REPLICAS, ranks // REPLICAS), mesh_dim_names=("replicas", "shards"))
    else:
        mesh = init_device_mesh(device, (ranks,))
    for part in (*_blocks(model), model):
        fully_shard(part, mesh=mesh)
    return model


def _blocks(model: nn.Module) -> list[nn.Module]:
    """The parts of a model of which one at a time is whole: what stands in its lists of modules.

    A language model that learns from the next token takes slopes of all its blocks within a call: it has none.
    """
    if isinstance(model, LanguageModel) and learning_parts(model):
        return []
    return [block for child in model.children() if isinstance(child, nn.ModuleList) for block in child]


def gathered(held: Any, *, keep: bool) -> Any:
    """A state with whole tensors in the place of sharded ones: for a file that one process could have written.

    All ranks call it, tensor after tensor is gathered, and where ``keep`` is false nothing of them stays.
    """
    if isinstance(held, Tensor):
        found = whole(held.detach()).cpu() if is_sharded(held) else held
        return found if keep else None
    if isinstance(held, Mapping):  # in an order that all have: whoever owns a memory may have made its name earlier
        known = {name: gathered(held[name], keep=keep) for name in sorted(held, key=str)}
        return {name: known[name] for name in held}
    if isinstance(held, list | tuple):
        return [gathered(value, keep=keep) for value in held]
    return held


def outline(held: Any) -> Any:
    """The same dictionaries, lists and plain values, with tensors that have a shape alone."""
    if isinstance(held, Tensor):
        return torch.empty_like(held, device="meta")
    if isinstance(held, dict):
        return {name: outline(value) for name, value in held.items()}
    if isinstance(held, list):
        return [outline(value) for value in held]
    return held


def handed_out(held: Any, like: Tensor | None = None) -> Any:
    """What rank 0 has, on every rank, one tensor after the other; all ranks call it, the others with an outline.

    Args:
        held: a tensor on the CPU, or dictionaries and lists of them.
        like: a parameter, as which tensors of its shape are sharded.
    """
    if isinstance(held, Tensor):
        found = torch.empty_like(held, device="cpu") if held.is_meta else held.contiguous()
        if found.numel():  # in bytes: not every transport knows every dtype
            dist.broadcast(found.reshape(-1).view(torch.uint8), 0)
        return alike(found, like) if like is not None and is_sharded(like) and like.shape == found.shape else found
    if isinstance(held, dict):
        return {name: handed_out(value, like) for name, value in held.items()}
    if isinstance(held, list):
        return [handed_out(value, like) for value in held]
    return held


def handed_out_to(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> dict[str, Any]:
    """The state of an optimizer, with memories of a parameter's shape sharded as that is."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    numbers = [number for group in saved["param_groups"] for number in group["params"]]
    like = dict(zip(numbers, parameters, strict=False))  # whether a state fits is the optimizer's to say
    state = {number: handed_out(value, like.get(number)) for number, value in saved["state"].items()}
    rest = {name: handed_out(value) for name, value in saved.items() if name != "state"}
    return {**rest, "state": state}
