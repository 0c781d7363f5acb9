"""Rules write memories: the seed article's *wirers* (M3, O12, O15).

Every rule takes the gradients of the objective to an *update* that, like a gradient, points uphill, and every memory is
then written the same way:

    theta <- retention * theta - lr * update                                                          (M3)

A rule may keep state, and it may consult memories of its own (``nestlearn.memory.nesting``). ``lr`` and ``retention``
are numbers, or tensors over the batch of memories [*B]; a write may override them, token by token.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from nestlearn.memory.models import Model, Parameters
from nestlearn.memory.state import State
from nestlearn.memory.times import Times

__all__ = [
    "Context",
    "DeltaGradientDescent",
    "GradientDescent",
    "Kept",
    "LeastSquares",
    "Rule",
    "always",
    "apply_update",
    "in_words",
]

Scalar = float | Tensor


class Kept(NamedTuple):
    """An update, and how much of what it writes is kept, in the place of the retention that the writer has (O22)."""

    update: Tensor
    retention: Scalar


Updates = Mapping[str, Tensor | Kept]


@dataclass(frozen=True)
class Context:
    """What a rule may see of the write that it serves, besides the gradients.

    ``model``, ``parameters``, ``key`` and ``value`` are those of the memory being written (None for weights whose
    layer the caller does not know); ``time`` counts the earlier writes of this memory (``Times``: of each one in the
    batch, see ``Rule.schedule``); ``lr`` is the length of the step to come, ``retention`` the share that the write will
    keep, and ``observations`` are tensors that a caller measured outside of the memory, such as the covariance of a
    layer's inputs. ``scalars`` is what the rule itself said at this time (``Rule.scalars``), if a caller asked it
    before, else None; ``inplace`` lets memories overwrite the state that they are given. ``at`` are the parameters at
    which the gradients were taken, where these are older than ``parameters`` (S6), else None.
    """

    model: Model | None = None
    parameters: Parameters | None = None
    key: Tensor | None = None
    value: Tensor | None = None
    time: int | Times | Tensor | None = None
    lr: Scalar = 1.0
    retention: Scalar = 1.0
    observations: Mapping[str, Any] = field(default_factory=dict)
    scalars: Mapping[str, Scalar] | None = None
    inplace: bool = False
    at: Parameters | None = None


@dataclass(frozen=True)
class Rule(ABC):
    """How a memory is written: ``update`` gives the step, ``lr`` its length, ``retention`` what is kept."""

    lr: Scalar = 1.0
    retention: Scalar = 1.0

    reads_gradients: ClassVar[bool] = True
    """False for rules that find the new parameters from keys and values: a write then spares the gradients."""

    includes_lr: ClassVar[bool] = False
    """True for rules whose updates are whole steps: they have used ``context.lr``, and the write does not again."""

    def init(self, parameters: Parameters, generator: torch.Generator | None = None) -> State:
        """The rule's own state beside ``parameters``: none, unless the rule remembers something."""
        return {}

    def scalars(self, time: Any) -> Mapping[str, Scalar]:
        """Numbers that depend on the time alone; a caller that writes in pieces asks for them once."""
        return {}

    def schedule(self, shape: torch.Size) -> Callable[[int], Hashable]:
        """What happens at a time, for tensors of ``shape``: any value that is equal where the rule does the same.

        Parameters with equal values are written in one batch, with ``context.time`` a ``Times`` if their times differ.
        By default no two times are the same, so that a rule may look at the time in any way.
        """
        return lambda time: time

    @abstractmethod
    def update(self, state: State, gradients: Parameters, context: Context) -> tuple[Updates, State]:
        """(updates, state): updates point uphill and have the shapes of ``gradients``; one that is ``Kept`` decides
        what is kept as well.
        """


def always(time: int) -> Hashable:
    """The schedule of a rule that does the same at every write."""
    return None


@dataclass(frozen=True)
class GradientDescent(Rule):
    """The update is the gradient: theta <- retention theta - lr dL/dtheta (M3, O1)."""

    def schedule(self, shape: torch.Size) -> Callable[[int], Hashable]:
        return always

    def update(self, state: State, gradients: Parameters, context: Context) -> tuple[Parameters, State]:
        return gradients, state


