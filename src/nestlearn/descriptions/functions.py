"""The functions of the language of descriptions: small, pure, and each said in a line.

Matrices may have any batch in front; what is said of a matrix holds for each of them.
"""

from collections.abc import Callable, Mapping
from functools import reduce
from math import ceil, inf
from typing import Any

import torch
from torch import Tensor

from nestlearn.memory.rules import solve_ridge
from nestlearn.ops.eigenbasis import eigenvectors, turned
from nestlearn.ops.preconditioner import initial_preconditioner, preconditioner_step
from nestlearn.ops.whitening import (
    FOUR_STEP_COEFFICIENTS,
    cholesky_whitener,
    inverse_root,
    newton_schulz,
    symmetric_power,
)
from nestlearn.rules.shape import as_rows, unit
from nestlearn.targets import random_features

__all__ = ["FUNCTIONS"]

Value = Any  # a number, a truth value, a word or a tensor

SMALLEST = 1e-30
"""Lengths below this count as this where something is divided by them."""


def _extreme(choose: Callable[..., Value], chosen: Callable[..., Tensor]) -> Callable[..., Value]:
    """A function of several numbers or tensors, entry by entry."""

    def function(*items: Value) -> Value:
        tensors = [item for item in items if isinstance(item, Tensor)]
        if not tensors:
            return choose(*items)
        return reduce(chosen, (torch.as_tensor(item, dtype=tensors[0].dtype) for item in items))

    return function


def _where(condition: Value, then: Value, otherwise: Value) -> Value:
    if not isinstance(condition, Tensor):
        return then if condition else otherwise
    # Two plain numbers become float64, so that they keep their digits whatever dtype they meet.
    tensors = [item for item in (then, otherwise) if isinstance(item, Tensor)]
    dtype = tensors[0].dtype if tensors else torch.float64
    return torch.where(condition, torch.as_tensor(then, dtype=dtype), torch.as_tensor(otherwise, dtype=dtype))


def _or_one(x: Value) -> Value:
    return torch.where(x == 0, torch.ones_like(x), x) if isinstance(x, Tensor) else x or 1.0


def _norm(x: Tensor) -> Tensor:
    length: Tensor = torch.linalg.matrix_norm(x, keepdim=True)
    return length


def _as_long_as(x: Tensor, like: Value) -> Tensor:
    length = _norm(like) if isinstance(like, Tensor) else like
    return x * (length / _norm(x).clamp_min(SMALLEST))


def _as_matrix(x: Tensor, like: Tensor) -> Tensor:
    if x.shape[-2:] == like.shape[-2:]:
        return x
    return x.mT if x.shape[-2:] == like.mT.shape[-2:] else x.reshape(like.shape)


def _entries(*matrices: Tensor) -> Tensor:
    return torch.stack([matrix.flatten(-2) for matrix in matrices], -1)


def _trace(x: Tensor) -> Tensor:
    total: Tensor = x.diagonal(dim1=-2, dim2=-1).sum(-1)
    return total[..., None, None]


def _mean_one(x: Tensor) -> Tensor:
    mean, numbers = _trace(x) / x.shape[-1], torch.finfo(x.dtype)
    scaled: Tensor = x / mean.masked_fill(mean <= numbers.tiny / numbers.eps, inf)
    return scaled


def _identity(x: Tensor) -> Tensor:
    size = x.shape[-1]
    return torch.eye(size, dtype=x.dtype, device=x.device).expand(*x.shape[:-2], size, size)


def _root_step(memory: Tensor, covariance: Tensor) -> Tensor:
    unseen = (memory == 0).all(-1).all(-1)[..., None, None]
    return preconditioner_step(torch.where(unseen, initial_preconditioner(covariance), memory), covariance)


def _newton_schulz(matrix: Tensor, steps: float = 5, *published: Value) -> Tensor:
    if not published:
        return newton_schulz(matrix, int(steps))
    if published == ("fitted",):
        return newton_schulz(matrix, coefficients=FOUR_STEP_COEFFICIENTS)
    a, b, c, eps = published
    return newton_schulz(matrix, int(steps), (a, b, c), eps, dtype=torch.bfloat16)


