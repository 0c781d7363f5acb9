"""Nested against the same written out, and against what it is made of (O20, O10)."""

import pytest
import torch
from torch import Tensor, nn

import nestlearn as nl
from nestlearn.ops import FOUR_STEP_COEFFICIENTS, newton_schulz
from nestlearn.rules import average, chain, orthogonal


def gradients(shape: tuple[int, ...], steps: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(steps)]


def mean_one(matrix: Tensor) -> Tensor:
    return matrix / matrix.diagonal().mean()


def whitener(matrix: Tensor, damping: float) -> Tensor:
    eye = torch.eye(len(matrix), dtype=matrix.dtype)
    return torch.linalg.inv(torch.linalg.cholesky(matrix + damping * matrix.diagonal().mean() * eye))


@pytest.mark.parametrize("shape", [(4, 4), (3, 6), (5, 2)])
def test_a_step_is_the_steepest_in_the_norm_of_two_covariances(shape):
    out, into = shape
    weight = torch.nn.Parameter(torch.ones(shape, dtype=torch.float64))
    by_hand = weight.detach().clone()
    optimizer = nl.optim.Nested(
        [weight], lr=0.1, retention=0.8, covariance_retention=0.9, damping=0.5, refresh=3, weight_decay=0.2
    )
    box, left, right = torch.zeros(shape), torch.zeros(out, out), torch.zeros(into, into)
    for time, gradient in enumerate(gradients(shape, 9)):
        weight.grad = gradient
        optimizer.step()
        box = 0.8 * box + 0.2 * gradient
        left = 0.9 * left + 0.1 * mean_one(gradient @ gradient.T)
        right = 0.9 * right + 0.1 * mean_one(gradient.T @ gradient)
        if time % 3 == 0:
            z_left, z_right = whitener(left, 0.5), whitener(right, 0.5)
        inside = z_left @ (0.2 * gradient + 0.8 * box) @ z_right.T
        answer = z_left.T @ newton_schulz(inside, coefficients=FOUR_STEP_COEFFICIENTS) @ z_right
        length = 0.2 * max(shape) ** 0.5 * min(shape) ** 0.5
        by_hand = (1 - 0.1 * 0.2) * by_hand - 0.1 * length * answer / answer.norm()
        torch.testing.assert_close(weight.detach(), by_hand, rtol=1e-9, atol=1e-10, msg=f"step {time + 1}")


def stepped(make) -> Tensor:
    weight = torch.nn.Parameter(torch.ones(4, 3, dtype=torch.float64))
    optimizer = make([weight])
    for gradient in gradients((4, 3), 6):
        weight.grad = gradient
        optimizer.step()
    return weight.detach()


def test_the_control_is_muon_with_the_same_read_out():
    control = stepped(lambda weights: nl.optim.Nested(weights, lr=0.1, memory=False))
    rule = chain(average(0.7, nesterov=True), orthogonal(4, coefficients="fitted"))
    assert torch.equal(control, stepped(lambda weights: nl.optim.Optimizer(weights, 0.1, matrix=rule)))


def test_covariances_that_are_not_trusted_change_nothing_but_the_length():
    """Without end, damping leaves a multiple of the identity: Muon, with exactly the length of an orthogonal matrix."""
    trusting_nothing = stepped(lambda weights: nl.optim.Nested(weights, lr=0.1, damping=1e5))
    rule = chain(average(0.7, nesterov=True), orthogonal(4, normed=True, coefficients="fitted"))
    muon = stepped(lambda weights: nl.optim.Optimizer(weights, 0.1, matrix=rule))
    torch.testing.assert_close(trusting_nothing, muon, rtol=1e-4, atol=1e-4)


def test_coefficients_are_fitted_to_four_steps():
    with pytest.raises(ValueError, match=r"fitted to steps=4, got 5"):
        orthogonal(coefficients="fitted")


@pytest.mark.parametrize("size", [1e-16, 1e-19, 3e-20, 1e-23, 0.0])
def test_gradients_whose_squares_are_lost_leave_the_covariances_alone(size: float) -> None:
    weight = nn.Parameter(torch.randn(40, 30))
    optimizer = nl.optim.Nested([weight], lr=0.1, refresh=1)
    for step in range(10):  # as where a network has its training set by heart
        weight.grad = torch.randn(40, 30) * torch.logspace(0, -3, 30) * (1.0 if step < 2 else size)
        optimizer.step()
    assert weight.isfinite().all()
    held = optimizer.state[weight]["inputs.model.value"]
    assert torch.linalg.eigvalsh(held)[0] > -1e-6 * held.diagonal().mean()
