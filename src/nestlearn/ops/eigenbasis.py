"""A kept matrix Q that follows the eigenvectors of a covariance while it changes slowly (O20).

One orthogonal iteration, Q <- the Q factor of A Q, turns each column towards the eigenvector of its rank. Columns keep
their places, so what is remembered for each of them, such as averaged squares, goes on meaning the same.
"""

import torch
from torch import Tensor

__all__ = ["decomposed", "eigenvectors", "turned"]

TELLS_APART = 1e-5
"""The share by which a diagonal is raised: less than any covariance is known to."""


def decomposed(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues `[*batch, n]`, the smallest first, and eigenvectors in columns of symmetric `[*batch, n, n]`.

    In single precision the decomposition may fail on a matrix with very many equal eigenvalues, such as the covariance
    of a table most of whose rows have no gradient. It is then repeated in double precision.

    Raises:
        torch.linalg.LinAlgError: that failed too, or there is NaN or infinity.
    """
    try:
        values, vectors = torch.linalg.eigh(matrix)
    except torch.linalg.LinAlgError:
        if not matrix.isfinite().all():
            raise
        values, vectors = (found.to(matrix.dtype) for found in torch.linalg.eigh(matrix.double()))
    return values, vectors


def eigenvectors(covariance: Tensor) -> Tensor:
    """The eigenvectors of A as columns, that of the largest eigenvalue first; the identity where A is zero.

    Args:
        covariance: A `[*batch, n, n]`, symmetric positive semi-definite; computed in at least float32.

    Returns:
        `[*batch, n, n]` in the dtype of `covariance`.

    Raises:
        ValueError: for matrices that are not square.
        torch.linalg.LinAlgError: when A holds NaN or infinity.
    """
    _require_square(covariance, "eigenvectors")
    _, vectors = decomposed(_told_apart(covariance))
    found: Tensor = vectors.flip(-1).to(covariance.dtype)
    return found


def turned(basis: Tensor, covariance: Tensor) -> Tensor:
    """One orthogonal iteration: the Q factor of A Q.

    Args:
        basis: Q `[*batch, n, n]`, orthogonal.
        covariance: A `[*batch, n, n]`, symmetric positive semi-definite.

    Returns:
        `[*batch, n, n]`, orthogonal, in the dtype of `basis`.

    Raises:
        ValueError: if the two are not square matrices of the same size.
    """
    _require_square(covariance, "turned")
    if basis.shape[-2:] != covariance.shape[-2:]:
        raise ValueError(
            f"turned: expected a basis as large as the covariance, got {tuple(basis.shape)} and "
            f"{tuple(covariance.shape)}."
        )
    matrix = _told_apart(covariance)
    factor: Tensor = torch.linalg.qr(matrix @ basis.to(matrix.dtype))[0]
    return factor.to(basis.dtype)


def _told_apart(matrix: Tensor) -> Tensor:
    """A in at least single precision, over its mean diagonal, its diagonal raised by a little.

    Directions that A does not tell apart, such as those that it has not seen, are then told apart by the diagonal and
    are not what rounding makes of them.
    """
    a = matrix.to(torch.promote_types(matrix.dtype, torch.float32))
    diagonal = a.diagonal(dim1=-2, dim2=-1)
    scale = diagonal.mean(-1)[..., None, None]
    return (a + TELLS_APART * diagonal.diag_embed()) / torch.where(scale > 0, scale, torch.ones_like(scale))


def _require_square(matrix: Tensor, name: str) -> None:
    if matrix.ndim < 2 or matrix.shape[-1] != matrix.shape[-2] or not matrix.is_floating_point():
        raise ValueError(
            f"{name}: expected square real matrices [*batch, n, n], got shape {tuple(matrix.shape)} and dtype "
            f"{matrix.dtype}."
        )
