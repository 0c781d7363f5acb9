"""Links that forget along a key before they learn: the delta rule for a momentum and for the weights (O4, O12)."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from nestlearn.memory.associative import AssociativeMemory
from nestlearn.memory.models import Constant, Parameters
from nestlearn.memory.nesting import Consulted, Said, Scene
from nestlearn.memory.objectives import dot_product
from nestlearn.memory.rules import Context, Rule, Scalar, always, in_words
from nestlearn.memory.state import State
from nestlearn.rules.link import Link, Linked, whole
from nestlearn.rules.settings import positive, share

__all__ = ["ForgetAlongKey", "delta", "delta_entries", "delta_inputs"]


@dataclass(frozen=True, repr=False)
class delta_entries(Link):
    """M <- M (retention - inner_lr k^2) + a entry by entry, k = u: O4 for parameters that are no matrices.

    Args:
        retention: the share of the memory that is kept.
        inner_lr: zeta, the share that is forgotten along the key; 0 is ``sum``.
        literal: forget inner_lr k^2 as printed, which diverges once it is above 2; by default the bounded share
            inner_lr k^2 / (1 + inner_lr k^2).
    """

    retention: float = share(0.9)
    inner_lr: float = positive(0.5)
    literal: bool = False

    def link(self, shape: torch.Size, u: Said, a: Said) -> Linked:
        a, name = whole(a), self.label
        write = ForgetAlongKey(
            retention=self.retention, inner_lr=self.inner_lr, literal=self.literal, matrix=self.on_matrices
        )
        memory = AssociativeMemory(Constant(), dot_product, write)
        return Linked(Said(name, lambda scene: scene.answers[name]), (Consulted(name, memory, key=u, value=a),))


@dataclass(frozen=True, repr=False)
class delta(delta_entries):
    """M <- M (retention I - inner_lr k^T k) + a, k = u / ||u||: momentum that forgets along its key (O4, [NL] 48-49).

    The l2 objective on a linear memory: what M already answers for the new key is taken out before a is put in.

    Args:
        retention: the share of the memory that is kept.
        inner_lr: zeta, the share that is forgotten along the key; 0 is ``sum``.
        literal: use k = u as printed, which diverges once inner_lr ||u||^2 > 2.
    """

    on_matrices = True
    smallest_side = 1


@dataclass(frozen=True)
class ForgetAlongKey(Rule):
    """theta <- retention theta - gradient - inner_lr theta k^T k: O4's write of the momentum.

    The memory is stored like the gradient and written whole, so its model is a box; what makes it linear is this rule,
    which reads the rows of the gradient as keys.
    """

    inner_lr: float = 0.5
    literal: bool = False
    matrix: bool = True

    def schedule(self, shape: torch.Size) -> Callable[[int], Hashable]:
        return always

    @property
    def update_is(self) -> str:
        """The update in words: u is the gradient of the objective, M the memory and k its key."""
        number = in_words(self.inner_lr)
        if self.matrix:
            key = "k" if self.literal else "unit(k)"
            return f"u + {number} * M @ {key}^T @ {key}"
        forgotten = "k^2" if self.literal else f"k^2 / (1 + {number} * k^2)"
        return f"u + {number} * M * {forgotten}"

    def update(self, state: State, gradients: Parameters, context: Context) -> tuple[Parameters, State]:
        if context.parameters is None or context.key is None:
            raise ValueError("forgetting along a key needs the memory's parameters and key: the write must pass them")
        memory, key = context.parameters["value"], context.key
        if self.matrix:
            norm = torch.linalg.matrix_norm(key, keepdim=True)
            rows = key if self.literal else key / torch.where(norm > 0, norm, torch.ones_like(norm))
            tall = rows.shape[-2] > rows.shape[-1]
            forgotten = memory @ (rows.mT @ rows) if tall else (memory @ rows.mT) @ rows
        else:
            energy = key.square()
            forgotten = memory * (energy if self.literal else energy / (1 + self.inner_lr * energy))
        return {"value": gradients["value"] + self.inner_lr * forgotten}, state


@dataclass(frozen=True, repr=False)
class delta_inputs(Link):
    """Answers (a + W A) / (1 + lr tr A), A the covariance of the layer's inputs: the weights' own delta rule (O12).

    One exact proximal step on 1/2 ||W x + delta||^2 for one input x; a batch replaces x x^T by its mean A. The layer
    forgets what it answers for this input before it learns.
    """

    on_matrices = True
    smallest_side = 1

    @property
    def reads(self) -> Mapping[str, int]:
        return {"weights": 1, "inputs": 1}

    def link(self, shape: torch.Size, u: Said, a: Said) -> Linked:
        a = whole(a)

        def answer(scene: Scene) -> Tensor:
            covariance, weights = scene.observations["inputs"], scene.weights
            energy = covariance.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
            step: Scalar = 1 + scene.lr * energy
            return (a(scene) + weights @ covariance) / step

        return Linked(Said(f"({a.words} + W @ seen_inputs) / (1 + lr * trace(seen_inputs))", answer))
