"""Tensors that are sharded over ranks: DTensors, as FSDP2, HSDP and tensor parallelism make parameters."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeGuard

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import DTensor

__all__ = ["alike", "any_sharded", "gathered", "is_sharded", "local", "sharded_alike", "whole"]


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


def gathered(tensors: Sequence[Tensor]) -> list[Tensor]:
    """All of each of these tensors; those that are sharded by rows over the same ranks come in one message."""
    found: list[Tensor] = list(tensors)
    together: dict[tuple[DeviceMesh, int, torch.dtype], list[int]] = {}
    for number, tensor in enumerate(tensors):
        if is_sharded(tensor):
            dim = _by_rows(tensor)
            if dim is None:
                found[number] = tensor.full_tensor()
            else:
                together.setdefault((tensor.device_mesh, dim, tensor.dtype), []).append(number)
    for (mesh, dim, _), numbers in together.items():
        some = _gathered_rows([tensors[number] for number in numbers], mesh, dim)
        for number, tensor in zip(numbers, some, strict=True):
            found[number] = tensor
    return found


def _by_rows(tensor: DTensor) -> int | None:
    """The dimension of the mesh over which a tensor is sharded by its rows, if it is sharded in no other way."""
    split = [dim for dim, placement in enumerate(tensor.placements) if not placement.is_replicate()]
    if len(split) != 1 or type(tensor.placements[split[0]]).__name__ != "Shard":
        return None
    return split[0] if tensor.placements[split[0]].is_shard(0) else None


def _gathered_rows(tensors: Sequence[Tensor], mesh: DeviceMesh, dim: int) -> Iterator[Tensor]:
    ranks = mesh.size(dim)
    # As torch.chunk divides them: the last ranks may have fewer rows, or none.
    rows = [[len(chunk) for chunk in _chunks(len(tensor), ranks)] for tensor in tensors]
    sizes = [
        [count * (tensor.numel() // len(tensor)) for count in counts]
        for tensor, counts in zip(tensors, rows, strict=True)
    ]
    width = max(sum(size[rank] for size in sizes) for rank in range(ranks))
    parts = [local(tensor).reshape(-1) for tensor in tensors]
    mine = torch.cat([*parts, parts[0].new_zeros(width - sum(part.numel() for part in parts))])
    everyone = mine.new_empty(ranks * width)
    torch.distributed.all_gather_into_tensor(everyone, mine, group=mesh.get_group(dim))
    lines = [
        line[: sum(size[rank] for size in sizes)].split([size[rank] for size in sizes])
        for rank, line in enumerate(everyone.view(ranks, width).unbind(0))
    ]
    for number, tensor in enumerate(tensors):
        yield torch.cat([line[number] for line in lines]).view(tensor.shape)


def _chunks(rows: int, ranks: int) -> list[range]:
    size = -(-rows // ranks)
    return [range(min(rank * size, rows), min((rank + 1) * size, rows)) for rank in range(ranks)]


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
