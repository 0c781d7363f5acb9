"""Bases of covariances: what a matrix is seen in, so that directions that come often weigh less (O15, O20)."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from nestlearn.memory.associative import AssociativeMemory
from nestlearn.memory.models import Constant, Parameters
from nestlearn.memory.nesting import Consulted, Said, Scene
from nestlearn.memory.objectives import dot_product
from nestlearn.memory.rules import Context, Rule
from nestlearn.memory.state import State
from nestlearn.memory.times import Time, happens_at
from nestlearn.ops.eigenbasis import eigenvectors, turned
from nestlearn.ops.products import product
from nestlearn.ops.whitening import cholesky_whitener, symmetric_power
from nestlearn.rules.boxes import second_moment
from nestlearn.rules.combine import Bases, Basis, within
from nestlearn.rules.covariances import SIDES, Covariances, sizes
from nestlearn.rules.link import Linked
from nestlearn.rules.settings import among, count, positive, share
from nestlearn.rules.words import grouped, in_words

__all__ = ["whiten"]

KINDS = ("cholesky", "eigen", "kl", "root")


@dataclass(frozen=True, repr=False)
class whiten(Basis):
    """a -> Z_B a Z_A^T, Z_A and Z_B read from the covariances A and B of two sides: boxes, and a basis (O15, O20).

    With Newton-Schulz inside, ``within(whiten(), orthogonal())`` is steepest descent in the norm of the covariances,
    Z_B^T NS(Z_B a Z_A^T) Z_A.

    Args:
        kind: "cholesky" for a triangular Z with Z A Z^T = I, which is as good as any other under an exact Newton-Schulz
            and the cheapest; "root" for the symmetric Z = A^power, which trusts the covariances as far as it says; "kl"
            for the same root of covariances that see each side through the inverse of the other, B of u A^-1 u^T and A
            of u^T B^-1 u (KL-Shampoo, arXiv 2509.03378); "eigen" for the rotation Z = Q^T into the eigenvectors, a
            memory of its own that is turned by one orthogonal iteration every ``refresh`` writes, after it was used;
            at the first write it is the identity, and the gradient is seen as its root mean square in every entry, as
            nothing is known of directions yet. ``within(whiten("eigen"), second_moment())`` is SOAP (arXiv
            2409.11321), and what "eigen" answers alone, with a box of squares of the same retention.
        retention: the share of A and B that is kept.
        power: of "root" and "kl": -1/2 whitens, -1/4 half-way.
        damping: ridge of A and B, relative to their mean diagonal; "eigen" has none.
        period: A and B are shown a covariance every so many writes.
        refresh: Z is read from them every so many writes, and kept in between.
        side: "both", "inputs" for A alone, or "errors" for B alone.
        of: "layers" for what the layer sees (inputs and error signals, which need model=), or "gradient" for u^T u and
            u u^T.
        largest_side: a side with more entries is left as it is, as if it were not among ``side``; its covariance would
            have that many squared. Of layers it is still measured, though nothing remembers it: choose ``side`` there.

    Example:
        >>> whiten("root", retention=0.97, refresh=5)
        whiten('root', retention=0.97, refresh=5)
    """

    on_matrices = True

    kind: str = among("cholesky", KINDS)
    retention: float = share(0.95)
    power: float = -0.25
    damping: float = positive(0.1)
    period: int = count(1)
    refresh: int = count(1)
    side: str = among("both", SIDES)
    of: str = among("gradient", ("gradient", "layers"))
    largest_side: int = count(8192)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind == "kl" and (self.of == "layers" or self.side != "both"):
            raise ValueError(
                "whiten(): the KL form sees one side of a gradient through the other, so it takes side='both' and "
                f"of='gradient', got side={self.side!r} and of={self.of!r}"
            )

    @property
    def smallest_side(self) -> int | None:
        return 1 if self.of == "layers" else None

    @property
    def reads(self) -> Mapping[str, int]:
        return dict.fromkeys(SIDES[self.side], self.period) if self.of == "layers" else {}

    def sides(self, shape: torch.Size) -> tuple[str, ...]:
        """The sides of a matrix of this shape that are not left as they are."""
        return tuple(side for side in SIDES[self.side] if sizes(shape)[side] <= self.largest_side)

    def departs(self, shape: torch.Size) -> str:
        left = [side for side in SIDES[self.side] if side not in self.sides(shape)]
        return f"{' and '.join(left)} longer than {self.largest_side:,}, left as they are" if left else ""

    def link(self, shape: torch.Size, u: Said, a: Said) -> Linked:
        if self.kind == "eigen":
            squares = second_moment(self.retention, name=self.memory("squares"))
            return within(self, squares).link(shape, u, a)
        return super().link(shape, u, a)

    def basis(self, shape: torch.Size, u: Said) -> Bases:
        names = {side: self.memory(side) for side in self.sides(shape)}
        covariances = Covariances(
            names,
            self.of == "layers",
            self.retention,
            self.period,
            1 if self.kind == "eigen" else self.refresh,
            self._readout(),
            even=self.kind != "eigen",
            across=self.damping if self.kind == "kl" else None,
        )
        boxes = covariances.boxes(shape, u)
        if self.kind != "eigen":
            return _carried(boxes, {side: _Factor(name) for side, name in names.items()})
        turns = {side: self.memory(f"{side}_basis") for side in names}
        bases = tuple(self._turning(turns[side], name, sizes(shape)[side]) for side, name in names.items())
        found = _carried((*boxes, *bases), {side: _Factor(name, turn=True) for side, name in turns.items()})
        return found._replace(seen=lambda u: _alike_at_first(u, found.into(u))) if turns else found

    def _readout(self) -> Said | None:
        if self.kind == "eigen":
            return None
        if self.kind == "cholesky":
            words = f"whitener(M, {in_words(self.damping)})"
            return Said(words, lambda covariance, scene: cholesky_whitener(covariance, self.damping))
        words = f"symmetric_power(M, {in_words(self.power)}, {in_words(self.damping)})"
        return Said(words, lambda covariance, scene: symmetric_power(covariance, self.power, self.damping))

    def _turning(self, name: str, covariance: str, size: int) -> Consulted:
        """The basis of a side: asked first, then turned towards the eigenvectors of what the covariance has become."""
        memory = AssociativeMemory(Constant((size, size)), dot_product, _OrthogonalIteration())
        value = Said(covariance, lambda scene: scene.answers[covariance])
        return Consulted(name, memory, value=value, readout=_AT_FIRST, fresh=False, every=self.refresh)


def _at_first(basis: Tensor, scene: Scene) -> Tensor:
    if not _is_first(scene.time):
        return basis
    return torch.eye(basis.shape[-1], dtype=basis.dtype, device=basis.device).expand_as(basis)


def _is_first(time: Time | None) -> bool | Tensor:
    return happens_at(time, lambda time: time == 0)


def _alike_at_first(u: Said, carried: Said) -> Said:
    """The gradient as it is seen in a basis that is made at the first write."""

    def answer(scene: Scene) -> Tensor:
        if not _is_first(scene.time):
            return carried(scene)
        matrix = u(scene)
        mean: Tensor = torch.linalg.matrix_norm(matrix, keepdim=True) / matrix.shape[-2:].numel() ** 0.5
        return mean.expand_as(matrix)

    first = f"norm({u.words}) / sqrt(rows(u) * columns(u)) * ones(u)"
    return Said(f"({carried.words} if t > 1 else {first})", answer)


_AT_FIRST = Said("M if t > 1 else identity(M)", _at_first)


@dataclass(frozen=True)
class _Factor:
    """A matrix Z that multiplies a side, as the memory ``name`` answers it.

    Args:
        name: of the memory.
        turn: Z is the transpose of what it answers, eigenvectors in columns.
    """

    name: str
    turn: bool = False

    def words(self, *, transposed: bool) -> str:
        return f"{self.name}^T" if transposed != self.turn else self.name

    def of(self, scene: Scene, *, transposed: bool) -> Tensor:
        found = scene.answers[self.name]
        return found.mT if transposed != self.turn else found


def _carried(memories: tuple[Consulted, ...], factors: Mapping[str, _Factor]) -> Bases:
    """The ways into a basis, Z_B a Z_A^T, and back, Z_B^T a Z_A."""
    inputs, errors = factors.get("inputs"), factors.get("errors")

    def carried(a: Said, *, back: bool) -> Said:
        def answer(scene: Scene) -> Tensor:
            matrix: Tensor = a(scene)
            if inputs is not None:
                matrix = product(matrix, inputs.of(scene, transposed=not back))
            return matrix if errors is None else product(errors.of(scene, transposed=back), matrix)

        around = [grouped(a.words)]
        if inputs is not None:
            around.append(inputs.words(transposed=not back))
        if errors is not None:
            around.insert(0, errors.words(transposed=back))
        return Said(" @ ".join(around), answer)

    return Bases(memories, lambda a: carried(a, back=False), lambda a: carried(a, back=True))


@dataclass(frozen=True)
class _OrthogonalIteration(Rule):
    """Q <- the Q factor of A Q, from the eigenvectors of the first A on: what keeps SOAP's basis (O20)."""

    reads_gradients: ClassVar[bool] = False
    update_is: ClassVar[str] = "M - (eigenvectors(v) if t == 1 else turned(M, v))"

    def schedule(self, shape: torch.Size) -> Callable[[int], Hashable]:
        return lambda time: time == 0

    def update(self, state: State, gradients: Parameters, context: Context) -> tuple[Parameters, State]:
        covariance = context.value
        assert context.parameters is not None and covariance is not None, "its memory passes both"
        basis = context.parameters["value"]
        new = eigenvectors(covariance) if _is_first(context.time) else turned(basis, covariance)
        return {"value": basis - new}, state
