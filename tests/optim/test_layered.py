"""Optimizers that read what layers see: what is recorded, and the rules built on it (O12, O15)."""

from __future__ import annotations

import copy
import gc
import math
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import nestlearn as nl
from nestlearn.ops import cholesky_whitener, inverse_root

IN, OUT = 5, 3


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def linear() -> nn.Linear:
    return nn.Linear(IN, OUT, bias=False).double()


def sum_update(optimizer: torch.optim.Optimizer, weight: nn.Parameter, lr: float) -> Tensor:
    """The update of one step, with the gradients as they are."""
    before = weight.detach().clone()
    optimizer.step()
    return (before - weight.detach()) / lr


# ------------------------------------------------------------------------------------- delta gradient descent


@pytest.mark.parametrize("lr", [0.01, 1.0, 100.0])
def test_delta_gradient_descent_minimises_its_proximal_problem(lr: float) -> None:
    """O12 for one example: nothing else makes 1/2 ||W x + delta||^2 + 1/(2 lr) ||W - W_t||^2 stationary."""
    layer, x = linear(), draw(IN)
    optimizer = nl.optim.DeltaGradientDescent(layer.parameters(), lr=lr, model=layer)
    start = layer.weight.detach().clone()
    answer = layer(x[None])
    answer.retain_grad()
    answer.cosh().sum().backward()
    delta = answer.grad[0]
    optimizer.step()
    new = layer.weight.detach().clone().requires_grad_()
    problem = 0.5 * (new @ x + delta).square().sum() + (new - start).square().sum() / (2 * lr)
    (slope,) = torch.autograd.grad(problem, new)
    assert slope.abs().max() < 1e-9 * max(1.0, delta.norm().item() * x.norm().item() / lr)
    assert not torch.allclose(new, start - lr * torch.outer(delta, x))  # which plain gradient descent would be


def test_delta_gradient_descent_of_a_batch_uses_the_mean_covariance() -> None:
    layer, x, lr = linear(), draw(7, IN), 0.3
    optimizer = nl.optim.DeltaGradientDescent(layer.parameters(), lr=lr, model=layer)
    start = layer.weight.detach().clone()
    layer(x).cosh().mean(0).sum().backward()
    optimizer.step()
    covariance = x.T @ x / 7
    length = lr / (1 + lr * covariance.trace())
    expected = start @ (torch.eye(IN).double() - length * covariance) - length * layer.weight.grad
    torch.testing.assert_close(layer.weight.detach(), expected, rtol=1e-11, atol=1e-11)


CONVOLUTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "strided": {"stride": 2},
    "padded": {"padding": 1},
    "dilated": {"dilation": 2},
    "all": {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2)},
}


def unfolded(images: Tensor, layer: nn.Conv2d) -> Tensor:
    """Every patch [positions, in * kernel] that the convolution sees, cut out one by one."""
    (ph, pw), (sh, sw), (dh, dw), (kh, kw) = layer.padding, layer.stride, layer.dilation, layer.kernel_size  # type: ignore[misc]
    padded = nn.functional.pad(images, (pw, pw, ph, ph))  # type: ignore[list-item]
    patches = []
    for image in padded:
        for top in range(0, image.shape[1] - dh * (kh - 1), sh):  # type: ignore[operator]
            for left in range(0, image.shape[2] - dw * (kw - 1), sw):  # type: ignore[operator]
                rows = [top + dh * i for i in range(kh)]  # type: ignore[operator]
                columns = [left + dw * j for j in range(kw)]  # type: ignore[operator]
                patches.append(image[:, rows][:, :, columns].flatten())
    return torch.stack(patches)


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_a_convolution_is_the_linear_layer_that_its_patches_see(case: str) -> None:
    layer = nn.Conv2d(2, OUT, (2, 3), bias=False, **CONVOLUTIONS[case]).double()
    images, lr = draw(2, 2, 6, 7), 0.2
    patches = unfolded(images, layer)
    weight = layer.weight.detach().flatten(1).clone().requires_grad_()
    optimizer = nl.optim.DeltaGradientDescent(layer.parameters(), lr=lr, model=layer)
    output = layer(images)
    flat = patches @ weight.T
    torch.testing.assert_close(flat.T.reshape(OUT, 2, -1).transpose(0, 1).flatten(), output.detach().flatten())
    output.cosh().sum().backward()
    flat.cosh().sum().backward()
    torch.testing.assert_close(layer.weight.grad.flatten(1), weight.grad)
    optimizer.step()
    covariance = patches.T @ patches / len(patches)
    length = lr / (1 + lr * covariance.trace())
    expected = weight.detach() - length * (weight.grad + weight.detach() @ covariance)
    torch.testing.assert_close(layer.weight.detach().flatten(1), expected, rtol=1e-10, atol=1e-10)


