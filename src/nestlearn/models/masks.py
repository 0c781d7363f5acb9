"""Which tokens of a batch count: prompts of unequal length side by side, filled up before, behind or between.

    tokens, mask = pad([[72, 105], [72, 101, 108, 108, 111]])
    logits = model(tokens, mask=mask)

The tokens that count are moved together to the front of their sequence, read, and their answers moved back, so it makes
no difference where the others stand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from nestlearn.ops.tracing import by_hand

__all__ = ["Counted", "counted", "pad"]


@dataclass(frozen=True)
class Counted:
    """The tokens of each sequence that count.

    Attributes:
        lengths: how many they are [batch].
        order: their places first, then those of the others [batch, time].
    """

    lengths: tuple[int, ...]
    order: Tensor

    @property
    def unequal(self) -> tuple[int, ...] | None:
        """The lengths, if they differ."""
        return self.lengths if len(set(self.lengths)) > 1 else None

    def mask(self) -> Tensor:
        """Which tokens count after `front` [batch, longest]."""
        return self._own(max(self.lengths))

    def front(self, x: Tensor) -> Tensor:
        """[batch, time, ...] with what counts in front, then zeros [batch, longest, ...]."""
        index = self.order[:, : max(self.lengths)]
        wide = index.view(*index.shape, *[1] * (x.ndim - 2))
        own = self._own(index.shape[1]).view(wide.shape)
        return x.gather(1, wide.expand(*index.shape, *x.shape[2:])).masked_fill(~own, 0)

    def back(self, x: Tensor) -> Tensor:
        """What `front` moved where it was [batch, time, dim], zeros elsewhere."""
        own, index = self._own(x.shape[1]), self.order[:, : x.shape[1]].unsqueeze(-1).expand(x.shape)
        nothing = x.new_zeros(*self.order.shape, x.shape[-1])
        return nothing.scatter(1, index, x.masked_fill(~own.unsqueeze(-1), 0.0))

    def _own(self, longest: int) -> Tensor:
        """Which of so many tokens in front count [batch, longest]."""
        device = self.order.device
        return torch.arange(longest, device=device) < torch.tensor(self.lengths, device=device).unsqueeze(1)

    def last(self, x: Tensor, otherwise: Tensor | None = None) -> Tensor:
        """Of [batch, time, dim] that at the last token that counts [batch, dim]; ``otherwise`` where none does."""
        place = torch.tensor([max(length - 1, 0) for length in self.lengths], device=x.device)
        found = x.gather(1, self.order.gather(1, place.unsqueeze(1)).unsqueeze(-1).expand(-1, 1, x.shape[-1]))[:, 0]
        if otherwise is None:
            return found
        none = torch.tensor([length == 0 for length in self.lengths], device=x.device)
        return torch.where(none.unsqueeze(1), otherwise, found)


def counted(mask: Tensor | None, shape: tuple[int, int], device: torch.device) -> Counted | None:
    """The tokens that count; None for all of them.

    Raises:
        TypeError: a mask that is no tensor.
        ValueError: one of another shape, or that holds other than truth, 0 and 1.
        NotImplementedError: within a compiler or a transform.
    """
    if mask is None:
        return None
    if not by_hand():
        raise NotImplementedError(
            "mask: how far each sequence is read depends on it, which a compiled graph or a transform of torch.func "
            "cannot look up: run the model as it is, or read sequences of one length"
        )
    if not isinstance(mask, Tensor):
        raise TypeError(f"mask: expected a tensor [batch, time], got {type(mask).__name__}")
    if tuple(mask.shape) != shape:
        raise ValueError(f"mask: expected {list(shape)}, a truth for each token, got {list(mask.shape)}")
    if mask.dtype != torch.bool and not bool(((mask == 0) | (mask == 1)).all()):
        raise ValueError("mask: expected truths, or 1 for a token that counts and 0 for one that does not")
    counts = mask.to(device, torch.bool)
    if bool(counts.all()):
        return None
    order = (~counts).to(torch.uint8).argsort(dim=1, stable=True)
    return Counted(tuple(counts.sum(1).tolist()), order)


def pad(
    prompts: Sequence[Sequence[int] | Tensor], *, side: Literal["left", "right"] = "right", fill: int = 0
) -> tuple[Tensor, Tensor]:
    """Prompts of unequal length as one batch, (tokens, mask), both [batch, time].

    Args:
        prompts: the tokens of each.
        side: where the shorter ones are filled up.
        fill: the token that stands there; no model looks at it.

    Raises:
        ValueError: no prompt, or another side.

    Example:
        >>> tokens, mask = pad([[7, 8, 9], [5]])
        >>> tokens.tolist(), mask.tolist()
        ([[7, 8, 9], [5, 0, 0]], [[True, True, True], [True, False, False]])
    """
    if side not in ("left", "right") or not len(prompts):
        raise ValueError(f"expected at least one prompt and side 'left' or 'right', got {len(prompts)} and {side!r}")
    rows = [torch.as_tensor(prompt, dtype=torch.int64) for prompt in prompts]
    longest = max(len(row) for row in rows)
    device = rows[0].device
    tokens = torch.full((len(rows), longest), fill, dtype=torch.int64, device=device)
    mask = torch.zeros(len(rows), longest, dtype=torch.bool, device=device)
    for number, row in enumerate(rows):
        own = slice(longest - len(row), longest) if side == "left" else slice(len(row))
        tokens[number, own], mask[number, own] = row, True
    return tokens, mask
