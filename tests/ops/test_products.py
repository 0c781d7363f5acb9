"""Products in a chosen precision, and Gram matrices."""

import pytest
import torch

from nestlearn.ops import gram, product
from nestlearn.precision import products


@pytest.mark.parametrize("shape", [(3, 4), (2, 5, 3), (2, 3, 4, 6), (700, 40), (0, 3), (3, 0)])
def test_a_gram_matrix_is_the_product_with_the_transpose(shape):
    rows = torch.randn(shape, dtype=torch.float64)
    torch.testing.assert_close(gram(rows), rows @ rows.mT, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gram(rows.mT), rows.mT @ rows, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_have_the_dtype_of_their_factors_and_the_digits_that_were_chosen(dtype):
    left, right = torch.randn(5, 6), torch.randn(6, 4)
    with products(dtype):
        found, square = product(left, right), gram(left)
    assert found.dtype == square.dtype == torch.float32
    assert torch.equal(found, (left.to(dtype) @ right.to(dtype)).float())
    torch.testing.assert_close(square, (left.to(dtype) @ left.to(dtype).mT).float())


def test_doubles_are_never_rounded():
    left, right = torch.randn(5, 6, dtype=torch.float64), torch.randn(6, 4, dtype=torch.float64)
    with products(torch.bfloat16):
        assert torch.equal(product(left, right), left @ right)
