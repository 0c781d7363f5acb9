"""Links that decide how much of the weights is kept, W's own alpha (M3, O22)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from nestlearn.memory.nesting import Said, Scene
from nestlearn.rules.link import Link, Linked, called, length_of, once, retained, whole
from nestlearn.rules.words import grouped

__all__ = ["cautious"]


@dataclass(frozen=True, repr=False)
class cautious(Link):
    """Answers a, and decays an entry of W only where the step shrinks it anyway (O22; arXiv 2510.12402).

    How strong the decay is stays with the optimizer, as lr and weight_decay do: without weight decay it does nothing.

    Example:
        >>> from nestlearn.rules import adam, chain
        >>> chain(adam(), cautious()).parts()["cautious"]
        cautious()
    """

    outermost = True

    @property
    def reads(self) -> Mapping[str, int]:
        return {"weights": 1}

    def link(self, shape: torch.Size, u: Said, a: Said) -> Linked:
        before, length, a = retained(a), length_of(a), called(whole(a), self.memory("given"))

        def kept(scene: Scene) -> Tensor:
            # Made on the device: a number that is copied there would be waited for.
            ones = torch.ones_like(scene.gradient)
            return torch.where(a(scene) * scene.weights > 0, before(scene) * ones, ones)

        words = f"where({grouped(a.words)} * W > 0, {before.words}, 1)"
        return Linked(a, length=length, kept=once(Said(words, kept)), where=a.where)
