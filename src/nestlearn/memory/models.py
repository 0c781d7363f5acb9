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
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from nestlearn.precision import product_dtype

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

    def sized(self, width: int) -> "Model":
        """The same kind of map from rows of ``width`` entries to such rows; a model of one size stays as it is."""
        return self

    def read(self, parameters: Parameters, key: Tensor) -> Tensor:
        """M(k), with rows: see the table of shapes above."""
        return self.trace(parameters, key)[0]

    @abstractmethod
    def trace(self, parameters: Parameters, key: Tensor) -> tuple[Tensor, Any]:
        """(M(k), what ``pullback`` wants to know of this read-out)."""

    @abstractmethod
    def pullback(self, parameters: Parameters, key: Tensor, error: Tensor, trace: Any) -> Parameters:
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

    def trace(self, parameters: Parameters, key: Tensor | None) -> tuple[Tensor, Any]:
        return parameters["value"], None

    def pullback(self, parameters: Parameters, key: Tensor | None, error: Tensor, trace: Any) -> Parameters:
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

    def sized(self, width: int) -> "Matrix":
        return replace(self, in_dim=width, out_dim=width)

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

    def trace(self, parameters: Parameters, key: Tensor) -> tuple[Tensor, Any]:
        answer = key @ parameters["weight"].mT
        return (key + answer if self.residual else answer), None

    def pullback(self, parameters: Parameters, key: Tensor, error: Tensor, trace: Any) -> Parameters:
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

    ``features`` [*, hidden, in], if given, are added to W_inner wherever it is read and are no parameter: what no write
    reaches. A memory that forgets needs them, since one whose W_inner is forgotten has no hidden units left to learn
    with, and gradients that are zero.
    """

    in_dim: int
    hidden: int
    out_dim: int
    residual: bool = True
    activation: str = "silu"
    fast: bool = False
    features: Tensor | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        _check_dims(self, in_dim=self.in_dim, hidden=self.hidden, out_dim=self.out_dim)
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {sorted(ACTIVATIONS)}, got {self.activation!r}")

    def sized(self, width: int) -> "MLP":
        return replace(self, in_dim=width, out_dim=width)

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

    def trace(self, parameters: Parameters, key: Tensor) -> tuple[Tensor, Any]:
        low = self._low(key)
        before = self.with_features((low @ self._low(parameters["inner"]).mT).to(key.dtype), key)
        hidden = self._low(self.hidden_units(before))
        answer = (hidden @ self._low(parameters["outer"]).mT).to(key.dtype)
        return (key + answer if self.residual else answer), (low, before, hidden)

    def pullback(self, parameters: Parameters, key: Tensor, error: Tensor, trace: Any) -> Parameters:
        low_key, before, hidden = trace
        low = self._low(error)
        hidden_error = self._low(self._hidden_error(parameters, low, before))
        return {"inner": (hidden_error.mT @ low_key).to(key.dtype), "outer": (low.mT @ hidden).to(key.dtype)}

    def transpose(self, parameters: Parameters, key: Tensor, error: Tensor) -> Tensor:
        before = self.trace(parameters, key)[1][1]
        inner = parameters["inner"] if self.features is None else parameters["inner"] + self.features
        back = self._hidden_error(parameters, self._low(error), before) @ inner
        return back + error if self.residual else back

    def inputs(self, parameters: Parameters, key: Tensor) -> Parameters:
        return {"inner": key, "outer": self.trace(parameters, key)[1][2].to(key.dtype)}

    def errors(self, parameters: Parameters, error: Tensor, trace: Any) -> Parameters:
        """The error rows [*B, n, out] of each weight matrix: its gradient is errors^T inputs (S5)."""
        return {"inner": self._hidden_error(parameters, self._low(error), trace[1]), "outer": error}

    def with_features(self, before: Tensor, key: Tensor) -> Tensor:
        """What the features add to W_inner k, if there are any."""
        return before if self.features is None else before + key @ self.features.mT

    def hidden_units(self, before: Tensor) -> Tensor:
        """s(W_inner k) / sqrt(hidden) from W_inner k, the keys of the second layer."""
        activate, _ = ACTIVATIONS[self.activation]
        return activate(before) * self._gain

    def _hidden_error(self, parameters: Parameters, error: Tensor, before: Tensor) -> Tensor:
        _, slope = ACTIVATIONS[self.activation]
        return (error @ self._low(parameters["outer"])).to(before.dtype) * (slope(before) * self._gain)

    def _low(self, tensor: Tensor) -> Tensor:
        return tensor.to(product_dtype(tensor)) if self.fast and tensor.dtype != torch.bfloat16 else tensor

    @property
    def _gain(self) -> float:
        gain: float = self.hidden**-0.5
        return gain


def _silu_slope(x: Tensor) -> Tensor:
    gate = torch.sigmoid(x)
    return gate * (1 + x * (1 - gate))


def _gelu_slope(x: Tensor) -> Tensor:
    below = 0.5 * (1 + torch.erf(x * 0.5**0.5))
    slope: Tensor = below + x * torch.exp(-0.5 * x.square()) * (2 * torch.pi) ** -0.5
    return slope


ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "silu": (torch.nn.functional.silu, _silu_slope),
    "gelu": (torch.nn.functional.gelu, _gelu_slope),
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
