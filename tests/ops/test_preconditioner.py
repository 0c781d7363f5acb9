"""The preconditioner memory against S^(-1/2) from the eigenvalue decomposition, in float64 unless it says otherwise."""

import pytest
import torch
from torch import Tensor

from nestlearn.ops.preconditioner import initial_preconditioner, preconditioner_step
from nestlearn.ops.whitening import inverse_root


def with_condition(condition: float, n: int = 12, seed: int = 0) -> Tensor:
    q = torch.linalg.qr(torch.randn(n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))[0]
    values = torch.logspace(0, -float(torch.log10(torch.tensor(condition, dtype=torch.float64))), n).double()
    s = (q * values) @ q.mT
    return 0.5 * (s + s.mT)


def iterate(s: Tensor, steps: int, literal: bool = False) -> Tensor:
    r = initial_preconditioner(s)
    for _ in range(steps):
        r = preconditioner_step(r, s, literal)
    return r


def distance(r: Tensor, s: Tensor) -> float:
    truth = inverse_root(s, 2, damping=0.0)
    return float(torch.linalg.matrix_norm(r - truth) / torch.linalg.matrix_norm(truth))


@pytest.mark.parametrize(("condition", "steps"), [(10, 10), (1e3, 20), (1e6, 40)])
def test_converges_to_the_inverse_root_and_stays(condition, steps):
    s = with_condition(condition)
    assert distance(iterate(s, steps), s) < 1e-14 * condition
    assert distance(iterate(s, steps + 100), s) < 1e-14 * condition


def test_the_literal_average_is_lost_again_above_condition_34():
    """Why the default rotates instead: an independent run of the recurrence, and both our forms."""
    mild, harsh = with_condition(20), with_condition(1e3)
    assert distance(iterate(mild, 100, literal=True), mild) < 1e-13
    assert distance(iterate(harsh, 100, literal=True), harsh) > 0.05
    r = initial_preconditioner(mild)
    for _ in range(4):
        a = r @ mild @ r
        r = r @ (1.875 * torch.eye(12).double() - 1.25 * a + 0.375 * a @ a)
        r = 0.5 * (r + r.mT)
    torch.testing.assert_close(iterate(mild, 4, literal=True), r)


def test_a_wrong_rotation_is_undone():
    s = with_condition(100)
    skew = torch.randn(12, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    r = torch.linalg.matrix_exp(0.2 * (skew - skew.mT)) @ inverse_root(s, 2, damping=0.0)
    assert distance(r, s) > 0.5
    for _ in range(300):
        r = preconditioner_step(r, s)
    assert distance(r, s) < 1e-10


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("condition", [10.0, 1e4])
def test_follows_a_momentum_that_changes(dtype, condition):
    """Keys are the rows of a momentum over noisy gradients; the read-out must stay close to its polar factor."""
    generator = torch.Generator().manual_seed(0)

    def draw() -> Tensor:
        return torch.randn(24, 12, generator=generator, dtype=torch.float64)

    shape = inverse_root(with_condition(condition), 2, damping=0.0)
    mean, momentum, r, cosines = draw() @ shape, torch.zeros(24, 12).double(), None, []
    for _ in range(150):
        momentum = 0.95 * momentum + 0.05 * (mean + 2 * draw() @ shape)
        k = (momentum / torch.linalg.matrix_norm(momentum)).to(dtype)
        s = k.mT @ k + 1e-9 * torch.eye(12, dtype=dtype)
        r = preconditioner_step(initial_preconditioner(s) if r is None else r, s)
        u, _, vh = torch.linalg.svd(k.double(), full_matrices=False)
        answer = (k @ r.mT).double()
        cosines.append(float((answer * (u @ vh)).sum() / answer.norm() / 12**0.5))
    assert min(cosines[40:]) > 0.99


def test_a_jump_of_the_scale_does_not_diverge():
    """A = R S R^T would start at 1e6, far outside the iteration's domain."""
    s = with_condition(30)
    r = iterate(s, 30)
    larger = 1e6 * s
    for _ in range(3):
        r = preconditioner_step(r, larger)
        assert torch.linalg.eigvalsh(r @ larger @ r.mT).max() < 1.7
    for _ in range(30):
        r = preconditioner_step(r, larger)
    assert distance(r, larger) < 1e-10


def test_a_batch_equals_its_matrices_one_by_one():
    s = torch.stack([with_condition(10), with_condition(1e3, seed=1), 1e4 * with_condition(5, seed=2)])
    batch = iterate(s, 7)
    for one, own in zip(s, batch, strict=True):
        torch.testing.assert_close(iterate(one, 7), own, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("scale", [1e20, 1e-20, 0.0])
def test_huge_tiny_and_zero_matrices_stay_finite(scale):
    s = (scale * with_condition(10)).float()
    r = iterate(s, 30)
    assert torch.isfinite(r).all()
    if scale:
        torch.testing.assert_close((r @ s) @ r.mT, torch.eye(12), rtol=1e-4, atol=1e-4)
    else:
        assert torch.equal(initial_preconditioner(s), torch.eye(12))


def test_inputs_are_left_alone_and_shapes_are_checked():
    s = with_condition(10)
    r = initial_preconditioner(s)
    before = r.clone(), s.clone()
    preconditioner_step(r, s)
    assert torch.equal(r, before[0])
    assert torch.equal(s, before[1])
    with pytest.raises(ValueError, match=r"square matrices .* of one size, got R \(3, 3\) and S \(12, 12\)"):
        preconditioner_step(torch.eye(3), s)
