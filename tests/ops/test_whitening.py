"""Newton-Schulz, inverse roots and whitening against the singular value and eigenvalue decompositions in float64."""

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from nestlearn.device import meta_stands_for
from nestlearn.ops.whitening import (
    FOUR_STEP_COEFFICIENTS,
    MUON_COEFFICIENTS,
    cholesky_whitener,
    inverse_root,
    newton_schulz,
    orthogonality_error,
    symmetric_power,
)

SHAPES = [(6, 6), (5, 9), (9, 5), (4, 30), (30, 4), (1, 7), (7, 1), (1, 1)]


def with_singular_values(values: Tensor, n: int, m: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """U diag(values) V^T `[n, m]` with random orthonormal U `[n, k]`, V `[m, k]`, and both of them."""
    generator = torch.Generator().manual_seed(seed)
    u = torch.linalg.qr(torch.randn(n, len(values), generator=generator, dtype=torch.float64))[0]
    v = torch.linalg.qr(torch.randn(m, len(values), generator=generator, dtype=torch.float64))[0]
    return (u * values) @ v.mT, u, v


def scalar_steps(values: Tensor, coefficients: tuple[tuple[float, float, float], ...]) -> Tensor:
    """What the iteration does to singular values, one by one."""
    for a, b, c in coefficients:
        values = a * values + b * values**3 + c * values**5
    return values


def by_svd(matrix: Tensor, coefficients: tuple[tuple[float, float, float], ...]) -> Tensor:
    u, s, vh = torch.linalg.svd(matrix.double(), full_matrices=False)
    s = s / torch.linalg.vector_norm(s, dim=-1, keepdim=True).clamp(min=1e-7)
    return (u * scalar_steps(s, coefficients).unsqueeze(-2)) @ vh


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def covariance(*batch: int, n: int = 6, rows: int = 20, seed: int = 0) -> Tensor:
    x = random(*batch, rows, n, seed=seed)
    return x.mT @ x


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("coefficients", [(MUON_COEFFICIENTS,) * 5, FOUR_STEP_COEFFICIENTS])
def test_newton_schulz_equals_the_polynomial_of_the_singular_values(shape, coefficients):
    matrix = random(3, *shape)
    torch.testing.assert_close(
        newton_schulz(matrix, coefficients=coefficients), by_svd(matrix, coefficients), rtol=1e-10, atol=1e-10
    )


@pytest.mark.parametrize("shape", [(5, 9), (3, 9, 5), (600, 600), (2, 600, 520), (520, 1200)], ids=str)
@pytest.mark.slow
def test_on_meta_newton_schulz_takes_the_products_of_the_device_that_it_stands_for(shape: tuple[int, ...]) -> None:
    def flops(device: str, dtype: torch.dtype) -> int:
        with FlopCounterMode(display=False) as counter:
            newton_schulz(torch.zeros(shape, device=device), dtype=dtype)
        return counter.get_total_flops()

    for dtype in (torch.float32, torch.bfloat16):
        with meta_stands_for("cpu"):
            assert flops("meta", dtype) == flops("cpu", dtype)


@pytest.mark.parametrize("steps", [1, 2, 3, 7])
def test_newton_schulz_runs_the_steps_asked_for(steps):
    for shape in [(5, 6), (4, 12)]:
        matrix = random(*shape)
        expected = by_svd(matrix, (MUON_COEFFICIENTS,) * steps)
        torch.testing.assert_close(newton_schulz(matrix, steps), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shape", [(512, 512), (530, 700), (530, 1100), (1100, 530)])
@pytest.mark.slow
def test_blocked_symmetric_products_equal_the_polynomial(shape):
    """Shapes beyond the block size, where the last block is ragged."""
    matrix = random(*shape)
    expected = by_svd(matrix, (MUON_COEFFICIENTS,) * 5)
    torch.testing.assert_close(newton_schulz(matrix), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("dtype", "compute", "tolerance"),
    [(torch.float32, torch.float32, 5e-5), (torch.float32, torch.bfloat16, 0.1), (torch.bfloat16, torch.float32, 1e-2)],
)
@pytest.mark.parametrize("shape", [(64, 64), (64, 200), (200, 64)])
def test_newton_schulz_accuracy_in_low_precision(dtype, compute, tolerance, shape):
    matrix = with_singular_values(torch.logspace(0, -3, 64, dtype=torch.float64), *shape)[0].to(dtype)
    result = newton_schulz(matrix, dtype=compute)
    expected = by_svd(matrix, (MUON_COEFFICIENTS,) * 5)
    assert result.dtype == dtype
    assert torch.linalg.matrix_norm(result.double() - expected) < tolerance * torch.linalg.matrix_norm(expected)


def test_float32_stays_accurate_where_one_direction_dominates():
    """A Gram matrix squares the condition: rounding must not swamp the small singular values."""
    values = torch.full((32,), 1e-3, dtype=torch.float64)
    values[0] = 1
    matrix, u, v = with_singular_values(values, 32, 128)
    result = u.mT @ newton_schulz(matrix.float(), dtype=torch.float32).double() @ v
    expected = scalar_steps(values / values.norm(), (MUON_COEFFICIENTS,) * 5)
    torch.testing.assert_close(result.diagonal(), expected, rtol=1e-3, atol=1e-4)
    assert (result - result.diagonal().diag()).abs().max() < 1e-3


def test_bfloat16_keeps_singular_values_of_a_spiked_matrix_bounded():
    for shape in [(64, 64), (64, 256)]:
        for rest in (1e-1, 1e-2, 1e-3, 1e-4, 0.0):
            values = torch.full((64,), rest, dtype=torch.float64)
            values[0] = 1
            result = newton_schulz(with_singular_values(values, *shape)[0].float(), dtype=torch.bfloat16)
            assert torch.linalg.svdvals(result.double()).max() < 1.3


def test_the_bands_that_the_docstrings_promise():
    values = torch.logspace(0, -5, 200_001, dtype=torch.float64)
    five = scalar_steps(values, (MUON_COEFFICIENTS,) * 5)
    assert five[values > 0.0016].min() > 0.68
    assert five.max() < 1.21
    four = scalar_steps(values, FOUR_STEP_COEFFICIENTS)
    assert four[values > 0.0025].min() > 0.69
    assert four.max() < 1.21
    slack = scalar_steps(torch.linspace(1, 1.02, 100, dtype=torch.float64), FOUR_STEP_COEFFICIENTS)
    assert slack.min() > 0.69
    assert slack.max() < 1.21


# The last runs in groups of 4 and 1.
LARGE = [pytest.param(shape, marks=pytest.mark.slow) for shape in ((3, 512, 512), (5, 300, 400))]


@pytest.mark.parametrize("shape", [(2, 2, 6, 6), (2, 2, 4, 9), *LARGE], ids=str)
def test_a_batch_equals_its_matrices_one_by_one(shape):
    batch = random(*shape)
    single = torch.stack([newton_schulz(matrix) for matrix in batch.flatten(0, -3)]).reshape(batch.shape)
    torch.testing.assert_close(newton_schulz(batch), single, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(5, 6), (4, 9), pytest.param((520, 900), marks=pytest.mark.slow)], ids=str)
def test_tall_is_wide_transposed(shape):
    wide = random(2, *shape)
    torch.testing.assert_close(newton_schulz(wide.mT), newton_schulz(wide).mT, rtol=1e-10, atol=1e-10)


def test_strided_and_transposed_inputs_are_read_right_and_left_alone():
    matrix = random(3, 8, 12)[:, ::2, 1::3]
    before = matrix.clone()
    torch.testing.assert_close(newton_schulz(matrix), newton_schulz(matrix.contiguous()), rtol=0, atol=0)
    assert torch.equal(matrix, before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("compute", [None, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("coefficients", [MUON_COEFFICIENTS, FOUR_STEP_COEFFICIENTS])
def test_zero_goes_to_zero(dtype, compute, coefficients):
    batch = random(2, 4, 6, dtype=dtype)
    batch[0] = 0
    for eps in (1e-7, 0.0):
        result = newton_schulz(batch, coefficients=coefficients, eps=eps, dtype=compute)
        assert torch.equal(result[0], torch.zeros_like(batch[0]))
        assert torch.isfinite(result).all()
        assert result[1].abs().max() > 0.1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("compute", [None, torch.float16])
def test_scale_does_not_matter_without_eps(dtype, compute):
    matrix = random(4, 6, dtype=dtype)
    expected = newton_schulz(matrix, eps=0.0, dtype=compute)
    for exponent in (66, -66, 120, -120):  # powers of two are exact: 1e20, 1e-20 and near the ends of float32
        scaled = matrix * 2.0**exponent
        torch.testing.assert_close(newton_schulz(scaled, eps=0.0, dtype=compute), expected, rtol=1e-2, atol=1e-3)


def test_eps_is_a_floor_of_the_frobenius_norm():
    matrix = 1e-9 * torch.nn.functional.normalize(random(4, 6), dim=(0, 1))
    torch.testing.assert_close(newton_schulz(matrix), by_svd(matrix, (MUON_COEFFICIENTS,) * 5), rtol=1e-9, atol=1e-12)
    assert torch.linalg.svdvals(newton_schulz(1e-20 * random(4, 6))).max() < 1e-9


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nonfinite_input_spoils_its_own_matrix_only(value):
    batch = random(2, 4, 6)
    clean = newton_schulz(batch)[1]
    batch[0, 1, 2] = value
    result = newton_schulz(batch)
    assert torch.isnan(result[0]).all()
    torch.testing.assert_close(result[1], clean)


def test_newton_schulz_on_empty_stacks():
    assert newton_schulz(torch.zeros(0, 3, 4)).shape == (0, 3, 4)
    assert newton_schulz(torch.zeros(2, 0, 4)).shape == (2, 0, 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: newton_schulz(torch.zeros(3)), "expected a real floating-point tensor"),
        (lambda: newton_schulz(torch.zeros(3, 3, dtype=torch.complex64)), "expected a real floating-point tensor"),
        (lambda: newton_schulz(torch.zeros(3, 3), steps=0), "steps must be at least 1"),
        (lambda: newton_schulz(torch.zeros(3, 3), coefficients=(1.0, 2.0)), "must be one triple"),
        (lambda: newton_schulz(torch.zeros(3, 3), coefficients=()), "must be one triple"),
        (lambda: inverse_root(torch.zeros(3, 4)), "expected square matrices"),
        (lambda: inverse_root(torch.eye(3), order=0), "order must be a positive integer"),
        (lambda: inverse_root(torch.eye(3), damping=-1.0), "damping must not be negative"),
        (lambda: cholesky_whitener(torch.zeros(3, 4)), "expected square matrices"),
        (lambda: symmetric_power(torch.zeros(3, 4), -0.5), "expected square matrices"),
        (lambda: symmetric_power(torch.eye(3), -0.5, damping=-1.0), "damping must not be negative"),
        (lambda: cholesky_whitener(-torch.eye(3)), "raise damping"),
        (lambda: cholesky_whitener(torch.full((3, 3), float("nan"))), "without negative eigenvalues or NaN"),
        (lambda: orthogonality_error(torch.zeros(3)), "expected a real floating-point tensor"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_inverse_root_inverts(order):
    a = covariance(2, 3)
    root = inverse_root(a, order, damping=0.0)
    torch.testing.assert_close(torch.linalg.matrix_power(root, order) @ a, torch.eye(6).double().expand_as(a))
    torch.testing.assert_close(root, root.mT)


def test_damping_of_the_inverse_root_is_relative_to_the_largest_eigenvalue():
    a = covariance(2)
    values, vectors = torch.linalg.eigh(a)
    damped = (values + 0.1 * values[..., -1:]) ** -0.25
    torch.testing.assert_close(inverse_root(a, 4, damping=0.1), (vectors * damped.unsqueeze(-2)) @ vectors.mT)


def test_inverse_root_of_rank_one_and_zero():
    x = random(6, 1)
    root = inverse_root(x @ x.mT, 2, damping=1e-6)
    torch.testing.assert_close(root @ x, x / x.norm(), rtol=1e-5, atol=1e-5)
    assert torch.equal(inverse_root(torch.zeros(2, 3, 3)), torch.eye(3).expand(2, 3, 3))


@pytest.mark.parametrize("power", [-0.25, -0.5, 0.5])
def test_symmetric_powers_multiply_and_damping_is_relative_to_the_mean_diagonal(power):
    a = covariance(2, 3)
    mean = a.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    damped = a + 0.1 * mean * torch.eye(6).double()
    half = symmetric_power(a, power / 2, damping=0.1)
    torch.testing.assert_close(half @ half, symmetric_power(a, power, damping=0.1))
    torch.testing.assert_close(symmetric_power(a, -1.0, damping=0.1) @ damped, torch.eye(6).double().expand_as(a))


def test_a_symmetric_power_of_rank_one_and_zero():
    x = random(6, 1)
    root = symmetric_power(x @ x.mT, -0.5, damping=0.0)
    torch.testing.assert_close(root @ x, x / x.norm())
    assert torch.equal(symmetric_power(torch.zeros(2, 3, 3), -0.25), torch.eye(3).expand(2, 3, 3))


def test_whitener_whitens_and_is_triangular():
    a = covariance(2, 3)
    z = cholesky_whitener(a, damping=0.0)
    torch.testing.assert_close(z @ a @ z.mT, torch.eye(6).double().expand_as(a))
    assert torch.equal(z, z.tril())


def test_damping_of_the_whitener_is_relative_to_the_mean_diagonal():
    a = covariance(2)
    z = cholesky_whitener(a, damping=0.1)
    damped = a + 0.1 * a.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None] * torch.eye(6)
    torch.testing.assert_close(z @ damped @ z.mT, torch.eye(6).double().expand_as(a))


def test_whitener_of_rank_one_and_zero():
    x = random(6, 1, dtype=torch.float32)
    assert torch.isfinite(cholesky_whitener(x @ x.mT, damping=1e-3)).all()
    mixed = torch.stack([torch.zeros(6, 6), (x @ x.mT)])
    assert torch.equal(cholesky_whitener(mixed)[0], torch.eye(6))


def test_any_whitener_gives_the_same_update_after_orthogonalisation():
    """polar(M Z^T) Z is the same for Z = A^(-1/2) and the Cholesky inverse: they differ by a rotation (O15)."""
    a, m = covariance(), random(4, 6)
    updates = []
    for z in (inverse_root(a, 2, damping=0.0), cholesky_whitener(a, damping=0.0)):
        u, _, vh = torch.linalg.svd(m @ z.mT, full_matrices=False)
        updates.append(u @ vh @ z)
    torch.testing.assert_close(*updates)


@pytest.mark.parametrize("scale", [1e20, 1e-20])
def test_roots_and_whiteners_of_huge_and_tiny_matrices(scale):
    a = covariance(2).float()
    functions = (
        (lambda x: inverse_root(x, 4, damping=1e-3), -0.25),
        (lambda x: symmetric_power(x, -0.25), -0.25),
        (cholesky_whitener, -0.5),
    )
    for function, power in functions:
        torch.testing.assert_close(function(a * scale), function(a) * scale**power, rtol=1e-3, atol=1e-5 * scale**power)


@pytest.mark.parametrize("size", [1e-37, 1e-40, 1e-44])
def test_what_rounding_leaves_of_a_covariance_is_none(size):
    rows = torch.randn(20, 40, 40, generator=torch.Generator().manual_seed(0))
    covariances = rows @ rows.mT / 40 * size  # below 1e-38 digits are lost, and with them what makes it positive
    for root in (cholesky_whitener(covariances, 0.1), symmetric_power(covariances, -0.5, 0.1)):
        assert root.isfinite().all()
        if size < 1e-38:
            assert torch.equal(root, torch.eye(40).expand_as(root))


def test_roots_in_low_precision_return_the_dtype_of_the_input():
    a = covariance(2)
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.bfloat16, 3e-2)):
        for function in (inverse_root, cholesky_whitener, lambda a: symmetric_power(a, -0.5)):
            result = function(a.to(dtype))
            assert result.dtype == dtype
            torch.testing.assert_close(result.double(), function(a.to(dtype).double()), rtol=tolerance, atol=tolerance)


def test_orthogonality_error_is_the_root_mean_square_of_squared_singular_values_minus_one():
    for shape in [(4, 6), (6, 4)]:
        matrix = random(3, *shape)
        expected = (torch.linalg.svdvals(matrix) ** 2 - 1).square().mean(-1).sqrt()
        torch.testing.assert_close(orthogonality_error(matrix), expected)
    assert orthogonality_error(torch.zeros(3, 4)) == 1
    assert orthogonality_error(torch.linalg.qr(random(7, 3))[0]) < 1e-14
