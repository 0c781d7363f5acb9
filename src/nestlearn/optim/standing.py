"""What stands for a sharded parameter (DTensor) while rules write, and what its state shows of their memories."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nestlearn.optim.exchange import Piece
from nestlearn.optim.settings import Group
from nestlearn.optim.sharded import alike, local, sharded_alike, whole
from nestlearn.optim.stacks import Held

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

__all__ = ["EVERYWHERE", "Standing", "absent"]

EVERYWHERE = ("step", "pending_inputs", "pending_errors", "pending_rows")
"""What the state of a matrix has on every rank: how many steps it took, and what its layer has shown since a write."""


@dataclass
class Standing:
    """What stands for a sharded parameter: its part, or a whole matrix whose storage is empty between steps.

    Attributes:
        parameter: the sharded one.
        tensor: what rules see.
        flat: whether it is the part.
        piece: of a matrix that one rank owns; None where all ranks write it.
        group: of the parameter.
        sends_weight: whether the owner is sent the weight too, as its rule looks at it or forgets in its own way; else
            the tensor is zero before it is written, and what was added to it comes back.
        shown: what the state of the parameter was last seen to hold, and what stands for it.
        entries: how many entries that state had, where another rank owns the matrix.
    """

    parameter: DTensor
    tensor: Tensor
    flat: bool
    piece: Piece | None
    group: Group = field(default_factory=dict)
    sends_weight: bool = True
    shown: dict[str, tuple[object, Tensor]] = field(default_factory=dict)
    entries: int = 0

    @property
    def here(self) -> bool:
        """Whether this rank writes it."""
        return self.piece is None or self.piece.mine

    def holds(self, flat: bool, piece: Piece | None) -> bool:
        """Whether it still stands for the parameter."""
        part = self.parameter.to_local()
        if flat != self.flat or piece != self.piece or self.tensor.dtype != part.dtype:
            return False
        if self.tensor.device != part.device:
            return False
        return not flat or (self.tensor.data_ptr() == part.data_ptr() and self.tensor.shape == part.shape)

    def fill_part(self) -> None:
        """Have the part of the gradient here; that of the weight is the tensor itself."""
        slope = self.parameter.grad
        self.tensor.grad = None if slope is None else local(alike(slope, self.parameter))

    def fill(self, weight: Tensor | None, gradient: Tensor) -> None:
        """Have the whole of a matrix here, or zeros in the place of its weight."""
        self.tensor.untyped_storage().resize_(self.tensor.numel() * self.tensor.element_size())
        if weight is None:
            self.tensor.zero_()
        else:
            self.tensor.copy_(weight)
        self.tensor.grad = gradient

    def empty(self) -> None:
        """Have nothing here that the parameter, or another rank, has."""
        if not self.flat:
            self.tensor.untyped_storage().resize_(0)
        self.tensor.grad = None

    def shown_as(self, name: str, leaf: Tensor) -> Tensor:
        """A memory as the state of the parameter has it: sharded where its rule sees parts."""
        if not self.flat or leaf.shape != self.tensor.shape or name == "step":
            return leaf
        return sharded_alike(leaf, self.parameter)

    def stands_for(self, name: str, leaf: Tensor) -> Tensor:
        """The opposite, whoever put the memory there, sharded in another way or not at all."""
        if not self.flat or leaf.shape != self.parameter.shape or name == "step":
            return whole(leaf)
        return local(alike(leaf, self.parameter))


def absent(state: Held, names: Container[str]) -> None:
    """Keep shapes alone of the memories with these names, which another rank has."""
    for name, leaf in state.items():
        if name in names and name not in EVERYWHERE and isinstance(leaf, Tensor) and not leaf.is_meta:
            state[name] = torch.empty(leaf.shape, dtype=leaf.dtype, device="meta")
