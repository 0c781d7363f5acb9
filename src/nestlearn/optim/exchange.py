"""Tensors that are sharded over ranks: whole to the rank that owns them, and in parts back, one message each way.

Everything travels in bytes, so that tensors of all dtypes share a message, and no rank is sent what it does not need
(``all_to_all``). All ranks that share a tensor call with the same lists, in the same order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch import distributed as dist

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import DTensor

__all__ = ["Piece", "Split", "divided", "from_owners", "split_of", "to_owners"]

ALIGNED = 16
"""Every tensor begins at a multiple of so many bytes, whatever travels before it."""


class Split(NamedTuple):
    """How a tensor is divided among ranks: along dimension ``dim`` of its own, over dimension ``over`` of a mesh."""

    mesh: DeviceMesh
    over: int
    dim: int

    @property
    def ranks(self) -> int:
        """How many ranks share the tensor."""
        return self.mesh.size(self.over)

    @property
    def rank(self) -> int:
        """Which of them this one is."""
        return self.mesh.get_local_rank(self.over)

    def counts(self, length: int) -> list[int]:
        """How many of so many rows each rank has."""
        return divided(length, self.ranks)


class Piece(NamedTuple):
    """A tensor of which every rank has a part, and the rank that owns it."""

    split: Split
    shape: torch.Size
    dtype: torch.dtype
    owner: int

    @property
    def mine(self) -> bool:
        """Whether this rank owns it."""
        return self.owner == self.split.rank

    @property
    def rest(self) -> list[int]:
        """The shape without the dimension that is divided."""
        dim = self.split.dim
        return [*self.shape[:dim], *self.shape[dim + 1 :]]

    def form(self, rows: int) -> tuple[list[int], torch.dtype]:
        """Shape, with the divided dimension first, and dtype of a part of so many rows."""
        return [rows, *self.rest], self.dtype


def divided(length: int, ranks: int) -> list[int]:
    """How many of so many rows each rank has, as torch.chunk divides them: the last may have fewer, or none."""
    size = -(-length // ranks)
    return [max(0, min(size, length - rank * size)) for rank in range(ranks)]


def split_of(tensor: DTensor) -> Split | None:
    """How a tensor is divided, if it is along one dimension over one dimension of its mesh; else None."""
    over = [dim for dim, placement in enumerate(tensor.placements) if not placement.is_replicate()]
    # A tensor that is sharded twice along one dimension, as FSDP2 with tensor parallelism has it, is no chunk of rows.
    if len(over) != 1 or type(tensor.placements[over[0]]).__name__ != "Shard":
        return None
    dim = next(dim for dim in range(tensor.ndim) if tensor.placements[over[0]].is_shard(dim))
    return Split(tensor.device_mesh, over[0], dim)


def to_owners(parts: Sequence[Tensor], pieces: Sequence[Piece]) -> list[Tensor | None]:
    """Every tensor whole where it is owned, None elsewhere.

    Args:
        parts: this rank's part of each.
        pieces: what they are parts of.
    """
    found: list[Tensor | None] = [None] * len(pieces)
    for places in _together(pieces):
        split = pieces[places[0]].split
        mine = [place for place in places if pieces[place].mine]
        sent: list[list[Tensor]] = [[] for _ in range(split.ranks)]
        for place in places:
            sent[pieces[place].owner].append(parts[place].movedim(pieces[place].split.dim, 0))
        counts = [pieces[place].split.counts(pieces[place].shape[pieces[place].split.dim]) for place in mine]
        forms = [
            [pieces[place].form(rows[rank]) for place, rows in zip(mine, counts, strict=True)]
            for rank in range(split.ranks)
        ]
        received = _exchanged(sent, forms, split, parts[places[0]].device)
        for number, place in enumerate(mine):
            whole = torch.cat([each[number] for each in received])
            found[place] = whole.movedim(0, pieces[place].split.dim)
    return found


def from_owners(wholes: Sequence[Tensor | None], pieces: Sequence[Piece], device: torch.device) -> list[Tensor]:
    """This rank's part of every tensor.

    Args:
        wholes: the tensors that this rank owns; what stands for the others is not looked at.
        pieces: what they are.
        device: where they lie.
    """
    found: dict[int, Tensor] = {}
    for places in _together(pieces):
        split = pieces[places[0]].split
        sent: list[list[Tensor]] = [[] for _ in range(split.ranks)]
        forms: list[list[tuple[list[int], torch.dtype]]] = [[] for _ in range(split.ranks)]
        for place in places:
            piece, whole = pieces[place], wholes[place]
            counts = piece.split.counts(piece.shape[piece.split.dim])
            forms[piece.owner].append(piece.form(counts[split.rank]))
            if piece.mine:
                assert whole is not None, "what is owned is here"
                for line, part in zip(sent, whole.movedim(piece.split.dim, 0).split(counts), strict=True):
                    line.append(part)
        received = _exchanged(sent, forms, split, device)
        lines = [iter(line) for line in received]
        for place in places:
            found[place] = next(lines[pieces[place].owner]).movedim(0, pieces[place].split.dim)
    return [found[place] for place in range(len(pieces))]


def _together(pieces: Sequence[Piece]) -> Iterator[list[int]]:
    """The places of those that the same ranks share."""
    found: dict[tuple[DeviceMesh, int], list[int]] = {}
    for place, piece in enumerate(pieces):
        found.setdefault((piece.split.mesh, piece.split.over), []).append(place)
    yield from found.values()


def _exchanged(
    sent: Sequence[Sequence[Tensor]],
    forms: Sequence[Sequence[tuple[list[int], torch.dtype]]],
    split: Split,
    device: torch.device,
) -> list[list[Tensor]]:
    """What every rank has sent to this one.

    Args:
        sent: tensors for each rank.
        forms: shape and dtype of what each rank sends here.
        split: whose ranks they are.
        device: where the tensors lie.
    """
    lines = [[_in_bytes(tensor) for tensor in line] for line in sent]
    message = torch.cat([byte for line in lines for byte in line] or [torch.empty(0, dtype=torch.uint8, device=device)])
    sizes = [[_padded(_bytes(shape, dtype)) for shape, dtype in line] for line in forms]
    received = torch.empty(sum(map(sum, sizes)), dtype=torch.uint8, device=device)
    dist.all_to_all_single(
        received,
        message,
        [sum(line) for line in sizes],
        [sum(map(len, line)) for line in lines],
        group=split.mesh.get_group(split.over),
    )
    flat = [form for line in forms for form in line]
    starts = [0, *accumulate(size for line in sizes for size in line)]
    tensors = iter(
        received[start : start + _bytes(shape, dtype)].view(dtype).view(shape)
        for start, (shape, dtype) in zip(starts, flat, strict=False)
    )
    return [[next(tensors) for _ in line] for line in forms]


def _in_bytes(tensor: Tensor) -> Tensor:
    flat = tensor.contiguous().view(-1).view(torch.uint8)
    missing = _padded(len(flat)) - len(flat)
    return torch.nn.functional.pad(flat, (0, missing)) if missing else flat


def _bytes(shape: Sequence[int], dtype: torch.dtype) -> int:
    return torch.Size(shape).numel() * dtype.itemsize


def _padded(size: int) -> int:
    return -(-size // ALIGNED) * ALIGNED
