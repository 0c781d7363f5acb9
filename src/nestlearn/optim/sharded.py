"""Tensors that are sharded over ranks: DTensors, as FSDP2, HSDP and tensor parallelism make parameters."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeGuard

from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

__all__ = ["alike", "any_sharded", "is_sharded", "local", "sharded_alike", "whole"]


def is_sharded(tensor: object) -> TypeGuard[DTensor]:
    """Whether a tensor is a DTensor, which nothing is before somebody has imported them."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, getattr(module, "DTensor", ()))


def any_sharded(tensors: Iterable[Tensor]) -> bool:
    """Whether any of many tensors is a DTensor; no Python is run for each of them."""
    kind = getattr(sys.modules.get("torch.distributed.tensor"), "DTensor", None)
    return kind is not None and any(issubclass(each, kind) for each in set(map(type, tensors)))


def local(tensor: Tensor) -> Tensor:
    """The part that lies on this rank; of a plain tensor all of it."""
    return tensor.to_local() if is_sharded(tensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, gathered from the ranks where it is sharded."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor


def alike(tensor: Tensor, like: Tensor) -> Tensor:
    """A tensor, whole on every rank or sharded in any way, sharded as another is."""
    if not is_sharded(like):
        return whole(tensor)
    if not is_sharded(tensor):
        from torch.distributed.tensor import distribute_tensor

        return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)
    return tensor if tensor.placements == like.placements else tensor.redistribute(like.device_mesh, like.placements)


def sharded_alike(part: Tensor, like: DTensor) -> Tensor:
    """A DTensor whose part on this rank is ``part`` itself, sharded as another of the same shape."""
    from torch.distributed.tensor import DTensor as Sharded

    mesh, placements = like.device_mesh, like.placements
    return Sharded.from_local(part, mesh, placements, run_check=False, shape=like.shape, stride=like.stride())
