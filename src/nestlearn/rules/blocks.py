"""Matrices that are several in one, such as the weights of queries, keys and values behind each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from nestlearn.memory.nesting import Said
from nestlearn.rules.link import Change, Link, Linked, gradient
from nestlearn.rules.settings import among, count

__all__ = ["WHOLE", "Cut", "blocks", "cut_of"]


class Cut(NamedTuple):
    """How a parameter becomes matrices [out, in] of one shape.

    Args:
        into: how many.
        of: "rows" are divided among them, or "columns".
        turned: whether the parameter is stored as [in, out].
    """

    into: int = 1
    of: str = "rows"
    turned: bool = False

    def shape(self, matrix: tuple[int, int]) -> tuple[int, int]:
        """Of each block.

        Raises:
            ValueError: the blocks would not be equal.
        """
        out, into = reversed(matrix) if self.turned else matrix
        divided = out if self.of == "rows" else into
        if divided % self.into:
            raise ValueError(f"{divided} {self.of} cannot be cut into {self.into} equal blocks")
        return (out // self.into, into) if self.of == "rows" else (out, into // self.into)

    def apart(self, matrix: Tensor) -> Tensor:
        """[*B, out, in] as blocks [*B, into, ...]; a matrix that is not cut stays as it is."""
        matrix = matrix.mT if self.turned else matrix
        if self.into == 1:
            return matrix
        divided = -2 if self.of == "rows" else -1
        parts: Tensor = matrix.unflatten(divided, (self.into, -1))
        return parts if self.of == "rows" else parts.movedim(-2, -3)

    def together(self, parts: Tensor) -> Tensor:
        """The inverse of ``apart``."""
        if self.into > 1:
            parts = parts.flatten(-3, -2) if self.of == "rows" else parts.movedim(-3, -2).flatten(-2)
        return parts.mT if self.turned else parts


Rule_ = TypeVar("Rule_")

WHOLE = Cut()
"""A matrix that is not cut."""


@dataclass(frozen=True, repr=False)
class blocks(Link):
    """Cuts every matrix into equal blocks, each of which is a matrix of its own for ``rule``.

    For parameters that are several matrices in one, as the weights [3 d, d] of queries, keys and values are: an
    orthogonal matrix or a covariance of the whole would mix what has nothing to do with each other. Each block has
    memories of its own. It stands outside of a rule, which is ``matrix=`` of an ``Optimizer`` or that of a ``part``.

    Args:
        into: how many blocks.
        rule: what writes them. It looks at gradients and weights alone: layers and curvature are measured whole.
        of: "rows" are divided among the blocks, as in nn.MultiheadAttention, or "columns".

    Example:
        >>> from nestlearn.rules import muon, part, partition
        >>> rule = partition(part(blocks(3, muon()), names="*in_proj_weight"), part(muon()))
    """

    on_matrices = True
    outermost = True

    into: int = count(1)
    rule: Link = gradient()  # noqa: RUF009 - frozen, like the dataclass itself
    of: str = among("rows", ("columns", "rows"))

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.rule, Link):
            raise TypeError(f"blocks(): rule must be a rule such as muon(), got {self.rule!r}")
        for link in self.rule.everything():
            if link.observed or set(link.reads) - {"weights"}:
                raise ValueError(f"blocks(): {link!r} looks at what is measured of whole matrices")
            if isinstance(link, blocks):
                raise ValueError(f"blocks(): {link!r} stands outside of a rule, it is none of its links")

    def rewritten(self, change: Change, prefix: str = "") -> Link | None:
        rule = self.rule.rewritten(change, prefix)
        return change(prefix + self.label, replace(self, rule=gradient() if rule is None else rule))

    def left(self) -> Link | None:
        """Without the blocks the rule writes whole matrices."""
        return self.rule

    def link(self, shape: torch.Size, u: Said, a: Said) -> Linked:
        raise TypeError(
            f"{self!r} cuts parameters before a rule sees them, it is no step: pass it as matrix= or as the rule of a "
            "part"
        )

    def _told(self) -> Iterator[str]:
        yield repr(self.into)
        yield repr(self.rule)
        if self.of != "rows":
            yield f"of={self.of!r}"
        if self.name is not None:
            yield f"name={self.name!r}"


def cut_of(rule: Rule_) -> tuple[Rule_ | Link, Cut]:
    """What sees the blocks of a matrix, and how it is cut; a rule that is no ``blocks`` sees it whole."""
    return (rule.rule, Cut(rule.into, rule.of)) if isinstance(rule, blocks) else (rule, WHOLE)
