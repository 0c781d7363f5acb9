"""A memory with weights in the place of a box: an MLP that is trained online (O5, O6, O17, [S] 5.3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from nestlearn.errors import choice
from nestlearn.memory.boxes import average_box, sum_box
from nestlearn.memory.nesting import Consulted, Said
from nestlearn.memory.objectives import Objective, dot_product, hypergradient, l2
from nestlearn.rules.boxes import average
from nestlearn.rules.combine import linked
from nestlearn.rules.link import Link, Linked, gathered, once, whole
from nestlearn.rules.rows import RowLink, rows_of
from nestlearn.rules.settings import count
from nestlearn.rules.shape import from_rows
from nestlearn.rules.words import mixed
from nestlearn.targets import Target, make_target

__all__ = ["deep"]

_OBJECTIVES: dict[str, Objective] = {"dot_product": dot_product, "hypergradient": hypergradient, "l2": l2}


@dataclass(frozen=True, repr=False)
class deep(RowLink):
    """Answers skip + M(u), M a map from rows of the gradient to rows of a target P, written before it is read (O5).

        theta <- retention theta - inner_lr grad_theta L(M(u), P - skip)
        M(u) = W_outer s(W_inner u) / sqrt(hidden)

    W_outer starts at zero, so the memory begins as its skip path: the answer a, or that of the link ``beside`` it,
    which M then corrects. Keys, values and answers are rows along the longer side of the matrix, scaled together to
    unit length.

    Args:
        hidden: h, hidden units of the MLP.
        inner_lr: zeta, the memory's own learning rate; up to about 4 is stable for "l2".
        retention: alpha, the share of the memory's weights that a write keeps. "dot_product" and "hypergradient" are
            bounded by it alone, so it must be below one with them.
        model: "mlp", "matrix" for a linear map, or a ``nestlearn.memory.Model`` from rows to rows.
        written_by: the rule that writes the memory from its own gradients, which may be ``deep`` again (O6); None is
            gradient descent.
        objective: a ``nestlearn.memory.Objective``, or "l2"; "dot_product"; "hypergradient", where the answer to the
            last gradient is judged by this one and the target is not used (O17).
        target: P, one of ``nl.targets.TARGETS`` or an instance.
        period: P is computed, and the memory written, every so many writes; in between it is only asked.
        beside: a link whose answer is the skip path. With a target that is known late it has to be an ``average``.
    """

    objective: str | Objective = "l2"
    target: str | Target = "second_moment"
    period: int = count(1)
    beside: Link | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.objective, Objective):
            choice("deep(): objective", self.objective, _OBJECTIVES)
        unbounded = self.scored.name in ("dot_product", "hypergradient")
        if unbounded and not isinstance(self.retention, torch.Tensor) and self.retention >= 1:
            raise ValueError(f"objective {self.scored.name!r} has no minimum: retention must be below 1, got 1")
        if self.late and not isinstance(self.beside, average | None):
            raise ValueError(
                f"deep(): what is known one write late is compared with the skip path before it: beside must be an "
                f"average(...) or None, got {self.beside!r}"
            )
        self.made  # noqa: B018  # an unknown target is an error now

    def left(self) -> Link | None:
        """Without the memory its skip path is left."""
        return self.beside

    def spared(self) -> Mapping[str, Link]:
        """Without what the target remembers the memory is asked for the gradient itself."""
        kept = {memory.name for memory in self._wanted(torch.Size((2, 2)))}
        return dict.fromkeys(sorted(kept), replace(self, target="identity")) if kept else {}

    def _wanted(self, shape: torch.Size) -> tuple[Consulted, ...]:
        """The memories of the target, where it is asked."""
        return self.made.memories(shape) if self.scored.name != "hypergradient" else ()

    @property
    def made(self) -> Target:
        """The target itself."""
        return make_target(self.target, self.period)

    @property
    def scored(self) -> Objective:
        """The objective itself."""
        return self.objective if isinstance(self.objective, Objective) else _OBJECTIVES[self.objective]

    @property
    def late(self) -> bool:
        """Whether what the memory should have answered is known one write later."""
        return self.scored.name == "hypergradient" or self.made.delayed

    @property
    def observed(self) -> Target | None:
        target = None if self.scored.name == "hypergradient" else self.made
        return target if target is not None and target.observation is not None else None

    @property
    def reads(self) -> Mapping[str, int]:
        target = self.observed
        return {} if target is None else {str(target.observation): target.period}

    def link(self, shape: torch.Size, u: Said, a: Said) -> Linked:
        target, name = self.made, self.label
        beside, past = self._beside(shape, u, whole(a))
        key = once(rows_of(u))
        skip = key if beside.answer is u else once(rows_of(beside.answer))
        late = (sum_box("previous", 0.0, u, fresh=False),) if self.late else ()
        last = rows_of(Said("previous", lambda scene: scene.answers["previous"]))
        value = self._value(target, key, skip, last if past is None else rows_of(past))
        memory = Consulted(
            name,
            self.rows_memory(min(shape[-2:]), self.scored),
            key=last if self.late else key,
            value=value,
            query=key,
            every=self.period,
            track=True,
        )
        answer = Said(
            f"as_matrix({skip.words} + {name}, u)",
            lambda scene: from_rows(skip(scene) + scene.answers[name], scene.gradient.shape),
        )
        return gathered(answer, Linked(a, self._wanted(shape)), beside, Linked(a, (*late, memory)))

    def _beside(self, shape: torch.Size, u: Said, a: Said) -> tuple[Linked, Said | None]:
        """The skip path now, and, where it matters, as it was before this write; None if that is the last gradient."""
        if not self.late:
            part = Linked(a) if self.beside is None else linked(self.beside, shape, u, a)
            return replace(part, answer=whole(part.answer)), None
        if self.beside is None:
            return Linked(a), None
        assert isinstance(self.beside, average)
        name, kept = self.beside.label, self.beside.retention
        past = Said(name, lambda scene: scene.answers[name])
        now = Said(mixed(a.words, name, kept), lambda scene: torch.lerp(a(scene), past(scene), kept))
        return Linked(now, (average_box(name, kept, a, fresh=False),)), past

    def _value(self, target: Target, key: Said, skip: Said, past: Said) -> Said:
        """What the memory should answer; what the skip path gave for the key needs no memory."""
        if self.scored.name == "hypergradient":
            # The answer is subtracted from the weights.
            return Said(f"-{key.words}", lambda scene: -key(scene))
        wanted = rows_of(Said(target.words, target))
        if self.scored.name == "dot_product":
            return wanted
        known = past if self.late else skip
        return Said(f"{wanted.words} - {known.words}", lambda scene: wanted(scene) - known(scene))
