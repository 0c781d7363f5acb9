"""Functions of whole matrices: orthogonalisation, inverse roots, whitening (read-outs of O10, O14, O15).

A memory that holds a matrix M may be read through a non-linear map s(M). All maps here act on the singular
values or eigenvalues alone and are pure functions on stacks of matrices `[*batch, n, m]`:

* `newton_schulz`: M = U S V^T -> U f(S) V^T with f close to 1. Each step is an odd polynomial,
  X <- (a I + b X X^T + c (X X^T)^2) X, so it needs matrix products only (Muon [Jordan 2024], O10).
* `inverse_root`: A -> A^(-1/order) of a symmetric positive semi-definite A (Shampoo-like targets, O9).
* `symmetric_power`: (A + damping)^p for any p, with which a whitening may be trusted in part (O20).
* `cholesky_whitener`: Z with Z A Z^T = I. Any such Z gives the same update under an exact orthogonalisation as
  A^(-1/2) does, since the two differ by a rotation, and a triangular inverse is far cheaper (O15).
"""

from math import frexp, inf
from typing import Any

import torch
from torch import Tensor

from nestlearn.device import device_of
from nestlearn.ops.eigenbasis import decomposed
from nestlearn.ops.products import BLOCK, symmetric_product
from nestlearn.precision import product_dtype

__all__ = [
    "FOUR_STEP_COEFFICIENTS",
    "MUON_COEFFICIENTS",
    "cholesky_whitener",
    "inverse_root",
    "newton_schulz",
    "orthogonality_error",
    "symmetric_power",
]

Coefficients = tuple[float, float, float]
MUON_COEFFICIENTS: Coefficients = (3.4445, -4.7750, 2.0315)

# Each triple is the odd quintic closest to 1 (in the largest error) on the interval that the steps before it leave:
# four exchange (Remez) problems in a row, the first on [0.0024, 1]. 2% head-room at the top, result centred on 0.95.
FOUR_STEP_COEFFICIENTS: tuple[Coefficients, ...] = (
    (8.2445, -23.4331, 16.6997),
    (4.0838, -3.0397, 0.5727),
    (3.6263, -2.7145, 0.5357),
    (2.5141, -1.8667, 0.4287),
)


