"""Which rank writes a matrix that is sharded over many, and keeps what its rule remembers.

A lane is a stack of equal matrices, of which each rank takes its share. In the order of the groups, the next matrix
goes to the rank that has the least work so far: what was handed out stays where it is when a group is added.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nestlearn.optim.exchange import Piece, Split, split_of
from nestlearn.optim.lanes import matrix_shape

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import DTensor

__all__ = ["Owners", "work"]


def work(parameter: DTensor) -> int:
    """Of a rule for matrices, up to a factor: products of a matrix [n, m] and its Gram matrix take n m min(n, m)."""
    return parameter.numel() * max(1, min(matrix_shape(parameter)))


class Owners:
    """The owners of sharded matrices, each decided on when it is first asked for."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[DTensor, Split, int]] = {}
        self._work: dict[tuple[DeviceMesh, int], list[int]] = {}

    def piece(self, parameter: DTensor) -> Piece | None:
        """A matrix as a piece that a rank owns; None where all ranks write it, as it is sharded in several ways."""
        split = split_of(parameter)
        if split is None:
            return None
        known = self._known.get(id(parameter))
        if known is None or known[0] is not parameter or known[1] != split:
            loads = self._work.setdefault((split.mesh, split.over), [0] * split.ranks)
            owner = loads.index(min(loads))
            loads[owner] += work(parameter)
            known = self._known[id(parameter)] = parameter, split, owner
        return Piece(split, parameter.shape, parameter.dtype, known[2])
