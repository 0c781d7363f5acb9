"""The secant memory: exact where curvature is known, its control without rho, and a loop by hand (O19)."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import nestlearn as nl

OUT, IN = 4, 6


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def orthogonalised(matrix: Tensor) -> Tensor:
    """Newton-Schulz on singular values, in the units of scale="rms"."""
    left, values, right = torch.linalg.svd(matrix / matrix.norm(), full_matrices=False)
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return 0.2 * math.sqrt(max(matrix.shape)) * left @ torch.diag(values) @ right


def positive(size: int) -> Tensor:
    root = draw(size, size)
    return root @ root.T + 0.1 * torch.eye(size).double()


class Observed(nl.optim.SecantMomentum):
    """A secant memory that is told the true A and B instead of estimates from batches."""

    factors: tuple[Tensor, Tensor]

    def observe(self, loss: Any) -> dict[str, dict[Tensor, Tensor]]:
        inputs, errors = self.factors
        weights = [weight for group in self.param_groups for weight in group["params"]]
        return {"inputs": dict.fromkeys(weights, inputs), "errors": dict.fromkeys(weights, errors)}


def kronecker_problem() -> tuple[nn.Linear, Tensor, Tensor]:
    """A loss whose Hessian is B (x) A, so that its gradient is B W A."""
    return nn.Linear(IN, OUT, bias=False).double(), positive(IN), positive(OUT)


def test_with_true_factors_the_gradient_at_the_present_weights_is_recovered() -> None:
    """The change of the gradient is B (W - w) A: one known coefficient away from the key.

    A memory that keeps nothing but the last pair finds it exactly, and with rho = 1 the old average, carried to the
    present weights, is the present gradient: every step is Newton-Schulz of the plain gradient, whatever the momentum.
    """
    layer, a, b = kronecker_problem()
    lr, retention = 0.02, 0.9
    optimizer = Observed(
        layer.parameters(), lr=lr, model=layer, retention=retention, rho=1.0, keys="kronecker",
        memory_retention=0.0, ridge=0.0,
    )  # fmt: skip
    optimizer.factors = (a, b)
    seen: list[Tensor] = []
    for step in range(15):
        before = layer.weight.detach().clone()
        gradient = b @ before @ a
        layer.weight.grad = gradient.clone()
        optimizer.step()
        expected = before - lr * orthogonalised(gradient)
        torch.testing.assert_close(layer.weight.detach(), expected, rtol=1e-7, atol=1e-9)
        if step:
            shares = retention ** torch.arange(step - 1, -1, -1, dtype=torch.float64)
            past = torch.einsum("t,tij->ij", shares / shares.sum(), torch.stack(seen))
            moved = before - past
            known = (b @ moved @ a).norm() / moved.norm()
            found = optimizer.state[layer.weight]["secant.model.weight"].squeeze()
            torch.testing.assert_close(found, known, rtol=1e-8, atol=0.0)
        seen.append(before)


def test_without_the_right_key_the_gradient_is_not_recovered() -> None:
    """The control of the test above: D alone cannot know how B and A stretch it."""
    layer, a, b = kronecker_problem()
    optimizer = Observed(
        layer.parameters(), lr=0.02, model=layer, retention=0.9, rho=1.0, keys="displacement",
        memory_retention=0.0, ridge=0.0,
    )  # fmt: skip
    optimizer.factors = (a, b)
    for step in range(6):
        before = layer.weight.detach().clone()
        gradient = b @ before @ a
        layer.weight.grad = gradient.clone()
        optimizer.step()
        exact = torch.allclose(layer.weight.detach(), before - 0.02 * orthogonalised(gradient), rtol=1e-3)
        assert exact == (step == 0)


def trained(steps: int = 15, watch: bool = False, **settings: Any) -> Tensor:
    torch.manual_seed(5)
    module = nn.Sequential(nn.Linear(IN, 5), nn.Tanh(), nn.Linear(5, OUT)).double()
    optimizer = nl.optim.SecantMomentum(
        module.parameters(), lr=0.02, model=module if watch else None, retention=0.9, **settings
    )
    for _ in range(steps):
        optimizer.zero_grad()
        module(draw(8, IN)).cosh().mean().backward()
        optimizer.step()
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("watch", [False, True], ids=["own gradients", "model="])
def test_with_rho_zero_it_is_its_control(watch: bool, nesterov: bool) -> None:
    control = trained(watch=watch, nesterov=nesterov, memory=False)
    torch.testing.assert_close(trained(watch=watch, nesterov=nesterov, rho=0.0), control, rtol=1e-11, atol=1e-11)
    assert not torch.allclose(trained(watch=watch, nesterov=nesterov), control, rtol=1e-3)


def averaged(values: list[Tensor], retention: float) -> Tensor:
    shares = retention ** torch.arange(len(values) - 1, -1, -1, dtype=torch.float64)
    return torch.einsum("t,tij->ij", shares / shares.sum(), torch.stack(values))


def kept(values: list[Tensor], retention: float) -> Tensor:
    """An exponential average that starts at zero, without correction; only its direction matters here."""
    found = torch.zeros_like(values[0])
    for value in values:
        found = retention * found + (1 - retention) * value / value.diagonal().mean()
    return found


KEYS = {
    "displacement": [(False, False)],
    "kronecker": [(True, True)],
    "all": [(False, False), (False, True), (True, False), (True, True)],
}


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("keys", KEYS)
def test_it_is_its_equations(keys: str, nesterov: bool) -> None:
    """Twenty steps without model=: A and B are averages of u^T u and u u^T; every pair is kept and solved for anew."""
    lr, retention, rho, discount, ridge = 0.03, 0.8, 0.7, 0.95, 1e-2
    weight = nn.Parameter(draw(OUT, IN))
    optimizer = nl.optim.SecantMomentum(
        [weight], lr=lr, retention=retention, rho=rho, keys=keys, memory_retention=discount, ridge=ridge,
        covariance_retention=0.9, nesterov=nesterov,
    )  # fmt: skip
    a, b = positive(IN), positive(OUT)
    point, points, gradients, pairs = weight.detach().clone(), [], [], []
    for _ in range(20):
        u = b @ point @ a + 0.1 * torch.sinh(point)
        inputs = kept([g.T @ g for g in [*gradients, u]], 0.9)
        errors = kept([g @ g.T for g in [*gradients, u]], 0.9)
        present = averaged([*gradients, u], retention)
        answer = present
        if gradients:
            m, moved = averaged(gradients, retention), point - averaged(points, retention)
            found = [
                (errors if left else torch.eye(OUT).double()) @ moved @ (inputs if right else torch.eye(IN).double())
                for left, right in KEYS[keys]
            ]
            key = torch.stack([(k * moved.norm() / k.norm()).flatten() for k in found], 1)
            size = max(u.norm(), m.norm())
            pairs.append((key / size, (u - m).flatten() / size))
            shares = [discount ** (len(pairs) - 1 - place) for place in range(len(pairs))]
            gram = sum(share * k.T @ k for share, (k, _) in zip(shares, pairs, strict=True))
            moment = sum(share * k.T @ v for share, (k, v) in zip(shares, pairs, strict=True))
            damped = gram + ridge * gram.diagonal().mean() * torch.eye(len(found)).double()
            coefficients = torch.linalg.solve(damped, moment)
            # The average that includes the present lies nearer to it: by this share of the way it is carried less.
            share = (present - u).flatten() @ (m - u).flatten() / (m - u).square().sum()
            answer = present + rho * share * (key @ coefficients).view(OUT, IN)
        if nesterov:
            answer = retention * answer + (1 - retention) * u
        points.append(point)
        gradients.append(u)
        point = point - lr * orthogonalised(answer)
        weight.grad = u.clone()
        optimizer.step()
        torch.testing.assert_close(weight.detach(), point, rtol=1e-7, atol=1e-8)


def test_the_first_step_has_nothing_to_compare_with() -> None:
    torch.testing.assert_close(trained(steps=1), trained(steps=1, memory=False))


def test_an_unknown_key_is_met_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"unknown keys 'kroneker'.*Did you mean 'kronecker'"):
        nl.optim.SecantMomentum([nn.Parameter(draw(3, 3))], keys="kroneker")


def test_gradients_that_vanish_move_nothing_and_break_nothing() -> None:
    weight = nn.Parameter(draw(OUT, IN))
    optimizer = nl.optim.SecantMomentum([weight], lr=0.1)
    start = weight.detach().clone()
    for gradient in [torch.zeros(OUT, IN).double()] * 3:
        weight.grad = gradient
        optimizer.step()
    assert torch.equal(weight.detach(), start)
    weight.grad = draw(OUT, IN)
    optimizer.step()
    assert torch.isfinite(weight).all()
    assert not torch.equal(weight.detach(), start)


def test_a_zero_gradient_before_any_other_teaches_nothing() -> None:
    weight = nn.Parameter(torch.ones(3, 2, dtype=torch.float64))
    optimizer = nl.optim.SecantMomentum([weight], lr=0.1)
    for gradient in (torch.zeros(3, 2), torch.zeros(3, 2), torch.ones(3, 2)):
        weight.grad = gradient.double()
        optimizer.step()
    assert weight.isfinite().all() and all(leaf.isfinite().all() for leaf in optimizer.state[weight].values())
