"""Links with a box: one number for every entry, a running sum or average (O2, O7, O14)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nestlearn.memory.boxes import Options, average_box, bias_corrected, received, received_in_words, sum_box
from nestlearn.memory.nesting import Said, Scene
from nestlearn.rules.link import Answer, Link, Linked, once, whole
from nestlearn.rules.settings import count, positive, share
from nestlearn.rules.words import grouped, in_words, mixed, multiple, raised

__all__ = ["Box", "average", "second_moment", "sum", "sum_of_squares"]


@dataclass(frozen=True, repr=False)
class Box(Link):
    """Base of links that remember the answers they are given in one box.

    Args:
        retention: the share of the box that is kept.
        nesterov: look ahead with the answer that has just come.
        period: the box is written every so many writes, and answers the same in between (C1).
        readout: a link without a memory through which the box is read; its answer is kept while the box stays as it is.
    """

    nested = ("readout",)

    retention: float = share(0.9)
    nesterov: bool = False
    period: int = count(1)
    readout: Link | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nesterov and (self.period > 1 or self.readout is not None):
            raise ValueError(f"{type(self).__name__}(): nesterov looks ahead of the box itself, at every write")

    @property
    def on_matrices(self) -> bool:
        return self.readout is not None and self.readout.on_matrices

    def read(self, shape: torch.Size, u: Said) -> Options:
        """How the box is read, as keywords of a consulted memory."""
        if self.readout is None:
            return {}
        slot = Said("M", lambda scene: scene.answers[_SLOT])
        found = self.readout.link(shape, u, slot)
        if found.memories:
            raise ValueError(f"{type(self).__name__}(): a readout remembers nothing, got {self.readout!r}")
        answer = whole(found.answer)

        def readout(content: Tensor, scene: Scene) -> Tensor:
            return answer(replace(scene, answers={**scene.answers, _SLOT: content}))

        read: Options = {"readout": Said(answer.words, readout)}
        return read if self.period == 1 else {**read, "keep_answer": Said("0", torch.zeros_like)}


_SLOT = ""
"""Under this name a readout finds what is in the box."""


@dataclass(frozen=True, repr=False)
class sum(Box):
    """M <- retention M + weight a, answers M: momentum as a sum, the dot-product objective on a box (O2, [S] 4.2).

    Args:
        retention, period, readout: see ``Box``.
        nesterov: answer a + retention M.
        weight: of what is put in.

    Example:
        >>> sum(0.5, nesterov=True)
        sum(0.5, nesterov=True)
    """

    weight: float = positive(1.0)

    def link(self, shape: torch.Size, u: Said, a: Said) -> Linked:
        a, name, kept, weight = whole(a), self.label, self.retention, self.weight
        put_in = a
        if not isinstance(weight, float) or weight != 1:
            put_in = Said(multiple(weight, a.words), lambda scene: weight * a(scene))
        answer = Said(name, lambda scene: scene.answers[name])
        if self.nesterov:
            put_in = once(put_in)
            words = f"{put_in.words} + {multiple(kept, name)}"
            answer = Said(words, lambda scene: put_in(scene) + kept * scene.answers[name])
        return Linked(answer, (sum_box(name, kept, put_in, period=self.period, **self.read(shape, u)),))


@dataclass(frozen=True, repr=False)
class average(Box):
    """M <- M - (1 - retention) (M - a), answers M: momentum as an average, the l2 objective on a box (O7).

    Args:
        retention, period, readout: see ``Box``; with a period the box averages the means of what came since.
        nesterov: answer (1 - retention) a + retention M.
        corrected: divide the answer by the weight that values have received since the box was zero.
    """

    corrected: bool = False

    def link(self, shape: torch.Size, u: Said, a: Said) -> Linked:
        a, name, kept = whole(a), self.label, self.retention
        if self.nesterov:
            a = once(a)
            words = mixed(a.words, name, kept)
            answer: Said = Said(words, lambda scene: torch.lerp(a(scene), scene.answers[name], kept))
        elif self.corrected:
            words = f"{name} / {received_in_words(kept)}"
            answer = Answer(words, lambda scene: scene.answers[name], share=received(kept))
        else:
            answer = Said(name, lambda scene: scene.answers[name])
        return Linked(answer, (average_box(name, kept, a, period=self.period, **self.read(shape, u)),))


@dataclass(frozen=True, repr=False)
class second_moment(Link):
    """v <- v - (1 - retention) (v - u^2), answers a / (sqrt(v^) + eps), v^ corrected for its start (O7).

    After a corrected ``average`` it is Adam, alone it is RMSprop.

    Args:
        retention: the share of the box that is kept.
        eps: added to the denominator.
        length_kept: give the matrix its length back, so that only the relative size of its entries changes.
    """

    retention: float = share(0.999, below_one=True)
    eps: float = positive(1e-8)
    length_kept: bool = False

    @property
    def on_matrices(self) -> bool:
        return self.length_kept

    def link(self, shape: torch.Size, u: Said, a: Said) -> Linked:
        name, kept, eps = self.label, self.retention, self.eps
        weight = received(kept)
        words = f"{grouped(a.words)} / (sqrt({name} / {received_in_words(kept)}) + {in_words(eps)})"
        square = Said(raised(u.words, "2"), lambda scene: u(scene).square())
        if isinstance(a, Answer) and a.share is not None:
            shares = a.share
            box = average_box(name, kept, square)
            # a / c / (sqrt(v / c') + eps) with both corrections moved into the denominator: one pass less.
            numbers = {
                f"{name}.share": lambda time: shares(time) / weight(time) ** 0.5,
                f"{name}.eps": lambda time: eps * shares(time),
            }

            def scale(scene: Scene) -> Tensor:
                root = scene.answers[name].sqrt()
                return root.mul_(scene.scalars[f"{name}.share"]).add_(scene.scalars[f"{name}.eps"])

        else:
            box, numbers = average_box(name, kept, square, readout=bias_corrected(kept)), {}
            words = f"{grouped(a.words)} / (sqrt({name}) + {in_words(eps)})"

            def scale(scene: Scene) -> Tensor:
                return scene.answers[name].sqrt().add_(eps)

        if self.length_kept:
            given = once(whole(a))

            def answer(scene: Scene) -> Tensor:
                divided = given(scene) / scale(scene)
                length = torch.linalg.matrix_norm(given(scene), keepdim=True)
                factor: Tensor = length / torch.linalg.matrix_norm(divided, keepdim=True).clamp_min(1e-30)
                return divided * factor

            return Linked(Said(f"as_long_as({words}, {a.words})", answer), (box,), numbers)
        return Linked(Said(words, lambda scene: a(scene) / scale(scene)), (box,), numbers)


@dataclass(frozen=True, repr=False)
class sum_of_squares(Link):
    """V <- V + weight u^2, answers a / sqrt(V + eps): everything that ever came, as in Adagrad.

    Args:
        weight: of a new square.
        eps: added under the root.
        under_root: False adds eps to the root itself, as ``torch.optim.Adagrad`` does.
    """

    weight: float = positive(1.0)
    eps: float = positive(1e-8)
    under_root: bool = True

    def link(self, shape: torch.Size, u: Said, a: Said) -> Linked:
        a, name, weight, eps = whole(a), self.label, self.weight, self.eps
        square = Said(multiple(weight, raised(u.words, "2")), lambda scene: weight * u(scene).square())
        if self.under_root:
            words = f"{grouped(a.words)} / sqrt({name} + {in_words(eps)})"
            answer = Said(words, lambda scene: a(scene) / (scene.answers[name] + eps).sqrt())
        else:
            words = f"{grouped(a.words)} / (sqrt({name}) + {in_words(eps)})"
            answer = Said(words, lambda scene: a(scene) / scene.answers[name].sqrt().add_(eps))
        return Linked(answer, (sum_box(name, 1.0, square),))