# -------------------------------------------------------------------------------------------- layer momentum


def covariances(layer: nn.Linear, x: Tensor) -> tuple[Tensor, Tensor]:
    """A and B of one backward pass of sum(cosh(W x)), scaled to mean diagonal one."""
    delta = torch.sinh(x @ layer.weight.detach().T)
    found = []
    for rows in (x, delta):
        covariance = rows.T @ rows / len(rows)
        found.append(covariance / covariance.diagonal().mean())
    return found[0], found[1]


def test_with_identity_read_out_it_is_the_regression_of_error_signals_on_inputs() -> None:
    """O15 with nothing carried over: (sum delta x^T)(sum x x^T + damping)^-1, up to the scale of the covariance."""
    layer, x, damping = linear(), draw(20, IN), 0.05
    optimizer = nl.optim.LayerMomentum(
        layer.parameters(), lr=0.1, model=layer, sides="input", readout="identity", damping=damping,
        retention=0.0, covariance_retention=0.0, refresh=1,
    )  # fmt: skip
    delta = torch.sinh(layer(x).detach())
    layer(x).cosh().sum().backward()
    gram = x.T @ x
    size = gram.diagonal().mean()
    # As ridge regression: least squares with sqrt(damping) I below the inputs.
    tall = torch.cat([x, (damping * size).sqrt() * torch.eye(IN).double()])
    solution = torch.linalg.lstsq(tall, torch.cat([delta, torch.zeros(IN, OUT).double()])).solution.T
    torch.testing.assert_close(sum_update(optimizer, layer.weight, 0.1), size * solution, rtol=1e-9, atol=1e-9)


