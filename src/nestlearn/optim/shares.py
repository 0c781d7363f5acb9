"""What owner ranks remember of sharded matrices, as every rank's share of it: for checkpoints and averaged weights.

Between steps a memory lies whole on the rank that owns its matrix. A checkpoint has it sharded by rows over all ranks
that share the matrix, as a DTensor, so that no rank holds what all of them remember.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch import distributed as dist

from nestlearn.optim.exchange import Piece, Split, from_owners, to_owners
from nestlearn.optim.sharded import is_sharded
from nestlearn.optim.stacks import Held

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor, Placement

__all__ = ["Owned", "collected", "shared"]

Owned = tuple[Held, Piece, frozenset[str]]
"""The state of a matrix, who owns it, and the names of its memories."""


def shared(owned: Sequence[Owned], device: torch.device) -> list[Held]:
    """States of which every rank has a share: memories are DTensors, and numbers are equal on all ranks.

    All ranks that share the matrices take part.

    Args:
        owned: states of matrices, in the same order on all ranks.
        device: where they lie.
    """
    outlines: dict[int, dict[str, Any]] = {}
    for mesh, over in {(piece.split.mesh, piece.split.over): None for _, piece, _ in owned}:
        mine = {
            number: _outline(state, names)
            for number, (state, piece, names) in enumerate(owned)
            if piece.mine and (piece.split.mesh, piece.split.over) == (mesh, over)
        }
        everyone: list[Any] = [None] * mesh.size(over)
        dist.all_gather_object(everyone, mine, group=mesh.get_group(over))
        for some in everyone:
            outlines |= some
    leaves: list[tuple[int, str, Piece]] = []
    found: list[Held] = []
    for number, (state, piece, names) in enumerate(owned):
        # What others keep in a state is theirs, wherever it lies.
        found.append(
            {name: leaf for name, leaf in state.items() if is_sharded(leaf) or not (name in names or _gone(leaf))}
        )
        for name, (value, shape, dtype) in outlines[number].items():
            if shape is None:
                found[number][name] = value
            else:
                rows = Piece(piece.split._replace(dim=0), shape, dtype, piece.owner)
                leaves.append((number, name, rows))
    wholes = [owned[number][0][name] if piece.mine else None for number, name, piece in leaves]
    parts = from_owners(wholes, [piece for _, _, piece in leaves], device)
    for (number, name, piece), part in zip(leaves, parts, strict=True):
        found[number][name] = _as_shards(part, piece)
    return found


def _outline(state: Held, names: frozenset[str]) -> dict[str, Any]:
    """(value, None, None) of a number, (None, shape, dtype) of a memory that has rows."""
    found: dict[str, Any] = {}
    for name, leaf in state.items():
        if name not in names or is_sharded(leaf):
            continue
        if isinstance(leaf, Tensor) and leaf.ndim:
            found[name] = None, leaf.shape, leaf.dtype
        else:
            found[name] = leaf, None, None
    return found


def _gone(leaf: object) -> bool:
    """Whether it is what was left of a memory that a rule has no more."""
    return isinstance(leaf, Tensor) and leaf.is_meta


def _as_shards(part: Tensor, piece: Piece) -> DTensor:
    from torch.distributed.tensor import DTensor as Sharded

    stride = torch.empty(piece.shape, device="meta").stride()
    mesh = piece.split.mesh
    return Sharded.from_local(part, mesh, _rows(piece.split), run_check=False, shape=piece.shape, stride=stride)


def _rows(split: Split) -> list[Placement]:
    """How a tensor lies that is divided by rows among the ranks of a split."""
    from torch.distributed.tensor import Replicate, Shard

    return [Shard(0) if dim == split.over else Replicate() for dim in range(split.mesh.ndim)]


def collected(owned: Sequence[Owned]) -> None:
    """Put memories that were loaded as shards where they are owned; elsewhere they go."""
    leaves: list[tuple[Held, str, Piece]] = []
    parts: list[Tensor] = []
    for state, piece, names in owned:
        for name in sorted(names & state.keys()):
            leaf = state[name]
            if not is_sharded(leaf):
                continue
            mesh, over, _ = piece.split
            rows = Piece(Split(mesh, over, 0), leaf.shape, leaf.dtype, piece.owner)
            leaves.append((state, name, rows))
            parts.append(_by_rows(leaf, rows))
    wholes = to_owners(parts, [piece for _, _, piece in leaves])
    for (state, name, piece), whole in zip(leaves, wholes, strict=True):
        state[name] = torch.empty(piece.shape, dtype=piece.dtype, device="meta") if whole is None else whole


def _by_rows(leaf: DTensor, piece: Piece) -> Tensor:
    """The part of a memory on this rank, as the piece is divided."""
    return leaf.redistribute(piece.split.mesh, _rows(piece.split)).to_local()
