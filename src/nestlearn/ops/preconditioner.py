"""A kept matrix R that follows S^(-1/2) while S changes slowly, one iteration a call (O18, [NL] 41-44).

With S = K^T K + ridge the rows of K R^T are orthonormal when R S R^T = I. One Newton-Schulz step towards that is

    A = R S R^T,   R <- (15/8 I - 10/8 A + 3/8 A^2) R.

It brings the eigenvalues of A to 1 but leaves R = U S^(-1/2) with any rotation U, and U drifts as S changes. Averaging
R with its transpose, as O18 does, removes U but is unstable: an error of R between eigenvectors i and j of S is
multiplied by (1 - cosh(log(s_i / s_j) / 2)) / 2 a step, so it grows once s_i / s_j > 34 (in float64, for a fixed S of
condition 1000, R converges and is lost again within 24 steps). Here R is *rotated* towards symmetry instead. R and R S
share the rotation U and weigh small and large eigenvalues of S oppositely, so with

    W = R / ||R|| + R S / ||R S||,   Omega = (W - W^T) / 2 (skew),   R <- (I - Omega) R

every component of the rotation shrinks and none is overshot. Stable at any condition, five products of n x n a call.
"""

import torch
from torch import Tensor

__all__ = ["initial_preconditioner", "preconditioner_step"]

LARGEST = 1.7
"""Eigenvalues of A are kept below this; the iteration diverges beyond 7/3."""


def initial_preconditioner(covariance: Tensor) -> Tensor:
    """I / sqrt(||S||_F), from which `preconditioner_step` converges; I where S is zero.

    Args:
        covariance: S `[*batch, n, n]`, symmetric positive semi-definite.
    """
    _require_pair(covariance, covariance, "initial_preconditioner")
    identity = torch.eye(covariance.shape[-1], dtype=covariance.dtype, device=covariance.device)
    largest = covariance.abs().amax((-2, -1), keepdim=True)
    largest = torch.where(largest > 0, largest, torch.ones_like(largest))
    norm = torch.linalg.matrix_norm(covariance / largest, keepdim=True)
    return identity / (torch.where(norm > 0, norm, torch.ones_like(norm)).sqrt() * largest.sqrt())


def preconditioner_step(preconditioner: Tensor, covariance: Tensor, literal: bool = False) -> Tensor:
    """One iteration towards R S R^T = I with R symmetric, that is R = S^(-1/2) (O18).

    Before the step R is scaled down where needed, so that the largest eigenvalue of A = R S R^T is about 1.7 at most.
    The smallest eigenvalue of A grows by (15/8)^2 a call, so a start at condition c needs about log(c) / 1.26 calls.

    Args:
        preconditioner: R `[*batch, n, n]`, float32 or float64; the rule maps a row k to R k.
        covariance: S `[*batch, n, n]`, symmetric positive definite.
        literal: average R with its transpose as O18 says, instead of rotating it; unstable above condition 34.

    Returns:
        The new R `[*batch, n, n]`; the inputs are not modified.

    Raises:
        ValueError: if the two are not square matrices of the same size.
    """
    _require_pair(preconditioner, covariance, "preconditioner_step")
    r = preconditioner
    forward = r @ covariance
    a = forward @ r.mT
    a2 = a @ a
    shrink = (LARGEST / _largest_eigenvalue(a, a2)).clamp(max=1.0)
    poly = 0.375 * shrink.square() * a2 - 1.25 * shrink * a
    poly.diagonal(dim1=-2, dim2=-1).add_(1.875)
    if literal:
        new = poly @ r
        return shrink.sqrt() * 0.5 * (new + new.mT)
    tilt = _unit(r) + _unit(forward)
    poly = poly - (0.5 * (tilt - tilt.mT)) @ poly
    return (shrink.sqrt() * poly) @ r


def _largest_eigenvalue(a: Tensor, a2: Tensor) -> Tensor:
    """An estimate `[*batch, 1, 1]` for positive semi-definite A: power steps with 10% to spare, or a bound if lower."""
    tiny = torch.finfo(a.dtype).tiny
    v = _longest_column(a2)
    for _ in range(4):
        v = a2 @ (v / torch.linalg.vector_norm(v, dim=-2, keepdim=True).clamp(min=tiny))
    estimate = torch.linalg.vector_norm(v, dim=-2, keepdim=True).sqrt()
    bound = a2.abs().sum(-1, keepdim=True).amax(-2, keepdim=True).sqrt()
    return torch.minimum(1.1 * estimate, bound).clamp(min=tiny)


def _unit(matrix: Tensor) -> Tensor:
    """Each matrix divided by its largest singular value, which four double power steps estimate from below."""
    tiny = torch.finfo(matrix.dtype).tiny
    matrix = matrix / matrix.abs().amax((-2, -1), keepdim=True).clamp(min=tiny)  # so that no square overflows
    v = _longest_column(matrix.mT)
    for _ in range(4):
        v = matrix.mT @ (matrix @ (v / torch.linalg.vector_norm(v, dim=-2, keepdim=True).clamp(min=tiny)))
    largest: Tensor = torch.linalg.vector_norm(v, dim=-2, keepdim=True).sqrt().clamp(min=tiny)
    return matrix / largest


def _longest_column(matrix: Tensor) -> Tensor:
    index = torch.linalg.vector_norm(matrix, dim=-2, keepdim=True).argmax(-1, keepdim=True)
    return torch.take_along_dim(matrix, index, dim=-1)


def _require_pair(preconditioner: Tensor, covariance: Tensor, name: str) -> None:
    shape = tuple(covariance.shape)
    if covariance.ndim < 2 or shape[-1] != shape[-2] or tuple(preconditioner.shape[-2:]) != shape[-2:]:
        raise ValueError(
            f"{name}: expected square matrices [*batch, n, n] of one size, got R {tuple(preconditioner.shape)} "
            f"and S {shape}."
        )
