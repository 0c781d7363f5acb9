"""Eigenvectors that are followed: orthogonal, ordered, and told apart where the covariance does not."""

import pytest
import torch
from torch import Tensor

from nestlearn.ops import eigenvectors, symmetric_power, turned


def covariance(values: list[float], seed: int = 0) -> tuple[Tensor, Tensor]:
    """(A, its eigenvectors in columns) for these eigenvalues."""
    size = len(values)
    noise = torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    vectors = torch.linalg.qr(noise)[0]
    return vectors @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ vectors.T, vectors


def test_columns_are_eigenvectors_the_largest_first():
    matrix, vectors = covariance([5.0, 3.0, 1.0, 0.2])
    agreement = (vectors.T @ eigenvectors(matrix)).abs()
    torch.testing.assert_close(agreement, torch.eye(4, dtype=torch.float64), atol=1e-4, rtol=0)


def test_iterations_follow_a_covariance_that_has_turned():
    basis = eigenvectors(covariance([5.0, 3.0, 1.0, 0.2], seed=1)[0])
    matrix, vectors = covariance([5.0, 3.0, 1.0, 0.2])
    for _ in range(60):
        basis = turned(basis, matrix)
        torch.testing.assert_close(basis.T @ basis, torch.eye(4, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close((vectors.T @ basis).abs(), torch.eye(4, dtype=torch.float64), atol=1e-4, rtol=0)


def test_what_has_not_been_seen_is_told_apart_by_the_diagonal_and_not_by_rounding():
    seen = torch.tensor([[1.0, 0.7, 0.5, 0.2]], dtype=torch.float64)
    matrix = seen.T @ seen
    rounding = 1e-15 * torch.randn(4, 4, dtype=torch.float64)
    basis, other = eigenvectors(matrix), eigenvectors(matrix + rounding + rounding.T)
    torch.testing.assert_close(basis.abs(), other.abs(), atol=1e-8, rtol=0)
    one, two = turned(basis, matrix), turned(basis, matrix + rounding + rounding.T)
    torch.testing.assert_close(one.abs(), two.abs(), atol=1e-8, rtol=0)
    order = [2, 0, 3, 1]
    torch.testing.assert_close(eigenvectors(matrix[order][:, order]).abs(), basis[order].abs(), atol=1e-8, rtol=0)
    torch.testing.assert_close(eigenvectors(torch.zeros(3, 3)).abs().sum(0), torch.ones(3))


def test_a_batch_is_each_of_its_matrices_and_sizes_do_not_matter():
    matrices = torch.stack([covariance([4.0, 2.0, 1.0], seed)[0] for seed in range(3)])
    found = eigenvectors(matrices)
    torch.testing.assert_close(found[1], eigenvectors(matrices[1]))
    torch.testing.assert_close(turned(found, matrices)[2], turned(found[2], matrices[2]))
    torch.testing.assert_close(turned(found[0], 1e-30 * matrices[0]), turned(found[0], matrices[0]))


def test_halves_are_computed_in_single_precision():
    matrix = covariance([5.0, 3.0, 1.0])[0]
    assert eigenvectors(matrix.bfloat16()).dtype == torch.bfloat16
    assert turned(torch.eye(3), matrix).dtype == torch.float32


@pytest.mark.parametrize("call", [lambda: eigenvectors(torch.ones(3, 2)), lambda: turned(torch.eye(2), torch.eye(3))])
def test_what_does_not_fit_is_refused(call):
    with pytest.raises(ValueError, match="expected"):
        call()


def test_a_decomposition_that_fails_in_single_precision_is_repeated_in_double(monkeypatch):
    eigh = torch.linalg.eigh

    def fails(matrix):
        if matrix.dtype == torch.float32:
            raise torch.linalg.LinAlgError("failed to converge")
        return eigh(matrix)

    matrix = covariance([5.0, 3.0, 1.0])[0].float()
    expected, root = eigenvectors(matrix), symmetric_power(matrix, -0.25)
    monkeypatch.setattr(torch.linalg, "eigh", fails)
    torch.testing.assert_close(eigenvectors(matrix).abs(), expected.abs(), atol=1e-4, rtol=0)
    torch.testing.assert_close(symmetric_power(matrix, -0.25), root)
    with pytest.raises(torch.linalg.LinAlgError):
        eigenvectors(torch.full((2, 2), float("nan")))
