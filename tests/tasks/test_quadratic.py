"""The quadratic against its closed form: Hessian, spectrum, gradient, and the path of gradient descent."""

import pytest
import torch

from nestlearn.tasks import QuadraticTask

TASK = QuadraticTask(n=12, rows=5, condition=100.0, dtype=torch.float64)


def test_the_hessian_is_rotated_and_has_the_condition_asked_for():
    hessians = [(model := TASK.build(seed)).inputs.T @ model.inputs for seed in (0, 1)]
    for hessian in hessians:
        values = torch.linalg.eigvalsh(hessian)
        torch.testing.assert_close(values.log10(), torch.linspace(-2, 0, 12, dtype=torch.float64))
        assert (hessian - hessian.diag().diag()).abs().max() > 0.01
    assert not torch.allclose(*hessians)


def lowest(model: torch.nn.Module) -> torch.Tensor:
    """W*, by solving for it."""
    return torch.linalg.solve(model.inputs, model.answers).T


def test_loss_and_gradient_are_the_closed_form():
    model = TASK.build(3)
    weight, hessian = model.layer.weight, model.inputs.T @ model.inputs
    with torch.no_grad():
        weight.normal_()
    loss = TASK.loss(model, ())
    loss.backward()
    error = weight.detach() - lowest(model)
    assert loss.item() == pytest.approx(0.5 * torch.trace(error @ hessian @ error.T).item(), rel=1e-10)
    torch.testing.assert_close(weight.grad, error @ hessian, rtol=1e-10, atol=1e-10)
    assert TASK.evaluate(model, "test") == {"loss": pytest.approx(loss.item())}


def test_gradient_descent_shrinks_each_eigendirection_by_its_own_factor():
    model = TASK.build(0)
    hessian, start = model.inputs.T @ model.inputs, -lowest(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.7)
    for _ in range(10):
        optimizer.zero_grad()
        TASK.loss(model, ()).backward()
        optimizer.step()
    values, basis = torch.linalg.eigh(hessian)
    found = model.layer.weight.detach() - lowest(model)
    torch.testing.assert_close(found @ basis, (start @ basis) * (1 - 0.7 * values) ** 10)


def test_the_start_is_zero_and_the_lowest_point_is_not():
    model = TASK.build(1)
    assert not model.layer.weight.any()
    assert lowest(model).square().mean().item() == pytest.approx(1.0, abs=0.5)
