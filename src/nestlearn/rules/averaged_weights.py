"""The average of the weights that training goes through, beside the weights themselves (O21's box, of W instead of a).

Noise that a large learning rate keeps in the weights is not in their average: what is evaluated, or handed on, is often
better than what is trained (Polyak and Juditsky 1992; tail averages, arXiv 1803.05407). ``Optimizer.eval`` puts it into
the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from nestlearn.memory.boxes import average_box
from nestlearn.memory.nesting import Said, Scene
from nestlearn.memory.rules import apply_update
from nestlearn.memory.times import Scalar
from nestlearn.rules.blocks import blocks
from nestlearn.rules.combine import chain
from nestlearn.rules.link import Link, Linked, called, length_of, retained, whole
from nestlearn.rules.partition import part, partition
from nestlearn.rules.settings import count, share
from nestlearn.rules.words import grouped, in_words

__all__ = ["averaged_weights", "ends"]


@dataclass(frozen=True, repr=False)
class averaged_weights(Link):
    """Answers a, and averages the weights as they are after each write; ``Optimizer.eval`` shows the average (O21).

        A <- A + rate (W_new - A),   rate = (1 - retention) / (1 - retention^n),   n = max(t - start, 1)

    A is the average itself at every time, corrected for its start: that of the first write is W. It is the last link of
    a rule, as what comes behind would change W. It has at least single precision, and costs one more copy of W.

    Args:
        retention: the share of A that is kept, in the long run. 1 weighs all weights alike: rate = 1 / n.
        start: writes before the average begins; until then A is W.

    Example:
        >>> from nestlearn.rules import chain, muon
        >>> chain(muon(), averaged_weights(0.99, start=1000)).parts()["averaged_weights"]
        averaged_weights(0.99, start=1000)
    """

    outermost = True

    retention: float = share(0.99)
    start: int = count(0, least=0)

    @property
    def reads(self) -> Mapping[str, int]:
        return {"weights": 1}

    def link(self, shape: torch.Size, u: Said, a: Said) -> Linked:
        kept, length, a = retained(a), length_of(a), called(whole(a), self.memory("given"))
        retention, start = self.retention, self.start

        def rate(scene: Scene) -> Tensor:
            return cast(Tensor, scene.number(lambda time: _rate(retention, time + 1 - start)))

        def after(scene: Scene) -> Tensor:
            return apply_update(scene.weights, a(scene), scene.lr, kept(scene))

        writes, number = f"max(t - {start}, 1)" if start else "t", in_words(retention)
        even = not isinstance(retention, Tensor) and retention == 1
        words = f"1 / {writes}" if even else f"{in_words(1 - retention)} / (1 - {number}^{writes})"
        box = average_box(
            self.label,
            0.0,
            Said(f"{grouped(kept.words)} * W - lr * {grouped(a.words)}", after),
            rate=Said(words, rate),
        )
        return Linked(a, (box,), length=length, where=a.where)


def _rate(retention: Scalar, writes: Any) -> Scalar:
    """The share of the newest of so many values in their average; the time is a tensor in a compiled kernel."""
    count: Scalar = writes.clamp(min=1) if isinstance(writes, Tensor) else max(writes, 1)
    if not isinstance(retention, Tensor):
        return 1 / count if retention == 1 else (1 - retention) / (1 - retention**count)
    even = retention == 1
    below = torch.where(even, 0.5, retention)
    return torch.where(even, 1 / count, (1 - below) / (1 - below**count))


def ends(rule: Link) -> Iterator[Link]:
    """The links behind which nothing comes: one, or one for each part of a partition."""
    if isinstance(rule, chain) and rule.links:
        yield from ends(rule.links[-1])
    elif isinstance(rule, partition):
        for each in rule.members:
            yield from ends(each)
    elif isinstance(rule, part | blocks):
        yield from ends(rule.rule)
    else:
        yield rule