def test_momentum_and_covariance_are_averages_and_the_second_is_renewed_now_and_then() -> None:
    layer, damping, refresh = linear(), 0.1, 3
    optimizer = nl.optim.LayerMomentum(
        layer.parameters(), lr=0.01, model=layer, sides="input", readout="identity", damping=damping,
        retention=0.7, covariance_retention=0.8, refresh=refresh,
    )  # fmt: skip
    momentum, average = torch.zeros(OUT, IN).double(), torch.zeros(IN, IN).double()
    for step in range(8):
        x = draw(6, IN)
        optimizer.zero_grad()
        layer(x).cosh().sum().backward()
        momentum = 0.7 * momentum + 0.3 * layer.weight.grad
        if step % refresh == 0:
            average = 0.8 * average + 0.2 * covariances(layer, x)[0]
        damped = average + damping * average.diagonal().mean() * torch.eye(IN).double()
        expected = momentum @ torch.linalg.inv(damped)
        torch.testing.assert_close(sum_update(optimizer, layer.weight, 0.01), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sides", ["input", "both"])
def test_whitened_orthogonalised_and_turned_back(sides: str) -> None:
    """Z_B^T NS(Z_B M Z_A^T) Z_A by hand, Newton-Schulz on singular values, the length of an orthogonal matrix kept."""
    layer, damping = linear(), 0.1
    optimizer = nl.optim.LayerMomentum(
        layer.parameters(), lr=0.01, model=layer, sides=sides, damping=damping, retention=0.6,
        covariance_retention=0.8, refresh=2,
    )  # fmt: skip
    momentum = torch.zeros(OUT, IN).double()
    averages = [torch.zeros(IN, IN).double(), torch.zeros(OUT, OUT).double()]
    for step in range(6):
        x = draw(6, IN)
        optimizer.zero_grad()
        found = covariances(layer, x)
        layer(x).cosh().sum().backward()
        momentum = 0.6 * momentum + 0.4 * layer.weight.grad
        if step % 2 == 0:
            averages = [0.8 * average + 0.2 * new for average, new in zip(averages, found, strict=True)]
        z_a, z_b = (whitener(average, damping) for average in averages)
        z_b = z_b if sides == "both" else torch.eye(OUT).double()
        expected = z_b.T @ orthogonalised(z_b @ momentum @ z_a.T) @ z_a
        expected = 0.2 * math.sqrt(IN) * math.sqrt(OUT) * expected / expected.norm()
        torch.testing.assert_close(sum_update(optimizer, layer.weight, 0.01), expected, rtol=1e-8, atol=1e-8)
        state = optimizer.state[layer.weight]
        for name, average in zip(("inputs", "errors") if sides == "both" else ("inputs",), averages, strict=False):
            z, size = state[f"{name}.answer"], len(average)
            damped = average + damping * average.diagonal().mean() * torch.eye(size).double()
            torch.testing.assert_close(z @ damped @ z.T, torch.eye(size).double(), rtol=1e-10, atol=1e-10)


def whitener(covariance: Tensor, damping: float) -> Tensor:
    """The inverse of the Cholesky factor of the damped covariance."""
    eye = torch.eye(len(covariance)).double()
    return torch.linalg.inv(torch.linalg.cholesky(covariance + damping * covariance.diagonal().mean() * eye))


def orthogonalised(matrix: Tensor) -> Tensor:
    left, values, right = torch.linalg.svd(matrix / matrix.norm(), full_matrices=False)
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return left @ torch.diag(values) @ right


@pytest.mark.parametrize("shape", [(OUT, IN), (IN, OUT)], ids=["wide", "tall"])
def test_any_whitener_gives_one_update_under_exact_orthogonalisation(shape: tuple[int, int]) -> None:
    """Cholesky inverse and inverse root differ by a rotation, which U V^T undoes: why the cheap one may be used."""
    momentum = draw(*shape)
    sides = [draw(20, size) @ draw(size, size) for size in shape]
    covariance_b, covariance_a = (rows.T @ rows for rows in sides)
    updates = []
    for whiten in (lambda a: cholesky_whitener(a, 0.0), lambda a: inverse_root(a, 2, 0.0)):
        z_a, z_b = whiten(covariance_a), whiten(covariance_b)
        torch.testing.assert_close(z_a @ covariance_a @ z_a.T, torch.eye(shape[1]).double(), rtol=1e-9, atol=1e-9)
        left, _, right = torch.linalg.svd(z_b @ momentum @ z_a.T, full_matrices=False)
        updates.append(z_b.T @ left @ right @ z_a)
    torch.testing.assert_close(*updates, rtol=1e-8, atol=1e-10)
    assert not torch.allclose(cholesky_whitener(covariance_a, 0.0), inverse_root(covariance_a, 2, 0.0))


def test_both_sides_and_the_plain_optimum_do_not_go_together() -> None:
    layer = linear()
    with pytest.raises(ValueError, match="sides='input'"):
        nl.optim.LayerMomentum(layer.parameters(), model=layer, readout="identity")


# ------------------------------------------------------------------------------------------ what is recorded


def watched(layer: nn.Module, **settings: Any) -> nl.optim.LayerMomentum:
    """Its state holds the covariance of the last step alone."""
    return nl.optim.LayerMomentum(
        layer.parameters(), model=layer, covariance_retention=0.0, refresh=1, sides="both", **settings
    )


def check_recorded(optimizer: nl.optim.LayerMomentum, layer: nn.Linear, x: Tensor) -> None:
    expected = covariances(layer, x)
    optimizer.step()
    state = optimizer.state[layer.weight]
    for name, covariance in zip(("inputs", "errors"), expected, strict=True):
        torch.testing.assert_close(state[f"{name}.model.value"], covariance, rtol=1e-10, atol=1e-10)


def test_inputs_and_error_signals_are_recorded() -> None:
    layer, x = linear(), draw(6, IN)
    optimizer = watched(layer)
    layer(x).cosh().sum().backward()
    check_recorded(optimizer, layer, x)


def test_sequences_are_rows() -> None:
    layer, x = linear(), draw(2, 4, IN)
    optimizer = watched(layer)
    layer(x).cosh().sum().backward()
    check_recorded(optimizer, layer, x.reshape(8, IN))


def test_passes_without_a_backward_pass_are_not_recorded() -> None:
    layer, x = linear(), draw(6, IN)
    optimizer = watched(layer)
    with torch.no_grad():
        layer(100 * draw(50, IN))
    with torch.inference_mode():
        layer(100 * draw(50, IN))
    layer(100 * draw(50, IN))  # with a graph that nobody goes back through
    layer.eval()(100 * draw(50, IN))
    layer.train()(x).cosh().sum().backward()
    check_recorded(optimizer, layer, x)


def test_gradients_that_accumulate_are_recorded_together() -> None:
    layer, x = linear(), draw(6, IN)
    optimizer = watched(layer)
    for part in (x[:2], x[2:]):
        layer(part).cosh().sum().backward()
    check_recorded(optimizer, layer, x)


def test_accumulated_gradients_count_every_row_once() -> None:
    """Two backward passes before a step are one on both batches, in the size of A too."""
    one, two, x = linear(), linear(), draw(6, IN)
    two.load_state_dict(one.state_dict())
    for layer, parts in ((one, [x]), (two, [x[:2], x[2:]])):
        optimizer = nl.optim.DeltaGradientDescent(layer.parameters(), lr=0.3, model=layer)
        for part in parts:
            layer(part).cosh().sum().backward()
        optimizer.step()
    torch.testing.assert_close(one.weight, two.weight, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("drop", ["zero_grad", "step"])
def test_a_step_or_dropped_gradients_start_anew(drop: str) -> None:
    layer, x = linear(), draw(6, IN)
    optimizer = watched(layer, lr=0.0)
    layer(100 * draw(9, IN)).sum().backward()
    if drop == "step":
        optimizer.step()
        layer.zero_grad()
    else:
        optimizer.zero_grad()
    layer(x).cosh().sum().backward()
    check_recorded(optimizer, layer, x)


@pytest.mark.parametrize("cls", [nl.optim.LayerMomentum, nl.optim.DeltaGradientDescent])
def test_gradients_without_recorded_inputs_are_an_error_that_loses_nothing(cls: Any) -> None:
    layer, other = linear(), linear()
    optimizer = cls(layer.named_parameters(), model=layer)
    layer.weight.grad = other.weight.grad = draw(OUT, IN)
    before = layer.weight.detach().clone()
    with pytest.raises(RuntimeError, match=r"weight with shape \(3, 5\).*no layer of model= was called"):
        optimizer.step()
    assert torch.equal(layer.weight, before)
    assert not optimizer.state[layer.weight]
    optimizer.zero_grad()
    layer(draw(4, IN)).sum().backward()
    optimizer.step()


def test_hooks_go_with_their_optimizer() -> None:
    layer = linear()
    optimizer = watched(layer)
    assert len(layer._forward_hooks) == 1
    del optimizer
    gc.collect()
    assert not layer._forward_hooks
    layer(draw(2, IN)).sum().backward()


def test_an_added_group_is_watched_once() -> None:
    module = nn.Sequential(linear(), nn.Linear(OUT, OUT).double())
    optimizer = nl.optim.LayerMomentum(module[0].parameters(), model=module)
    optimizer.add_param_group({"params": list(module[1].parameters())})
    assert [len(layer._forward_hooks) for layer in module] == [1, 1]
    module(draw(4, IN)).sum().backward()
    optimizer.step()
    with pytest.raises(ValueError, match=r"group 2 .*is no parameter of model="):
        optimizer.add_param_group({"params": [nn.Parameter(draw(2, 2))]})
    assert len(optimizer.param_groups) == 2


@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
def test_a_copied_model_records_nothing(how: str) -> None:
    layer, x = linear(), draw(6, IN)
    optimizer = watched(layer)
    double = copy.deepcopy(layer) if how == "deepcopy" else pickle.loads(pickle.dumps(layer))
    double(100 * draw(50, IN)).cosh().sum().backward()  # works, and is nobody's business
    layer(x).cosh().sum().backward()
    check_recorded(optimizer, layer, x)


def test_a_copied_optimizer_watches_its_own_model() -> None:
    layer, x = linear(), draw(6, IN)
    optimizer = watched(layer)
    double = copy.deepcopy(optimizer)
    model = double.model
    assert model is not layer
    weight = double.param_groups[0]["params"][0]
    assert weight is model.weight
    model(x).cosh().sum().backward()
    check_recorded(double, model, x)
    layer(x).cosh().sum().backward()
    check_recorded(optimizer, layer, x)


@pytest.mark.parametrize("cls", [nl.optim.LayerMomentum, nl.optim.DeltaGradientDescent])
def test_a_period_collects_inputs_as_it_collects_gradients(cls: Any) -> None:
    """C4: four small batches with period 4 are one step on all of their rows."""
    one, four = linear(), linear()
    four.load_state_dict(one.state_dict())
    settings = {"refresh": 1} if cls is nl.optim.LayerMomentum else {}
    slow = cls(four.parameters(), lr=0.1, model=four, period=4, **settings)
    quick = cls(one.parameters(), lr=0.1, model=one, **settings)
    for x in draw(3, 4, 2, IN):
        for part in x:
            slow.zero_grad()
            four(part).cosh().sum().backward()
            slow.step()
        quick.zero_grad()
        one(x.reshape(8, IN)).cosh().sum().backward()
        quick.step()
        torch.testing.assert_close(four.weight, one.weight, rtol=1e-10, atol=1e-10)
