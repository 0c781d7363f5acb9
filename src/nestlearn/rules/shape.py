"""Links without a memory that change the size, or the form, of an answer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nestlearn.memory.nesting import Said, Scene
from nestlearn.rules.link import Link, Linked, once, whole
from nestlearn.rules.settings import among, positive
from nestlearn.rules.words import grouped, in_words
from nestlearn.targets import random_features

__all__ = [
    "SCALES",
    "as_rows",
    "features",
    "from_rows",
    "keep_length",
    "scale",
    "scaled",
    "unit",
    "unit_rows",
    "update_scale",
]

SCALES = {
    "rms": "0.2 * sqrt(max(rows(u), columns(u)))",
    "spectral": "sqrt(max(1, rows(u) / columns(u)))",
    "rows": "0.2 * sqrt(min(rows(u), columns(u)))",
    "none": "1",
}
"""``update_scale`` as an expression."""


def update_scale(shape: torch.Size, kind: str) -> float:
    """How long an answer of shape [..., out, in] is made.

    "rms": 0.2 sqrt(max(out, in)); entries of an orthogonal matrix get a root mean square of 0.2 as Adam's updates have,
    so that a learning rate for AdamW fits (Moonshot, arXiv 2502.16982). "spectral": sqrt(max(1, out / in)), as Muon was
    published (Jordan et al. 2024). "rows": 0.2 sqrt(min(out, in)), the same as "rms" for rows of unit length.
    """
    out, into = shape[-2:]
    match kind:
        case "rms":
            return 0.2 * max(out, into) ** 0.5
        case "spectral":
            return max(1.0, out / into) ** 0.5
        case "rows":
            return 0.2 * min(out, into) ** 0.5
    return 1.0


def scaled(kind: str, words: str) -> str:
    """An answer times ``update_scale``, as an expression."""
    return grouped(words) if kind == "none" else f"{SCALES[kind]} * {grouped(words)}"


@dataclass(frozen=True, repr=False)
class scale(Link):
    """Answers a times a factor that the shape decides.

    Args:
        kind: see ``update_scale``.
        over: what the factor is divided by.
    """

    on_matrices = True

    kind: str = among("rms", SCALES)
    over: float = positive(1.0)

    def link(self, shape: torch.Size, u: Said, a: Said) -> Linked:
        a, factor = whole(a), update_scale(shape, self.kind) / self.over
        words = scaled(self.kind, a.words)
        words = words if self.over == 1 else f"{words} / {in_words(self.over)}"
        return Linked(Said(words, lambda scene: a(scene) * factor))


@dataclass(frozen=True, repr=False)
class keep_length(Link):
    """Answers a made as long as the gradient, so that a memory which knows nothing makes gradient descent (O6)."""

    on_matrices = True

    def link(self, shape: torch.Size, u: Said, a: Said) -> Linked:
        a = whole(a)

        def answer(scene: Scene) -> Tensor:
            given = a(scene)
            length = torch.linalg.matrix_norm(u(scene), keepdim=True)
            return given * (length / torch.linalg.matrix_norm(given, keepdim=True).clamp_min(1e-30))

        return Linked(Said(f"as_long_as({a.words}, {u.words})", answer))


@dataclass(frozen=True, repr=False)
class unit_rows(Link):
    """Answers a with rows along its longer side of a mean squared length of one."""

    on_matrices = True

    def link(self, shape: torch.Size, u: Said, a: Said) -> Linked:
        a = whole(a)

        def answer(scene: Scene) -> Tensor:
            matrix = a(scene)
            return from_rows(unit(as_rows(matrix)), matrix.shape)

        return Linked(Said(f"as_matrix(unit_rows({a.words}), u)", answer))


@dataclass(frozen=True, repr=False)
class features(Link):
    """Answers phi(a), fixed random features of its rows (O11, [NL] 51)."""

    on_matrices = True

    def link(self, shape: torch.Size, u: Said, a: Said) -> Linked:
        a = once(whole(a))
        return Linked(Said(f"random_features({a.words})", lambda scene: random_features(a(scene))))


def as_rows(matrix: Tensor) -> Tensor:
    """[*B, out, in] seen as rows along its longer side: [*B, n, d] with n >= d."""
    return matrix if matrix.shape[-2] >= matrix.shape[-1] else matrix.mT


def from_rows(rows: Tensor, shape: torch.Size) -> Tensor:
    """The inverse of ``as_rows`` for a matrix of ``shape``."""
    return rows if rows.shape[-2:] == shape[-2:] else rows.mT


def unit(rows: Tensor) -> Tensor:
    """Rows [*B, n, d] scaled together to a mean squared length of one; zero stays zero."""
    length = torch.linalg.matrix_norm(rows, keepdim=True) / rows.shape[-2] ** 0.5
    return rows / torch.where(length > 0, length, torch.ones_like(length))
