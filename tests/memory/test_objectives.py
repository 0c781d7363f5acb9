"""Surprises against formulas written out row by row, and closed-form gradients against autograd of the surprise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from nestlearn.memory import (
    MLP,
    Constant,
    Matrix,
    Model,
    Objective,
    Quadratic,
    dot_product,
    hypergradient,
    l2,
    oja,
    orthogonality,
    quadratic,
)

DIM, ROWS = 3, 5
CURVATURE = torch.tensor([[2.0, 0.5, -0.3], [0.5, 1.0, 0.2], [-0.3, 0.2, 3.0]], dtype=torch.float64)

MODELS: dict[str, Model] = {
    "scalar": Constant(),
    "box": Constant((DIM,)),
    "matrix": Matrix(DIM, DIM),
    "residual matrix": Matrix(DIM, DIM, residual=True),
    "wide matrix": Matrix(DIM + 1, DIM),
    "mlp": MLP(DIM, 4, DIM),
    "plain mlp": MLP(DIM + 1, 4, DIM, residual=False),
    "tanh mlp": MLP(DIM, 4, DIM, activation="tanh"),
    "relu mlp": MLP(DIM, 4, DIM, activation="relu"),
    "linear mlp": MLP(DIM, 4, DIM, activation="identity"),
}
POINTWISE: dict[str, Objective] = {
    "dot_product": dot_product,
    "l2": l2,
    "quadratic": quadratic,
    "hypergradient": hypergradient,
}
TERMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "dot_product": lambda answer, value: -(answer @ value),
    "l2": lambda answer, value: 0.5 * (answer - value) @ (answer - value),
    "quadratic": lambda answer, value: value @ answer + 0.5 * answer @ answer,
    "hypergradient": lambda answer, value: answer @ value,
}


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def problem(model: Model, batch: tuple[int, ...]) -> tuple[dict[str, Tensor], Tensor | None, Tensor]:
    """Random parameters, keys and values: nothing is zero, as it would be in a fresh memory."""
    parameters = {name: torch.randn_like(t) for name, t in model.init(batch, dtype=torch.float64).items()}
    if isinstance(model, Constant):
        return parameters, None, draw(*batch, *model.shape)
    return parameters, draw(*batch, ROWS, model.in_dim), draw(*batch, ROWS, model.out_dim)


def by_autograd(objective: Objective, model: Model, parameters: dict[str, Tensor], key: Any, value: Tensor) -> Any:
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in parameters.items()}
    surprise = objective.surprise(model, leaves, key, value)
    gradients = torch.autograd.grad(surprise.sum(), list(leaves.values()), allow_unused=True)
    return dict(zip(leaves, gradients, strict=True)), surprise.detach()


def check(objective: Objective, model: Model, batch: tuple[int, ...]) -> None:
    parameters, key, value = problem(model, batch)
    expected, surprise = by_autograd(objective, model, parameters, key, value)
    found, before = objective.assess(model, parameters, key, value)
    assert before is not None
    assert before.shape == batch
    torch.testing.assert_close(before, surprise, rtol=1e-12, atol=1e-12)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-11, atol=1e-11)
    silent, nothing = objective.assess(model, parameters, key, value, surprise=False)
    assert nothing is None
    assert all(torch.equal(silent[name], found[name]) for name in found)


@pytest.mark.parametrize("batch", [(), (2, 3)], ids=["one memory", "2 x 3 memories"])
@pytest.mark.parametrize("mean", [False, True], ids=["sum", "mean"])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("objective", POINTWISE)
def test_closed_form_gradients_are_autograd_of_the_surprise(
    objective: str, model: str, mean: bool, batch: tuple[int, ...]
) -> None:
    chosen = POINTWISE[objective]
    check(chosen.averaged() if mean else chosen, MODELS[model], batch)


@pytest.mark.parametrize("batch", [(), (2,)], ids=["one memory", "2 memories"])
@pytest.mark.parametrize("mean", [False, True], ids=["sum", "mean"])
@pytest.mark.parametrize("model", ["box", "matrix", "wide matrix", "mlp", "plain mlp"])
def test_the_quadratic_model_uses_its_curvature(model: str, mean: bool, batch: tuple[int, ...]) -> None:
    """O16: q(d) = <u, d> + 1/2 <d, H d>, and its gradient with d = M(k)."""
    objective = Quadratic(mean=mean, curvature=lambda answer: answer @ CURVATURE)
    check(objective, MODELS[model], batch)
    parameters, key, value = problem(MODELS[model], ())
    answer = MODELS[model].read(parameters, key)
    expected = (value * answer).sum() + 0.5 * torch.einsum("...i,ij,...j->...", answer, CURVATURE, answer).sum()
    rows = ROWS if mean and model != "box" else 1
    torch.testing.assert_close(objective.surprise(MODELS[model], parameters, key, value), expected / rows)


@pytest.mark.parametrize("batch", [(), (2, 3)], ids=["one memory", "2 x 3 memories"])
@pytest.mark.parametrize("mean", [False, True], ids=["sum", "mean"])
@pytest.mark.parametrize("model", ["matrix", "wide matrix"])
def test_oja_is_autograd_of_its_surprise(model: str, mean: bool, batch: tuple[int, ...]) -> None:
    check(oja.averaged() if mean else oja, MODELS[model], batch)


@pytest.mark.parametrize("mean", [False, True], ids=["sum", "mean"])
@pytest.mark.parametrize("objective", POINTWISE)
def test_surprise_is_the_loss_written_out_row_by_row(objective: str, mean: bool) -> None:
    chosen = POINTWISE[objective].averaged() if mean else POINTWISE[objective]
    model = MODELS["wide matrix"]
    parameters, key, value = problem(model, (2,))
    assert key is not None
    found = chosen.surprise(model, parameters, key, value)
    for number in range(2):
        terms = [
            TERMS[objective](parameters["weight"][number] @ k, v)
            for k, v in zip(key[number], value[number], strict=True)
        ]
        torch.testing.assert_close(found[number], torch.stack(terms).sum() / (ROWS if mean else 1))


def test_oja_surprise_is_half_of_its_print() -> None:
    """M2 prints -2 <Mk, v> + ||M^T v||^2; half of it makes a write M3's rule exactly."""
    model = MODELS["wide matrix"]
    parameters, key, value = problem(model, ())
    assert key is not None
    weight = parameters["weight"]
    printed = sum(-2 * (weight @ k) @ v + (weight.T @ v) @ (weight.T @ v) for k, v in zip(key, value, strict=True))
    torch.testing.assert_close(2 * oja.surprise(model, parameters, key, value), printed)


