"""Curvature as it is measured: Hutchinson and Gauss-Newton-Bartlett estimates against exact diagonals."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import nestlearn as nl
from nestlearn.targets import GaussNewton, HessianDiagonal

OUT, IN = 2, 3


def quadratic() -> tuple[Tensor, nn.Parameter, Callable[[], Tensor]]:
    """Hessian [6, 6] with large off-diagonal entries and one negative diagonal entry, weights, loss."""
    root = torch.randn(OUT * IN, OUT * IN, dtype=torch.float64)
    hessian = root + root.T + torch.diag(torch.tensor([4.0, 3.0, 2.0, 2.0, 3.0, -6.0]).double())
    weight = nn.Parameter(torch.randn(OUT, IN, dtype=torch.float64))
    return hessian, weight, lambda: 0.5 * weight.flatten() @ hessian @ weight.flatten()


def stand_still(weight: nn.Parameter, target: HessianDiagonal, loss: Callable[[], Tensor], steps: int) -> Tensor:
    """What an optimizer that moves nothing has averaged after so many steps."""
    optimizer = nl.optim.PreconditionedMomentum([weight], lr=0.0, target=target)

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward(retain_graph=True)
        return value

    for _ in range(steps):
        optimizer.step(closure)
    (name,) = [name for name in optimizer.state[weight] if name.startswith("curvature")]
    return optimizer.state[weight][name] / (1 - target.retention**steps)


@pytest.mark.slow
def test_hutchinsons_average_approaches_the_diagonal_of_the_hessian() -> None:
    """E[z * H z] = diag(H); one draw is off by the off-diagonal entries, many are not."""
    hessian, weight, loss = quadratic()
    truth, steps = hessian.diagonal().view(OUT, IN), 1200
    found = stand_still(weight, HessianDiagonal(retention=1 - 1 / (10 * steps)), loss, steps)
    spread = (hessian.square().sum(1) - hessian.diagonal().square()).sqrt().view(OUT, IN)
    assert bool(((found - truth).abs() < 4 * spread / steps**0.5).all())  # four standard errors
    single = stand_still(weight, HessianDiagonal(retention=0.0), loss, 1)
    assert bool(((single - truth).abs() > 4 * spread / steps**0.5).any())


def test_draws_differ_between_steps_and_parameters() -> None:
    _, weight, loss = quadratic()
    other = nn.Parameter(weight.detach().clone())
    seen = [stand_still(weight, HessianDiagonal(retention=0.0), loss, steps) for steps in (1, 2, 3, 4)]
    assert len({tuple(estimate.flatten().tolist()) for estimate in seen}) > 1
    optimizer = nl.optim.PreconditionedMomentum([weight, other], lr=0.0, target=HessianDiagonal(retention=0.0))
    pairs = []
    for _ in range(6):

        def closure() -> Tensor:
            optimizer.zero_grad()
            value = loss() + 0.5 * (other.flatten() @ other.flatten()) ** 2
            value.backward(retain_graph=True)
            return value

        optimizer.step(closure)
        pairs.append([optimizer.state[p]["curvature.model.value"].clone() for p in (weight, other)])
    assert any(not torch.equal(one, two) for one, two in pairs)


def softmax_regression() -> tuple[nn.Parameter, Tensor, Callable[[], Tensor], Tensor]:
    inputs = torch.randn(8, IN, dtype=torch.float64)
    weight = nn.Parameter(torch.randn(OUT, IN, dtype=torch.float64))

    def sampled_loss() -> Tensor:
        logits = inputs @ weight.T
        labels = torch.multinomial(logits.detach().softmax(-1), 1)[:, 0]
        return nn.functional.cross_entropy(logits, labels)

    shares = (inputs @ weight.detach().T).softmax(-1)
    diagonal = torch.einsum("bo,bi->oi", shares * (1 - shares), inputs.square()) / len(inputs)
    return weight, inputs, sampled_loss, diagonal


@pytest.mark.slow
def test_gauss_newton_bartlett_approaches_the_diagonal_of_the_gauss_newton_matrix() -> None:
    """For softmax regression that diagonal is mean p (1 - p) x^2, and equals the Hessian's."""
    weight, inputs, sampled_loss, diagonal = softmax_regression()
    steps = 1500
    target = GaussNewton(retention=1 - 1 / (10 * steps), sampled_loss=sampled_loss, batch_size=len(inputs))
    labels = torch.randint(0, OUT, (len(inputs),))
    found = stand_still(weight, target, lambda: nn.functional.cross_entropy(inputs @ weight.T, labels), steps)
    torch.testing.assert_close(found, diagonal, rtol=0.15, atol=0.0)
    few = stand_still(weight, target, lambda: nn.functional.cross_entropy(inputs @ weight.T, labels), 2)
    assert not torch.allclose(few, diagonal, rtol=0.15, atol=0.0)


@pytest.mark.parametrize("period", [1, 3])
def test_curvature_is_measured_at_every_period_only(period: int) -> None:
    weight, inputs, sampled_loss, _ = softmax_regression()
    calls = []

    def counted() -> Tensor:
        calls.append(1)
        return sampled_loss()

    target = GaussNewton(sampled_loss=counted, batch_size=len(inputs))
    optimizer = nl.optim.PreconditionedMomentum([weight], lr=0.01, target=target, target_period=period)
    for _ in range(7):
        optimizer.zero_grad()
        sampled_loss().backward()
        optimizer.step()
    assert len(calls) == len(range(0, 7, period))


def test_newton_steps_on_a_diagonal_quadratic_solve_it_at_once() -> None:
    """H diagonal: Hutchinson is exact with one draw, and one step of length one lands in the minimum."""
    scales = torch.tensor([[1.0, 10.0, 100.0], [2.0, 20.0, 30.0]]).double()
    weight = nn.Parameter(torch.randn(OUT, IN, dtype=torch.float64))
    optimizer = nl.optim.PreconditionedMomentum([weight], lr=1.0, retention=0.0, target=HessianDiagonal(floor=0.0))

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = 0.5 * (scales * weight.square()).sum()
        loss.backward(retain_graph=True)
        return loss

    optimizer.step(closure)
    torch.testing.assert_close(weight.detach(), torch.zeros(OUT, IN).double(), rtol=0, atol=1e-12)
