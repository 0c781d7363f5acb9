"""The models an associative memory can hold: a box, a matrix, a small MLP.

A model is a map from keys to values whose parameters live outside it (M1: [NL] Definition 1, [S] 2.2). Each model
knows two closed forms besides its read-out: the *pullback* of an error onto its parameters, which is what a rule needs
to write it without building an autograd graph, and the *inputs* of its weight matrices, which delta gradient descent
(O12, S5) needs as keys.

Shapes: ``B`` stands for any leading batch of memories, ``n`` for the keys of one write.

=========  ==================================  ======================  ======================
model      parameters                          keys                    answers
=========  ==================================  ======================  ======================
Constant   value [*B, *shape]                  ignored                 [*B, *shape]
Matrix     weight [*B, out, in]                [*B, n, in]             [*B, n, out]
MLP        inner [*B, hidden, in],             [*B, n, in]             [*B, n, out]
           outer [*B, out, hidden]
=========  ==================================  ======================  ======================
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

__all__ = ["ACTIVATIONS", "MLP", "Constant", "Matrix", "Model", "Parameters"]

Parameters = dict[str, Tensor]


class Model(ABC):
    """A map from keys to values, its parameters passed in from outside."""

    takes_rows: ClassVar[bool] = True
    """Whether keys and answers carry a row dimension: many keys in one write."""

    @property
    def per_entry(self) -> bool:
        """Whether one memory serves one entry of a matrix, and not a whole matrix."""
        return False

    @abstractmethod
    def init(
        self,
        batch_shape: tuple[int, ...] = (),
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ) -> Parameters:
        """Fresh parameters for ``batch_shape`` memories of this shape."""

    @abstractmethod
    def batch_ndim(self, parameters: Parameters) -> int:
        """How many leading dimensions of ``parameters`` count memories."""

    @abstractmethod
    def read(self, parameters: Parameters, key: Tensor) -> Tensor:
        """M(k), with rows: see the table of shapes above."""

    @abstractmethod
    def pullback(self, parameters: Parameters, key: Tensor, error: Tensor) -> Parameters:
        """Gradients of ``sum(M(key) * error)`` with respect to the parameters, ``error`` held fixed."""

    @abstractmethod
    def transpose(self, parameters: Parameters, key: Tensor, error: Tensor) -> Tensor:
        """Gradient of ``sum(M(key) * error)`` with respect to ``key``; M^T error for a linear memory."""

    @abstractmethod
    def inputs(self, parameters: Parameters, key: Tensor) -> Parameters:
        """The input rows [*B, n, in] that each weight matrix sees when the memory is read at ``key``."""


@dataclass(frozen=True)
class Constant(Model):
    """The box: it ignores its key and answers with the one value it holds [S 4.2].

    With the default empty ``shape`` a memory holds a scalar, and a batch of them is an element-wise memory: momentum
    over a weight matrix is a batch of [out, in] boxes.
    """

    shape: tuple[int, ...] = ()

    takes_rows: ClassVar[bool] = False

    @property
    def per_entry(self) -> bool:
        return not self.shape

    def init(
        self,
        batch_shape: tuple[int, ...] = (),
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ) -> Parameters:
        return {"value": torch.zeros((*batch_shape, *self.shape), dtype=dtype, device=device)}

    def batch_ndim(self, parameters: Parameters) -> int:
        return parameters["value"].ndim - len(self.shape)

    def read(self, parameters: Parameters, key: Tensor | None) -> Tensor:
        return parameters["value"]

    def pullback(self, parameters: Parameters, key: Tensor | None, error: Tensor) -> Parameters:
        return {"value": error}

    def transpose(self, parameters: Parameters, key: Tensor, error: Tensor) -> Tensor:
        return torch.zeros_like(key)

    def inputs(self, parameters: Parameters, key: Tensor) -> Parameters:
        raise TypeError("a Constant memory has no weight matrix: delta gradient descent needs a Matrix or an MLP")


@dataclass(frozen=True)
class Matrix(Model):
    """The linear memory M(k) = W k, or k + W k with ``residual``; it starts at W = 0."""

    in_dim: int
    out_dim: int
    residual: bool = False

    def __post_init__(self) -> None:
        _check_dims(self, in_dim=self.in_dim, out_dim=self.out_dim)

    def init(
        self,
        batch_shape: tuple[int, ...] = (),
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ) -> Parameters:
        return {"weight": torch.zeros((*batch_shape, self.out_dim, self.in_dim), dtype=dtype, device=device)}

    def batch_ndim(self, parameters: Parameters) -> int:
        return parameters["weight"].ndim - 2

    def read(self, parameters: Parameters, key: Tensor) -> Tensor:
        answer = key @ parameters["weight"].mT
        return key + answer if self.residual else answer

    def pullback(self, parameters: Parameters, key: Tensor, error: Tensor) -> Parameters:
        return {"weight": error.mT @ key}

    def transpose(self, parameters: Parameters, key: Tensor, error: Tensor) -> Tensor:
        back = error @ parameters["weight"]
        return back + error if self.residual else back

    def inputs(self, parameters: Parameters, key: Tensor) -> Parameters:
        return {"weight": key}


@dataclass(frozen=True)
class MLP(Model):
    """Two layers without biases, M(k) = k + W_outer s(W_inner k) / sqrt(hidden) (O5, S5, [NL] 89).

    ``W_outer`` starts at zero, so that a memory that knows nothing answers with its key (``residual``) or with zero;
    without biases and with s(0) = 0 a zero key always gives a zero answer. Keys are expected to have about unit
    length; the division by sqrt(hidden) then makes an inner learning rate mean the same at every width.
    """

    in_dim: int
    hidden: int
    out_dim: int
    residual: bool = True
    activation: str = "silu"

    def __post_init__(self) -> None:
        _check_dims(self, in_dim=self.in_dim, hidden=self.hidden, out_dim=self.out_dim)
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {sorted(ACTIVATIONS)}, got {self.activation!r}")

    def init(
        self,
        batch_shape: tuple[int, ...] = (),
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        generator: torch.Generator | None = None,
    ) -> Parameters:
        inner = torch.empty((*batch_shape, self.hidden, self.in_dim), dtype=dtype, device=device)
        if inner.device.type != "meta":
            # Keys of unit length then give hidden units of unit variance.
            inner.normal_(generator=generator)
        return {
            "inner": inner,
            "outer": torch.zeros((*batch_shape, self.out_dim, self.hidden), dtype=dtype, device=device),
        }

    def batch_ndim(self, parameters: Parameters) -> int:
        return parameters["inner"].ndim - 2

    def read(self, parameters: Parameters, key: Tensor) -> Tensor:
        activate, _ = ACTIVATIONS[self.activation]
        answer = (activate(key @ parameters["inner"].mT) * self._gain) @ parameters["outer"].mT
        return key + answer if self.residual else answer

    def pullback(self, parameters: Parameters, key: Tensor, error: Tensor) -> Parameters:
        hidden, slope = self._hidden(parameters, key)
        hidden_error = (error @ parameters["outer"]) * slope
        return {"inner": hidden_error.mT @ key, "outer": error.mT @ hidden}

    def transpose(self, parameters: Parameters, key: Tensor, error: Tensor) -> Tensor:
        _, slope = self._hidden(parameters, key)
        back = ((error @ parameters["outer"]) * slope) @ parameters["inner"]
        return back + error if self.residual else back

    def inputs(self, parameters: Parameters, key: Tensor) -> Parameters:
        return {"inner": key, "outer": self._hidden(parameters, key)[0]}

    def _hidden(self, parameters: Parameters, key: Tensor) -> tuple[Tensor, Tensor]:
        activate, derivative = ACTIVATIONS[self.activation]
        before = key @ parameters["inner"].mT
        return activate(before) * self._gain, derivative(before) * self._gain

    @property
    def _gain(self) -> float:
        return self.hidden**-0.5


def _silu_slope(x: Tensor) -> Tensor:
    gate = torch.sigmoid(x)
    return gate * (1 + x * (1 - gate))


ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "silu": (torch.nn.functional.silu, _silu_slope),
    "tanh": (torch.tanh, lambda x: 1 - torch.tanh(x).square()),
    "relu": (torch.relu, lambda x: (x > 0).to(x.dtype)),
    "identity": (lambda x: x, torch.ones_like),
}
"""Activations and their derivatives; all are zero at zero."""


def _check_dims(model: Model, **dims: int) -> None:
    for name, size in dims.items():
        if size < 1:
            raise ValueError(f"{type(model).__name__}: {name} must be at least 1, got {size}")
    if getattr(model, "residual", False) and dims["in_dim"] != dims["out_dim"]:
        raise ValueError(
            f"{type(model).__name__}: a residual read-out adds the key to the answer, so in_dim must equal out_dim; "
            f"got {dims['in_dim']} and {dims['out_dim']}. Pass residual=False."
        )
