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


def test_loss_and_gradient_are_the_closed_form():
    model = TASK.build(3)
    weight, hessian = model.layer.weight, model.inputs.T @ model.inputs
    loss = TASK.loss(model, ())
    loss.backward()
    with torch.no_grad():
        assert loss.item() == pytest.approx(0.5 * torch.trace(weight @ hessian @ weight.T).item(), rel=1e-12)
        torch.testing.assert_close(weight.grad, weight @ hessian, rtol=1e-12, atol=1e-12)
    assert TASK.evaluate(model, "test") == {"loss": pytest.approx(loss.item())}


def test_gradient_descent_shrinks_each_eigendirection_by_its_own_factor():
    model = TASK.build(0)
    hessian, start = model.inputs.T @ model.inputs, model.layer.weight.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.7)
    for _ in range(10):
        optimizer.zero_grad()
        TASK.loss(model, ()).backward()
        optimizer.step()
    values, basis = torch.linalg.eigh(hessian)
    torch.testing.assert_close(model.layer.weight @ basis, (start @ basis) * (1 - 0.7 * values) ** 10)
