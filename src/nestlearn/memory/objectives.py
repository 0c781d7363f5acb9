"""What a memory is asked for: objectives L(M(k); v) and their errors in closed form (M2, O16, O17, O18).

An objective looks at the answer of a memory and gives its *loss* (the memory's surprise) and its *error* dL/dM(k). The
model pulls the error back onto its parameters. Oja's objective scores the key that the memory would reconstruct, so it
also corrects the key; no other one does.

Losses are summed over everything that is not a batch of memories; ``mean=True`` divides by the number of keys.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from nestlearn.memory.models import Matrix, Model, Parameters

__all__ = [
    "L2",
    "DotProduct",
    "Hypergradient",
    "Objective",
    "Oja",
    "Orthogonality",
    "Quadratic",
    "dot_product",
    "hypergradient",
    "l2",
    "oja",
    "orthogonality",
    "quadratic",
]


@dataclass(frozen=True)
class Objective(ABC):
    """Scores answers against values; shapes as in ``nestlearn.memory.models``."""

    mean: bool = False

    name: ClassVar[str]
    """The name a user types."""

    @abstractmethod
    def loss(self, answer: Tensor, value: Tensor) -> Tensor:
        """Element-wise terms, shaped like ``answer``, whose sum is the loss."""

    @abstractmethod
    def error(self, answer: Tensor, value: Tensor) -> Tensor:
        """dL/d(answer), shaped like ``answer``."""

    def loss_at(self, error: Tensor, answer: Tensor, value: Tensor) -> Tensor:
        """``loss(answer, value)`` for a caller who has the error already."""
        return self.loss(answer, value)

    def surprise(self, model: Model, parameters: Parameters, key: Tensor, value: Tensor) -> Tensor:
        """The loss of each memory [*B] at its current parameters."""
        return self.total(model, parameters, self.loss(model.read(parameters, key), value))

    def assess(
        self, model: Model, parameters: Parameters, key: Tensor, value: Tensor, *, surprise: bool = True
    ) -> tuple[Parameters, Tensor | None]:
        """(dL/d(parameters) in closed form, surprise [*B] or None), from one read-out."""
        answer, trace = model.trace(parameters, key)
        error = self.error(answer, value)
        before = self.total(model, parameters, self.loss_at(error, answer, value)) if surprise else None
        return self._scaled(model, model.pullback(parameters, key, error, trace), key), before

    def gradients(self, model: Model, parameters: Parameters, key: Tensor, value: Tensor) -> Parameters:
        """dL/d(parameters) in closed form."""
        return self.assess(model, parameters, key, value, surprise=False)[0]

    def total(self, model: Model, parameters: Parameters, terms: Tensor) -> Tensor:
        """The terms of a loss summed for each memory [*B]."""
        batch = model.batch_ndim(parameters)
        rows = terms.shape[-2] if self.mean and model.takes_rows else 1
        return (terms.flatten(batch).sum(-1) if terms.ndim > batch else terms) / max(rows, 1)

    def averaged(self) -> "Objective":
        """The same objective, its loss divided by the number of keys in a write."""
        return replace(self, mean=True)

    def _scaled(self, model: Model, gradients: Parameters, key: Tensor) -> Parameters:
        if not (self.mean and model.takes_rows):
            return gradients
        return {name: gradient / max(key.shape[-2], 1) for name, gradient in gradients.items()}


@dataclass(frozen=True)
class DotProduct(Objective):
    """L = -<M(k), v>: the Hebbian objective (M2). Unbounded below, so pair it with retention below one."""

    name: ClassVar[str] = "dot_product"

    def loss(self, answer: Tensor, value: Tensor) -> Tensor:
        return -answer * value

    def error(self, answer: Tensor, value: Tensor) -> Tensor:
        # A zero from the answer keeps the shape when one value is shared by many keys.
        return -value if value.shape == answer.shape else (-value).expand_as(answer)


@dataclass(frozen=True)
class L2(Objective):
    """L = 1/2 ||M(k) - v||^2: regression, whose rule on a linear memory is the delta rule (M2, M3)."""

    name: ClassVar[str] = "l2"

    def loss(self, answer: Tensor, value: Tensor) -> Tensor:
        return 0.5 * (answer - value).square()

    def loss_at(self, error: Tensor, answer: Tensor, value: Tensor) -> Tensor:
        return 0.5 * error.square()

    def error(self, answer: Tensor, value: Tensor) -> Tensor:
        return answer - value


@dataclass(frozen=True)
class Oja(Objective):
    """L = -<M(k), v> + 1/2 ||M^T v||^2: Hebbian learning whose weights stay bounded (M2, M3).

    This is half of M2's print, so that a write with inner learning rate zeta is M3's M + zeta v (k^T - v^T M) exactly.
    M^T v is the key that a linear memory would reconstruct from v; other models have none, and get a TypeError.
    """

    name: ClassVar[str] = "oja"

    def loss(self, answer: Tensor, value: Tensor) -> Tensor:
        return -answer * value

    def error(self, answer: Tensor, value: Tensor) -> Tensor:
        return (-value).expand_as(answer)

    def surprise(self, model: Model, parameters: Parameters, key: Tensor, value: Tensor) -> Tensor:
        echo = self._echo(model, parameters, key, value.expand_as(model.read(parameters, key)))
        penalty = self.total(model, parameters, 0.5 * echo.square())
        return super().surprise(model, parameters, key, value) + penalty

    def assess(
        self, model: Model, parameters: Parameters, key: Tensor, value: Tensor, *, surprise: bool = True
    ) -> tuple[Parameters, Tensor | None]:
        before = self.surprise(model, parameters, key, value) if surprise else None
        answer, trace = model.trace(parameters, key)
        error = self.error(answer, value)
        echo = self._echo(model, parameters, key, -error)
        return self._scaled(model, model.pullback(parameters, key - echo, error, trace), key), before

    @staticmethod
    def _echo(model: Model, parameters: Parameters, key: Tensor, value: Tensor) -> Tensor:
        if not isinstance(model, Matrix):
            raise TypeError(f"the oja objective needs a linear memory (Matrix), got {type(model).__name__}")
        return model.transpose(parameters, key, value)


@dataclass(frozen=True)
class Quadratic(Objective):
    """L = <u, d> + 1/2 <d, H d> at the answer d = M(k), with value u (O16).

    Its minimum over d is -H^-1 u, so the memory learns Newton's direction from products with H alone. ``curvature``
    maps answers to H d, one product a write; ``None`` means H = I.
    """

    name: ClassVar[str] = "quadratic"

    curvature: Callable[[Tensor], Tensor] | None = None

    def loss(self, answer: Tensor, value: Tensor) -> Tensor:
        return answer * value + 0.5 * answer * self._product(answer)

    def error(self, answer: Tensor, value: Tensor) -> Tensor:
        return value + self._product(answer)

    def _product(self, answer: Tensor) -> Tensor:
        return answer if self.curvature is None else self.curvature(answer)


@dataclass(frozen=True)
class Hypergradient(Objective):
    """L = <M(k), v>: an answer is judged by the surprise that follows it (O17).

    The answer is added to the weights; v is the gradient met after that step, so a negative loss says that the step and
    the next descent direction agree. Like the dot product it needs retention below one.
    """

    name: ClassVar[str] = "hypergradient"

    def loss(self, answer: Tensor, value: Tensor) -> Tensor:
        return answer * value

    def error(self, answer: Tensor, value: Tensor) -> Tensor:
        return value.expand_as(answer)


@dataclass(frozen=True)
class Orthogonality(Objective):
    """L = 1/4 ||R S R^T - I||^2 for a linear memory R, with S the Gram matrix of the keys (O18, [NL] 41-44).

    ``value`` is the ridge added to the Gram matrix S = K^T K + value I. At the minimum R = S^-1/2, and the answers K R
    have orthonormal columns. Here the error is a property of the whole map and not of single answers.
    """

    name: ClassVar[str] = "orthogonality"

    def loss(self, answer: Tensor, value: Tensor) -> Tensor:
        raise TypeError("orthogonality scores the whole map, not single answers: call surprise")

    def error(self, answer: Tensor, value: Tensor) -> Tensor:
        raise TypeError("orthogonality scores the whole map, not single answers: call gradients")

    def surprise(self, model: Model, parameters: Parameters, key: Tensor, value: Tensor) -> Tensor:
        _, _, residual = self._residual(parameters, key, value)
        return 0.25 * residual.square().sum((-2, -1))

    def assess(
        self, model: Model, parameters: Parameters, key: Tensor, value: Tensor, *, surprise: bool = True
    ) -> tuple[Parameters, Tensor | None]:
        memory, gram, residual = self._residual(parameters, key, value)
        before = 0.25 * residual.square().sum((-2, -1)) if surprise else None
        return {"weight": residual @ memory @ gram}, before

    @staticmethod
    def _residual(parameters: Parameters, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if "weight" not in parameters:
            raise TypeError(f"orthogonality needs a Matrix memory, got parameters {sorted(parameters)}")
        memory = parameters["weight"]
        identity = torch.eye(memory.shape[-1], dtype=memory.dtype, device=memory.device)
        gram = key.mT @ key + value * identity
        return memory, gram, memory @ gram @ memory.mT - identity


dot_product = DotProduct()
l2 = L2()
oja = Oja()
quadratic = Quadratic()
hypergradient = Hypergradient()
orthogonality = Orthogonality()
