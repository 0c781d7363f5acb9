"""The orthogonal matrix next to an answer (O10), afresh or through a memory that keeps what it takes (O18)."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from nestlearn.memory.associative import AssociativeMemory
from nestlearn.memory.models import Matrix, Parameters
from nestlearn.memory.nesting import Consulted, Said, Scene
from nestlearn.memory.objectives import orthogonality
from nestlearn.memory.rules import Context, Rule, always
from nestlearn.memory.state import State
from nestlearn.ops.preconditioner import initial_preconditioner, preconditioner_step
from nestlearn.ops.whitening import FOUR_STEP_COEFFICIENTS, MUON_COEFFICIENTS, newton_schulz
from nestlearn.rules.link import Length, Link, Linked, once, whole
from nestlearn.rules.settings import among, count
from nestlearn.rules.shape import SCALES, scaled, update_scale

__all__ = ["orthogonal", "preconditioner"]


@dataclass(frozen=True, repr=False)
class orthogonal(Link):
    """Answers scale NS(a), all singular values of a moved to about one: what makes momentum Muon (O10, [NL] 52).

    Newton-Schulz runs in bfloat16 where the device multiplies it natively, else in float32, and in float64 for float64.

    Args:
        steps: iterations.
        scale: how long the answer is, see ``update_scale``.
        normed: give it exactly the length of an orthogonal matrix; Newton-Schulz alone comes near.
        coefficients: "published", Muon's, the same in every iteration; or "fitted", one triple for each of four, which
            come as near as five of the others do (``nestlearn.ops.FOUR_STEP_COEFFICIENTS``).
    """

    on_matrices = True

    steps: int = count(5)
    scale: str = among("rms", SCALES)
    normed: bool = False
    coefficients: str = among("published", ("fitted", "published"))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.coefficients == "fitted" and self.steps != len(FOUR_STEP_COEFFICIENTS):
            raise ValueError(
                f"orthogonal(): coefficients are fitted to steps={len(FOUR_STEP_COEFFICIENTS)}, got {self.steps}"
            )

    def link(self, shape: torch.Size, u: Said, a: Said) -> Linked:
        a, factor = whole(a), update_scale(shape, self.scale)
        fitted = self.coefficients == "fitted"
        coefficients = FOUR_STEP_COEFFICIENTS if fitted else MUON_COEFFICIENTS
        length = Length("sqrt(min(rows(u), columns(u)))", min(shape[-2:]) ** 0.5)

        def answer(scene: Scene) -> Tensor:
            found = newton_schulz(a(scene), self.steps, coefficients)
            if self.normed:
                found = found * (length.number / torch.linalg.matrix_norm(found, keepdim=True).clamp_min(1e-30))
            return found if self.scale == "none" else found.mul_(factor)

        more = f", {self.steps}, 'fitted'" if fitted else "" if self.steps == 5 else f", {self.steps}"
        words = f"newton_schulz({a.words}{more})"
        words = f"as_long_as({words}, {length.words})" if self.normed else words
        size = Length(scaled(self.scale, length.words), factor * length.number)
        return Linked(Said(scaled(self.scale, words), answer), length=size)


@dataclass(frozen=True, repr=False)
class preconditioner(Link):
    """The same by a memory R with the orthogonality objective, kept and written by one iteration a step (O18).

    Args:
        scale: as in ``orthogonal``.
    """

    on_matrices = True

    scale: str = among("rms", SCALES)

    def link(self, shape: torch.Size, u: Said, a: Said) -> Linked:
        a, name, factor = once(whole(a)), self.label, update_scale(shape, self.scale)
        tall, side = shape[-2] >= shape[-1], min(shape[-2:])

        def rows(scene: Scene) -> Tensor:
            matrix = a(scene)
            norm = torch.linalg.matrix_norm(matrix, keepdim=True)
            matrix = matrix / torch.where(norm > 0, norm, torch.ones_like(norm))
            return matrix if tall else matrix.mT

        def ridge(scene: Scene) -> Tensor:
            # Relative to the mean eigenvalue 1 / side of the Gram matrix of normalised rows.
            return torch.full((), 1e-3 / side, dtype=scene.gradient.dtype, device=scene.gradient.device)

        memory = Consulted(
            name,
            AssociativeMemory(Matrix(side, side), orthogonality, _PreconditionerStep()),
            key=Said(f"as_rows(unit({a.words}))", rows),
            value=Said("0.001 / min(rows(u), columns(u))", ridge),
            readout=Said("as_matrix(M, u)", lambda answer, scene: answer if tall else answer.mT),
        )
        return Linked(Said(scaled(self.scale, name), lambda scene: factor * scene.answers[name]), (memory,))


@dataclass(frozen=True)
class _PreconditionerStep(Rule):
    """R <- R (15/8 I - 10/8 A + 3/8 A^2) with A = R S R^T, turned towards symmetry: O18's write."""

    reads_gradients: ClassVar[bool] = False
    update_is: ClassVar[str] = "M - root_step(M, k^T @ k + v * identity(k))"

    def schedule(self, shape: torch.Size) -> Callable[[int], Hashable]:
        return always

    def update(self, state: State, gradients: Parameters, context: Context) -> tuple[Parameters, State]:
        key, ridge = context.key, context.value
        assert context.parameters is not None and key is not None and ridge is not None, "its memory passes them all"
        memory = context.parameters["weight"]
        identity = torch.eye(key.shape[-1], dtype=key.dtype, device=key.device)
        gram = key.mT @ key + ridge * identity
        unseen = (memory == 0).all(-1).all(-1)[..., None, None]
        started = torch.where(unseen, initial_preconditioner(gram), memory)
        return {"weight": memory - preconditioner_step(started, gram)}, state
