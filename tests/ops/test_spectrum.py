"""Three numbers of a spectrum, against singular values and closed forms."""

import math

import pytest
import torch

from nestlearn.ops.spectrum import spectrum


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (4, 4)])
def test_they_are_those_of_the_singular_values(shape: tuple[int, int]) -> None:
    matrices = torch.randn(6, *shape, dtype=torch.float64)
    found = spectrum(matrices)
    for matrix, top, stable, effective in zip(matrices, *found, strict=True):
        values = torch.linalg.svdvals(matrix)
        shares = values**2 / (values**2).sum()
        assert top.item() == pytest.approx(values[0].item(), rel=1e-12)
        assert stable.item() == pytest.approx(((values**2).sum() / values[0] ** 2).item(), rel=1e-12)
        assert effective.item() == pytest.approx((-(shares * shares.log()).sum()).exp().item(), rel=1e-12)


def test_an_orthogonal_matrix_has_all_directions_and_a_product_of_vectors_one() -> None:
    turn = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))[0]
    one = torch.outer(torch.ones(4), torch.tensor([3.0, 0.0, 4.0, 0.0])).double()
    found = spectrum(torch.stack([2 * turn, one]))
    assert found.top.tolist() == pytest.approx([2.0, 10.0])
    assert found.stable.tolist() == pytest.approx([4.0, 1.0])
    assert found.effective.tolist() == pytest.approx([4.0, 1.0])


def test_a_matrix_of_zeros_has_no_rank_and_one_that_is_not_finite_no_number_while_others_keep_theirs() -> None:
    matrices = torch.eye(2).repeat(4, 1, 1)
    matrices[1] = 0
    matrices[2, 0, 1] = math.inf
    matrices[3, 1, 1] = math.nan
    top, stable, effective = spectrum(matrices)
    assert top[:2].tolist() == pytest.approx([1.0, 0.0]) and top[2:].isnan().all()
    for ranks in (stable, effective):
        assert ranks[0].item() == pytest.approx(2.0) and ranks[1:].isnan().all()


@pytest.mark.parametrize("scale", [1e-18, 1e15])
def test_squares_neither_vanish_nor_overflow_in_single_precision(scale: float) -> None:
    found = spectrum(scale * torch.diag(torch.tensor([2.0, 1.0])).unsqueeze(0))
    assert found.top.item() == pytest.approx(2 * scale) and found.stable.item() == pytest.approx(1.25)


def test_products_are_not_rounded_where_a_step_is_taken_under_autocast() -> None:
    matrices = torch.randn(2, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        under = spectrum(matrices)
    assert all(map(torch.equal, under, spectrum(matrices)))