FUNCTIONS: Mapping[str, tuple[Callable[..., Value], str]] = {
    "abs": (abs, "size without sign"),
    "sign": (torch.sign, "1, 0 or -1"),
    "sqrt": (lambda x: x.sqrt() if isinstance(x, Tensor) else x**0.5, "square root"),
    "ceil": (ceil, "the next whole number"),
    "max": (_extreme(max, torch.maximum), "the largest of several"),
    "min": (_extreme(min, torch.minimum), "the smallest of several"),
    "clip": (lambda x, low, high: x.clamp(low, high), "moved into [low, high]"),
    "where": (_where, "where(condition, a, b): a where it holds, else b"),
    "or_one": (_or_one, "1 where it is 0, to divide by"),
    "mix": (lambda a, b, share: a + share * (b - a), "mix(a, b, share): (1 - share) a + share b"),
    "rows": (lambda x: x.shape[-2], "number of rows"),
    "columns": (lambda x: x.shape[-1], "number of columns"),
    "row_means": (lambda x: x.mean(-1, keepdim=True), "one mean a row"),
    "column_means": (lambda x: x.mean(-2, keepdim=True), "one mean a column"),
    "rms": (lambda x: x.norm() / x.numel() ** 0.5, "root mean square of all entries"),
    "precision": (lambda x: torch.finfo(x.dtype).eps, "distance from 1 to the next number of this dtype"),
    "ones": (torch.ones_like, "1 in every entry"),
    "norm": (_norm, "length: the root of the sum of all squares (Frobenius)"),
    "unit": (lambda x: x / _or_one(_norm(x)), "made of length one; zero stays zero"),
    "as_long_as": (_as_long_as, "as_long_as(x, y): x made as long as the matrix y, or of length y"),
    "as_rows": (as_rows, "seen as rows along the longer side: transposed if it is wide"),
    "unit_rows": (lambda x: unit(as_rows(x)), "as_rows, scaled together to rows of mean squared length one"),
    "entries": (_entries, "entries(x, ...): all entries of matrices, one row an entry and one column a matrix"),
    "as_matrix": (_as_matrix, "as_matrix(x, y): rows or entries put back into the form of the matrix y"),
    "side_by_side": (lambda x, y: torch.cat([x, y], -1), "the columns of one, then those of the other"),
    "identity": (_identity, "the identity with as many columns"),
    "trace": (_trace, "sum of the diagonal"),
    "mean_one": (_mean_one, "divided by the mean of its diagonal; zero, and what is next to it, is zero"),
    "ridge": (
        lambda x, a, damping: solve_ridge(a, x, damping),
        "ridge(x, A, d): x (A + d I)^-1, d in means of A's diagonal",
    ),
    "whitener": (cholesky_whitener, "whitener(A, d): Z with Z (A + d I) Z^T = I, d in means of A's diagonal"),
    "inverse_root": (
        lambda a, order, damping: inverse_root(a, int(order), damping),
        "inverse_root(A, n, d): (A + d I)^(-1/n), d in largest eigenvalues of A",
    ),
    "symmetric_power": (symmetric_power, "symmetric_power(A, p, d): (A + d I)^p, d in means of A's diagonal"),
    "eigenvectors": (eigenvectors, "the eigenvectors of A as columns, that of the largest eigenvalue first"),
    "turned": (turned, "turned(Q, A): Q after one orthogonal iteration towards the eigenvectors of A"),
    "root_step": (_root_step, "root_step(R, S): R after one iteration towards S^(-1/2) (O18)"),
    "newton_schulz": (
        _newton_schulz,
        "newton_schulz(M, steps): singular values to about 1, in 5 steps if none are given; "
        "newton_schulz(M, 4, 'fitted'): in four with coefficients fitted to them; "
        "newton_schulz(M, steps, a, b, c, eps): the same with other coefficients, in bfloat16",
    ),
    "random_features": (
        lambda x, seed=0: random_features(x, int(seed)),
        "random_features(x, seed): a fixed random map of the rows, seed 0 if none is given (O11)",
    ),
}  # fmt: skip
"""Every function of the language and what it does."""