@pytest.mark.parametrize("batch", [(), (2,)], ids=["one memory", "2 memories"])
def test_orthogonality_is_autograd_of_its_surprise(batch: tuple[int, ...]) -> None:
    """O18: 1/4 ||R S R^T - I||^2 with S = K^T K + ridge I, zero at R = S^-1/2."""
    model, ridge = Matrix(DIM, DIM), torch.tensor(0.3, dtype=torch.float64)
    root = draw(*batch, DIM, DIM)
    symmetric = root + root.mT
    key = draw(*batch, ROWS, DIM)
    expected, surprise = by_autograd(orthogonality, model, {"weight": symmetric}, key, ridge)
    found, before = orthogonality.assess(model, {"weight": symmetric}, key, ridge)
    torch.testing.assert_close(before, surprise)
    torch.testing.assert_close(found["weight"], expected["weight"], rtol=1e-11, atol=1e-11)

    gram = key.mT @ key + ridge * torch.eye(DIM, dtype=torch.float64)
    values, vectors = torch.linalg.eigh(gram)
    solution = {"weight": (vectors / values.sqrt()[..., None, :]) @ vectors.mT}
    least = orthogonality.surprise(model, solution, key, ridge)
    torch.testing.assert_close(least, torch.zeros(batch, dtype=torch.float64))
    assert bool((before > 1e-3).all())


@pytest.mark.parametrize("model", ["mlp", "box"])
def test_oja_needs_a_linear_memory(model: str) -> None:
    parameters, key, value = problem(MODELS[model], ())
    for call in (oja.surprise, oja.assess):
        with pytest.raises(TypeError, match=f"oja.*Matrix.*got {type(MODELS[model]).__name__}"):
            call(MODELS[model], parameters, key, value)


def test_orthogonality_scores_a_whole_matrix() -> None:
    parameters, key, _ = problem(MODELS["mlp"], ())
    with pytest.raises(TypeError, match=r"Matrix.*inner"):
        orthogonality.surprise(MODELS["mlp"], parameters, key, torch.tensor(0.1))
    for call in (orthogonality.loss, orthogonality.error):
        with pytest.raises(TypeError, match="whole map"):
            call(draw(2, 2), draw(2, 2))


@pytest.mark.parametrize("objective", ["dot_product", "hypergradient", "l2"])
def test_one_value_may_serve_many_keys(objective: str) -> None:
    """A value of one row stands for the same value at each key."""
    chosen, model = POINTWISE[objective], MODELS["matrix"]
    parameters, key, _ = problem(model, ())
    value = draw(1, DIM)
    found = chosen.gradients(model, parameters, key, value)
    expected = chosen.gradients(model, parameters, key, value.expand(ROWS, DIM).clone())
    torch.testing.assert_close(found["weight"], expected["weight"])
