"""Which rank writes a matrix that is sharded over many, and keeps what its rule remembers.

A lane is a stack of equal matrices, of which each rank takes its share. Those with most work go first, each to the rank
that has the least so far; what was handed out stays where it is when a group is added.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from nestlearn.optim.exchange import Piece, Split, split_of
from nestlearn.optim.lanes import matrix_shape

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import DTensor

__all__ = ["Owners", "hand_out"]


def hand_out(parameters: Sequence[Tensor], loads: list[int]) -> list[int]:
    """The rank that each matrix goes to; a product with its own Gram matrix is the measure of its work.

    Args:
        parameters: matrices, in an order that all ranks have in common.
        loads: the work of each rank so far, which becomes more.
    """
    work = [parameter.numel() * max(1, min(matrix_shape(parameter))) for parameter in parameters]
    found = [0] * len(work)
    for place in sorted(range(len(work)), key=lambda place: -work[place]):
        found[place] = loads.index(min(loads))
        loads[found[place]] += work[place]
    return found


class Owners:
    """The owners of sharded matrices, each decided on when it is first asked for."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[DTensor, Split, int]] = {}
        self._loads: dict[tuple[DeviceMesh, int], list[int]] = {}

    def pieces(self, parameters: Sequence[DTensor]) -> list[Piece | None]:
        """Matrices as pieces that a rank owns; None where all ranks write one, as it is sharded in several ways."""
        splits = [split_of(parameter) for parameter in parameters]
        new: dict[tuple[DeviceMesh, int], list[tuple[DTensor, Split]]] = {}
        for parameter, split in zip(parameters, splits, strict=True):
            known = self._known.get(id(parameter))
            if split is not None and (known is None or known[0] is not parameter or known[1] != split):
                new.setdefault((split.mesh, split.over), []).append((parameter, split))
        for (mesh, over), some in new.items():
            loads = self._loads.setdefault((mesh, over), [0] * mesh.size(over))
            owners = hand_out([parameter for parameter, _ in some], loads)
            for (parameter, split), owner in zip(some, owners, strict=True):
                self._known[id(parameter)] = parameter, split, owner
        return [
            None if split is None else Piece(split, parameter.shape, parameter.dtype, self._known[id(parameter)][2])
            for parameter, split in zip(parameters, splits, strict=True)
        ]