def newton_schulz(
    matrix: Tensor,
    steps: int = 5,
    coefficients: Coefficients | tuple[Coefficients, ...] = MUON_COEFFICIENTS,
    eps: float = 1e-7,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Move all singular values of each matrix towards 1, with p(x) = a x + b x^3 + c x^5 in every step.

    The default is Muon's published iteration: five steps send singular values above 0.0015 (of a matrix scaled to
    Frobenius norm 1) into [0.68, 1.21]. It does not converge to 1, and training does not need it to.

    Args:
        matrix: `[*batch, n, m]`, any real floating dtype; not modified.
        steps: number of steps when `coefficients` is one triple.
        coefficients: one triple (a, b, c) for every step, or a tuple of triples, one for each step (then its length
            is the number of steps). `FOUR_STEP_COEFFICIENTS` does in four steps what the published five do.
        eps: smallest Frobenius norm a matrix is divided by. A matrix whose norm is far below eps is taken for rounding
            noise and comes back small; 0 makes the result independent of scale.
        dtype: dtype of the products. None takes bfloat16 where the device multiplies it natively (GPUs, x86 CPUs with
            AVX512-BF16), else float32, unless `nestlearn.precision.products` chooses; float64 stays float64.

    Returns:
        `[*batch, n, m]` in the dtype of `matrix`. A zero matrix stays zero; NaN or infinity spreads over its matrix.

    Raises:
        ValueError: for a tensor that is not a stack of real matrices, fewer than one step, or malformed coefficients.
    """
    _require_matrix(matrix, "newton_schulz")
    schedule = _schedule(steps, coefficients)
    if matrix.numel() == 0:
        return matrix.clone()
    stack = matrix.reshape(-1, *matrix.shape[-2:])
    side = min(stack.shape[-2:])
    group = _group(stack)
    x, spare = stack.new_empty(2, group, *stack.shape[-2:], dtype=dtype or product_dtype(matrix))
    squares = x.new_empty(2 if _square(stack.shape) else 5, group, side, side)
    result = torch.empty_like(stack, memory_format=torch.contiguous_format)
    for part, out in zip(stack.split(group), result.split(group), strict=True):
        b = len(part)
        out.copy_(_iterate(_normalise(part, eps, x[:b]), spare[:b], squares[:, :b], schedule))
    return result.reshape(matrix.shape)


def _group(stack: Tensor) -> int:
    """How many matrices run together: all, or on a CPU as many as stay in its cache."""
    count, *shape = stack.shape
    if device_of(stack).type != "cpu":
        return count
    return 1 if min(shape) >= 2 * BLOCK else min(count, max(1, (1 << 19) // (shape[0] * shape[1])))


def _iterate(x: Tensor, spare: Tensor, squares: Tensor, schedule: tuple[Coefficients, ...]) -> Tensor:
    """Run the schedule on `x` `[b, n, m]`; `spare` (like x) and `squares` `[2 or 5, b, k, k]` are scratch.

    A chunk of several steps runs on the Gram matrix G = X X^T of the shorter side k alone: with a I + P the step's
    polynomial in G, the next Gram matrix is (a I + P) G (a I + P), and the chunk's whole map is the product scale I + Q
    of its polynomials. All of them are polynomials in one symmetric matrix, so they commute and are symmetric. The
    multiples of the identity are kept apart, since bfloat16 would round them.
    """
    tall = x.shape[-2] > x.shape[-1]
    gram, q, *rest = squares
    later, half, next_q = rest or (q, q, q)
    for chunk in _chunks(schedule, x):
        scale = 1.0
        symmetric_product(*((x.mT, x) if tall else (x, x.mT)), gram)
        for i, (a, b, c) in enumerate(chunk):
            poly = later if i else q
            symmetric_product(gram, gram, poly, add=gram, beta=b, alpha=c)
            if i:  # (a I + P) (scale I + Q) = a scale I + (a Q + P Q + scale P)
                symmetric_product(poly, q, next_q, add=q, beta=a)
                q, next_q = next_q.add_(poly, alpha=scale), q
            scale *= a
            if i + 1 < len(chunk):
                symmetric_product(poly, gram, half, add=gram, beta=a)
                symmetric_product(half, poly, gram, add=half, beta=a)
        left, right = (x, q) if tall else (q, x)
        torch.baddbmm(x, left, right, beta=scale, out=spare)
        x, spare = spare, x
    return x


def _chunks(schedule: tuple[Coefficients, ...], x: Tensor) -> list[tuple[Coefficients, ...]]:
    """Cut the schedule into runs that stay on the Gram matrix, as long as its rounding error stays small.

    A rounding error of a vanishing eigenvalue of G grows by a^2 a step and bends P once it is no longer small: a run
    ends where it may have eaten half of the digits. With the published coefficients this allows runs of two steps in
    bfloat16 and four in float32. A nearly square matrix saves nothing and goes step by step.
    """
    if _square(x.shape):
        return [(step,) for step in schedule]
    chunks: list[tuple[Coefficients, ...]] = []
    eps = torch.finfo(x.dtype).eps
    error = float("inf")
    for step in schedule:
        if error > 2.5 * eps**0.5:
            chunks.append(())
            error = eps
        chunks[-1] += (step,)
        error *= step[0] ** 2
    return chunks


def _square(shape: torch.Size) -> bool:
    return max(shape[-2:]) < 1.5 * min(shape[-2:])


def _normalise(matrix: Tensor, eps: float, out: Tensor) -> Tensor:
    """Write each matrix divided by max(its Frobenius norm, eps) into `out`.

    It is first scaled by a power of two, which is exact, so that no square overflows or vanishes.
    """
    largest = torch.maximum(matrix.amax((-2, -1), keepdim=True), matrix.amin((-2, -1), keepdim=True).neg_())
    largest = largest.to(torch.promote_types(matrix.dtype, torch.float32))
    limit = frexp(torch.finfo(matrix.dtype).max)[1] - 2
    exponent = torch.frexp(largest).exponent.clamp_(-limit, limit)
    torch.mul(matrix, torch.ldexp(torch.ones_like(largest), -exponent).to(matrix.dtype), out=out)
    norm = torch.linalg.vector_norm(out, dim=(-2, -1), keepdim=True).to(largest.dtype)
    floor = torch.ldexp(torch.full_like(largest, eps), -exponent)
    return out.mul_(torch.where(norm == 0, 1, torch.maximum(norm, floor)).reciprocal_().to(out.dtype))


def _schedule(steps: int, coefficients: Coefficients | tuple[Coefficients, ...]) -> tuple[Coefficients, ...]:
    if steps < 1:
        raise ValueError(f"newton_schulz: steps must be at least 1, got {steps}.")
    single = len(coefficients) == 3 and not isinstance(coefficients[0], tuple)
    schedule: tuple[Any, ...] = (coefficients,) * steps if single else coefficients
    if not schedule or any(not isinstance(step, tuple) or len(step) != 3 for step in schedule):
        raise ValueError(
            "newton_schulz: coefficients must be one triple (a, b, c) or a tuple of triples, one for each step, "
            f"got {coefficients!r}."
        )
    return schedule


def inverse_root(matrix: Tensor, order: int = 2, damping: float = 1e-6) -> Tensor:
    """(A + damping * largest eigenvalue * I)^(-1/order), through an eigen-decomposition in at least float32.

    Args:
        matrix: A `[*batch, n, n]`, symmetric positive semi-definite; only its symmetric part is used, and eigenvalues
            that rounding made negative count as zero.
        order: 2 whitens; 4 is Shampoo's for two factors (O9).
        damping: relative to the largest eigenvalue. With 0, directions that A does not have are left as they are.

    Returns:
        `[*batch, n, n]` in the dtype of `matrix`; the identity where A is zero.

    Raises:
        ValueError: for matrices that are not square, order below 1 or negative damping.
        torch.linalg.LinAlgError: when A holds NaN or infinity.
    """
    _require_square(matrix, "inverse_root")
    if order < 1:
        raise ValueError(f"inverse_root: order must be a positive integer, got {order}.")
    a, scale = _unit_scale(matrix, damping, "inverse_root")
    values, vectors = decomposed(a)
    values = values.clamp(min=0)
    values = values + damping * values[..., -1:]
    values = torch.where(values > 0, values, torch.ones_like(values))
    root: Tensor = (vectors * values.pow(-1.0 / order).unsqueeze(-2)) @ vectors.mT
    return (root * scale.pow(-1.0 / order)).to(matrix.dtype)


def symmetric_power(matrix: Tensor, power: float, damping: float = 0.1) -> Tensor:
    """(A + damping * mean diagonal * I)^power, through an eigen-decomposition in at least float32 (O20).

    Args:
        matrix: A `[*batch, n, n]`, symmetric positive semi-definite; only its symmetric part is used, and eigenvalues
            that rounding made negative count as zero.
        power: -1/2 whitens, -1/4 half-way.
        damping: relative to the mean of the diagonal. With 0, directions that A does not have are left as they are.

    Returns:
        `[*batch, n, n]` in the dtype of `matrix`; the identity where A is zero.

    Raises:
        ValueError: for matrices that are not square or negative damping.
        torch.linalg.LinAlgError: when A holds NaN or infinity.
    """
    _require_square(matrix, "symmetric_power")
    a, scale = _unit_scale(matrix, damping, "symmetric_power")
    empty = (a == 0).all(-1).all(-1)[..., None]
    values, vectors = decomposed(a)
    values = values.clamp(min=0) + damping
    values = torch.where((values > 0) & ~empty, values, torch.ones_like(values))
    root: Tensor = (vectors * values.pow(power).unsqueeze(-2)) @ vectors.mT
    return (root * scale.pow(power)).to(matrix.dtype)


def cholesky_whitener(matrix: Tensor, damping: float = 1e-3) -> Tensor:
    """Lower triangular Z with Z (A + damping * mean diagonal * I) Z^T = I: the inverse of the Cholesky factor (O15).

    Args:
        matrix: A `[*batch, n, n]`, symmetric positive semi-definite; computed in at least float32.
        damping: relative to the mean of the diagonal; it must exceed the rounding error of A when A has no full rank.

    Returns:
        `[*batch, n, n]` in the dtype of `matrix`; the identity where A is zero.

    Raises:
        ValueError: for matrices that are not square, negative damping, or, on a CPU, a matrix that is not positive
            definite after damping (NaN included). An accelerator is not waited for: its answer is NaN there.
    """
    _require_square(matrix, "cholesky_whitener")
    a, scale = _unit_scale(matrix, damping, "cholesky_whitener")
    identity = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
    empty = (a == 0).all(-1).all(-1)[..., None, None]
    a = a + torch.where(empty, torch.ones_like(a[..., :1, :1]), torch.full_like(a[..., :1, :1], damping)) * identity
    try:
        factor = _cholesky(a)
    except torch.linalg.LinAlgError as error:
        raise ValueError(
            f"cholesky_whitener: expected a positive semi-definite matrix, but A + {damping} * mean diagonal * I "
            "is not positive definite; raise damping or pass a matrix without negative eigenvalues or NaN."
        ) from error
    inverse: Tensor = torch.linalg.solve_triangular(factor, identity.expand_as(a), upper=False)
    return (inverse / scale.sqrt()).to(matrix.dtype)


def _cholesky(matrix: Tensor) -> Tensor:
    """The Cholesky factor; where there is none an error on a CPU, and NaN on an accelerator, which it does not ask."""
    factor: Tensor
    if matrix.device.type == "cpu":
        factor = torch.linalg.cholesky(matrix)
        return factor
    factor, failed = torch.linalg.cholesky_ex(matrix)
    return factor.masked_fill((failed != 0)[..., None, None], float("nan"))


def orthogonality_error(matrix: Tensor) -> Tensor:
    """||G - I||_F / sqrt(k) `[*batch]`, G the Gram matrix of the shorter side k of `matrix` `[*batch, n, m]`.

    0 for orthonormal rows (or columns), 1 for a zero matrix; the root mean square of s^2 - 1 over singular values s.
    """
    _require_matrix(matrix, "orthogonality_error")
    x = matrix.to(torch.promote_types(matrix.dtype, torch.float32))
    gram = x.mT @ x if x.shape[-2] > x.shape[-1] else x @ x.mT
    identity = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    error: Tensor = torch.linalg.matrix_norm(gram - identity) / max(gram.shape[-1], 1) ** 0.5
    return error


def _unit_scale(matrix: Tensor, damping: float, name: str) -> tuple[Tensor, Tensor]:
    """The symmetric part of A over its mean diagonal, and that mean `[*batch, 1, 1]`, or 1 where it is not positive.

    A mean that is no normal number stands for nothing: rounding has made another matrix of such an A.
    """
    if damping < 0:
        raise ValueError(f"{name}: damping must not be negative, got {damping}.")
    a = matrix.to(torch.promote_types(matrix.dtype, torch.float32))
    scale = a.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    gone = (scale >= 0) & (scale < torch.finfo(a.dtype).tiny)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    a, scale = a / scale.masked_fill(gone, inf), scale.masked_fill(gone, 1.0)
    return 0.5 * (a + a.mT), scale


def _require_matrix(matrix: Tensor, name: str) -> None:
    if matrix.ndim < 2 or not matrix.is_floating_point():
        raise ValueError(
            f"{name}: expected a real floating-point tensor [*batch, n, m], got shape {tuple(matrix.shape)} "
            f"and dtype {matrix.dtype}."
        )


def _require_square(matrix: Tensor, name: str) -> None:
    _require_matrix(matrix, name)
    if matrix.shape[-1] != matrix.shape[-2]:
        raise ValueError(f"{name}: expected square matrices [*batch, n, n], got shape {tuple(matrix.shape)}.")
