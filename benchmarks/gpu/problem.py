"""The small problem on which settings are tried: a network that learns one batch, on any device."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

import nestlearn as nl
from benchmarks.gpu.settings import Setting

__all__ = ["Problem", "build", "difference", "fewer"]

WIDTHS = (12, 16, 16, 16, 5)
"""Two of the matrices are alike, so that they are written together."""


class Problem:
    """A tanh network and its batches; the same numbers on every device.

    Args:
        device, dtype: of the weights.
        rows: of a batch.
    """

    def __init__(self, device: str, dtype: torch.dtype, rows: int = 32) -> None:
        self.device, self.rows = device, rows
        generator = torch.Generator().manual_seed(0)
        layers: list[nn.Module] = []
        for into, out in pairwise(WIDTHS):
            layer = nn.utils.skip_init(nn.Linear, into, out, dtype=torch.float64)
            for parameter in layer.parameters():
                draw = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.data.copy_(draw / into**0.5)
            layers += [layer, nn.Tanh()]
        self.module = nn.Sequential(*layers[:-1]).to(device, dtype)

    def loss(self, number: int = 0, factor: float = 1.0, half: torch.dtype | None = None) -> Tensor:
        """The mean squared error on a batch, under autocast to ``half`` if given."""
        generator = torch.Generator().manual_seed(1000 + number)
        like = next(self.module.parameters())
        shapes = ((self.rows, WIDTHS[0]), (self.rows, WIDTHS[-1]))
        inputs, targets = (torch.randn(s, generator=generator, dtype=torch.float64).to(like) for s in shapes)
        cast: AbstractContextManager[object] = nullcontext() if half is None else torch.autocast(self.device, half)
        with cast:
            answers = self.module(inputs)
        return factor * (answers.to(targets.dtype) - targets).square().mean()

    def step(
        self,
        setting: Setting,
        optimizer: torch.optim.Optimizer,
        number: int = 0,
        half: torch.dtype | None = None,
        around: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> Tensor:
        """One step; ``around`` makes a context for ``optimizer.step`` alone. Returns the loss before it."""

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = self.loss(number, half=half)
            loss.backward(retain_graph=setting.closure)
            return loss

        loss = None if setting.closure else closure()
        with around():
            loss = optimizer.step(closure) if setting.closure else optimizer.step() or loss
        return loss.detach()  # type: ignore[union-attr]

    def weights(self) -> list[Tensor]:
        """Copies."""
        return [parameter.detach().clone() for parameter in self.module.parameters()]


def build(setting: Setting, module: nn.Module, **overrides: Any) -> torch.optim.Optimizer:
    """The optimizer of a setting over all parameters of a module."""
    keywords = {**setting.settings, **({"model": module} if setting.model else {}), **overrides}
    for place in {"matrix", "element"} & set(keywords):
        keywords[place] = nl.rules.parse(keywords[place])
    return getattr(nl.optim, setting.name)(module.named_parameters(), **keywords)


def fewer(device: str, count: int, dry: int) -> int:
    """``count``, but ``dry`` in a dry run, which only has to make the row."""
    return count if device.startswith("cuda") else dry


def difference(ours: Iterable[Tensor], theirs: Iterable[Tensor]) -> float:
    """The largest absolute difference, whatever the devices; infinity where either is no number."""
    found = 0.0
    for one, two in zip(ours, theirs, strict=True):
        gap = (one.detach() - two.detach().to(one.device)).abs()
        found = max(found, float(gap.nan_to_num(torch.inf, torch.inf).max()))
    return found