@dataclass(frozen=True)
class DeltaGradientDescent(Rule):
    """Each weight matrix also forgets along its own input: W <- W (alpha I - lr x x^T) - lr dL/dW (O12, S4, S5).

    Inputs are taken where the gradient is, so inside a chunk a second layer keeps its inputs of the chunk's start (S6).
    Many keys in one write replace x x^T by their sum, as the gradient is their sum, or by their mean with ``mean=True``
    (then use an objective with ``mean=True`` too). ``implicit=True`` takes the exact proximal step for a single key,
    lr' = lr / (1 + lr ||x||^2), which cannot overshoot whatever the key ([NL] 54-57, App. C).
    """

    implicit: bool = False
    mean: bool = False

    def schedule(self, shape: torch.Size) -> Callable[[int], Hashable]:
        return always

    def update(self, state: State, gradients: Parameters, context: Context) -> tuple[Parameters, State]:
        if context.model is None or context.parameters is None or context.key is None:
            raise ValueError(
                "DeltaGradientDescent reads the inputs of the memory it writes: the write must pass its key"
            )
        inputs = context.model.inputs(context.at or context.parameters, context.key)
        updates = {}
        for name, gradient in gradients.items():
            rows = inputs[name]
            weight = 1 / max(rows.shape[-2], 1) if self.mean else 1.0
            forgotten = weight * ((context.parameters[name] @ rows.mT) @ rows)
            update = gradient + forgotten
            if self.implicit:
                energy = weight * rows.square().sum((-2, -1))
                update = update * spread(1 / (1 + context.lr * energy), update)
            updates[name] = update
        return updates, state


@dataclass(frozen=True)
class LeastSquares(Rule):
    """Write a linear memory with the exact optimum of discounted, ridged regression instead of one gradient step (O15,
    O19).

    It keeps the statistics sum v k^T and sum k k^T, both discounted by ``discount`` a write, and sets
    W = (sum v k^T)(sum k k^T + ridge I)^-1. ``ridge`` is relative to the mean diagonal of sum k k^T, so scaling the
    keys does not change the regression.
    """

    discount: float = 0.99
    ridge: float = 1e-2

    reads_gradients: ClassVar[bool] = False

    def schedule(self, shape: torch.Size) -> Callable[[int], Hashable]:
        return always

    def init(self, parameters: Parameters, generator: torch.Generator | None = None) -> State:
        weight = parameters["weight"]
        gram = weight.new_zeros((*weight.shape[:-2], weight.shape[-1], weight.shape[-1]))
        return {"gram": gram, "moment": torch.zeros_like(weight)}

    def update(self, state: State, gradients: Parameters, context: Context) -> tuple[Parameters, State]:
        key, value, parameters = context.key, context.value, context.parameters
        if key is None or value is None or parameters is None or "weight" not in parameters:
            raise ValueError("LeastSquares writes a Matrix memory from keys and values: the write must pass both")
        gram = self.discount * state["gram"] + key.mT @ key
        moment = self.discount * state["moment"] + value.mT @ key
        solved = solve_ridge(gram, moment, self.ridge)
        return {"weight": parameters["weight"] - solved}, {"gram": gram, "moment": moment}


def apply_update(parameter: Tensor, update: Tensor | Kept, lr: Scalar, retention: Scalar) -> Tensor:
    """retention * parameter - lr * update: the one line that writes every memory (M3)."""
    if isinstance(update, Kept):
        update, retention = update
    if not isinstance(retention, Tensor) and retention == 1.0:
        kept = parameter
    else:
        kept = spread(retention, parameter) * parameter
    if isinstance(lr, Tensor):
        return kept - spread(lr, update) * update
    return torch.sub(kept, update, alpha=lr)


def in_words(number: Scalar) -> str:
    """Twelve digits of a number. Inside a compiled kernel settings are tensors, and nobody reads the words there."""
    return "..." if isinstance(number, Tensor) else f"{number:.12g}"


def spread(coefficient: Scalar, tensor: Tensor) -> Scalar:
    """A coefficient over the batch of memories [*B], shaped to multiply a tensor [*B, ...]."""
    if isinstance(coefficient, Tensor) and coefficient.ndim:
        return coefficient.reshape(coefficient.shape + (1,) * (tensor.ndim - coefficient.ndim))
    return coefficient


def solve_ridge(gram: Tensor, moment: Tensor, ridge: float) -> Tensor:
    """moment (gram + ridge * mean diagonal * I)^-1, zero where nothing was seen yet; shapes [*B, n, n], [*B, m, n]."""
    size = gram.shape[-1]
    scale = gram.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    # Keys too small to square are as good as unseen; the identity in their place is there to be solvable.
    seen = scale > torch.finfo(gram.dtype).tiny
    safe = torch.where(seen, scale, torch.ones_like(scale))
    identity = torch.eye(size, dtype=gram.dtype, device=gram.device)
    damped = torch.where(seen, gram / safe + ridge * identity, identity)
    solved = torch.linalg.solve_ex(damped, moment / safe, left=False)[0]
    return torch.where(seen, solved, torch.zeros_like(solved))
