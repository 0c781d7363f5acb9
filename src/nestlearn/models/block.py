"""A block of a language model: parts that stand one after the other on the residual stream (C6).

    x <- x + layer(RMSNorm(x))          for every part; a continuum memory has norms and residuals of its own

A block is a module with a forward, and the unit in which tools take a model apart:

    from torch.distributed.fsdp import fully_shard

    for block in model.blocks:
        fully_shard(block)
    fully_shard(model)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from torch import Tensor, nn

from nestlearn.errors import choice
from nestlearn.layers.attention import Attention
from nestlearn.layers.continuum import ContinuumMemory
from nestlearn.layers.memory_layer import MemoryLayer
from nestlearn.layers.self_modifying import SelfModifyingTitans
from nestlearn.layers.sequence import SequenceLayer
from nestlearn.memory.state import State
from nestlearn.models.feed_forward import SwiGLU

__all__ = ["PARTS", "Block", "Part", "Stage"]

PARTS: Mapping[str, type[SequenceLayer]] = {
    "attention": Attention,
    "memory": MemoryLayer,
    "self_modifying": SelfModifyingTitans,
    "continuum": ContinuumMemory,
    "swiglu": SwiGLU,
}
"""The layers by the names that a pattern uses."""

Part = tuple[str, Mapping[str, Any]]
"""The name of a layer and its settings."""


class Stage(nn.Module):
    """A layer between a norm and the residual stream.

    Args:
        dim: width of the stream.
        part: a name in `PARTS`, and settings of the layer.
    """

    def __init__(self, dim: int, part: Part) -> None:
        super().__init__()
        name, settings = part
        choice("part", name, PARTS)
        self.layer = PARTS[name](dim, **settings)
        self.norm = None if name == "continuum" else nn.RMSNorm(dim, eps=1e-6)

    def forward(
        self, x: Tensor, state: State | None = None, return_state: bool = False, lengths: Sequence[int] | None = None
    ) -> Any:
        """The stream after the layer [batch, time, dim], and with ``return_state`` (stream, state of the layer)."""
        given = x if self.norm is None else self.norm(x)
        unequal = {} if lengths is None else {"lengths": lengths}
        answer = self.layer(given, state=state, return_state=return_state, **unequal)
        y, after = answer if return_state else (answer, {})
        y = y if self.norm is None else x + y
        return (y, after) if return_state else y


class Block(nn.ModuleList):
    """Stages, one after the other: ``Block(Stage(dim, part) for part in parts)``.

    State: that of each stage's layer under its number, ``{"0": ..., "1": ...}``.
    """

    @property
    def layers(self) -> list[SequenceLayer]:
        """The layers in their order."""
        return [cast(Stage, stage).layer for stage in self]

    def forward(
        self, x: Tensor, state: State | None = None, return_state: bool = False, lengths: Sequence[int] | None = None
    ) -> Any:
        """The stream after the block [batch, time, dim], and with ``return_state`` (stream, state).

        Args:
            x: the stream before it [batch, time, dim].
            state: from an earlier call; None begins anew.
            return_state: whether to return the state.
            lengths: how many tokens of each sequence count; None for all.
        """
        written: State = {}
        for number, stage in enumerate(self):
            name = str(number)
            x = stage(x, None if state is None else state[name], return_state, lengths)
            if return_state:
                x, written[name] = x
        return (x, written) if return_state else x
