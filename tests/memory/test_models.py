"""What models answer, start with and refuse."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nestlearn.memory import MLP, AssociativeMemory, Constant, GradientDescent, Matrix, Model, l2


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def test_a_constant_ignores_its_key() -> None:
    parameters = {"value": draw(2, 3)}
    assert Constant((3,)).read(parameters, draw(2, 7, 5)) is parameters["value"]
    assert Constant((3,)).batch_ndim(parameters) == 1
    assert Constant().batch_ndim(parameters) == 2


@pytest.mark.parametrize("residual", [False, True])
def test_a_matrix_multiplies_each_row(residual: bool) -> None:
    weight, key = draw(2, 4, 4), draw(2, 5, 4)
    answer = Matrix(4, 4, residual=residual).read({"weight": weight}, key)
    expected = torch.einsum("boi,bni->bno", weight, key) + (key if residual else 0)
    torch.testing.assert_close(answer, expected)


@pytest.mark.parametrize(
    ("activation", "function"),
    [
        ("silu", lambda x: x / (1 + torch.exp(-x))),
        ("tanh", torch.tanh),
        ("relu", lambda x: x.clamp(min=0)),
        ("identity", lambda x: x),
    ],
)
def test_an_mlp_is_its_formula(activation: str, function: object) -> None:
    """M(k) = k + W_outer s(W_inner k) / sqrt(hidden), S5."""
    inner, outer, key = draw(7, 4), draw(4, 7), draw(5, 4)
    answer = MLP(4, 7, 4, activation=activation).read({"inner": inner, "outer": outer}, key)
    rows = [k + outer @ function(inner @ k) / math.sqrt(7) for k in key]  # type: ignore[operator]
    torch.testing.assert_close(answer, torch.stack(rows))


def test_features_are_added_to_the_first_layer_and_to_nothing_else() -> None:
    """Answers, gradients of the parameters and gradients of the key are those of an MLP with W_inner + features."""
    inner, outer, features, key, error = draw(2, 7, 4), draw(2, 4, 7), draw(7, 4), draw(2, 5, 4), draw(2, 5, 4)
    model, plain = MLP(4, 7, 4, features=features), MLP(4, 7, 4)
    given, whole = {"inner": inner, "outer": outer}, {"inner": inner + features, "outer": outer}
    torch.testing.assert_close(model.read(given, key), plain.read(whole, key))
    torch.testing.assert_close(model.transpose(given, key, error), plain.transpose(whole, key, error))
    torch.testing.assert_close(model.inputs(given, key), plain.inputs(whole, key))
    slopes = [each.pullback(at, key, error, each.trace(at, key)[1]) for each, at in ((model, given), (plain, whole))]
    torch.testing.assert_close(*slopes)


@pytest.mark.parametrize("residual", [False, True])
def test_a_fresh_mlp_answers_with_its_key_or_with_zero(residual: bool) -> None:
    model, key = MLP(4, 6, 4, residual=residual), draw(5, 4)
    answer = model.read(model.init(dtype=torch.float64), key)
    assert torch.equal(answer, key if residual else torch.zeros_like(key))


@pytest.mark.parametrize("activation", ["silu", "gelu", "tanh", "relu", "identity"])
def test_a_zero_key_has_a_zero_answer_however_much_was_written(activation: str) -> None:
    memory = AssociativeMemory(MLP(4, 6, 4, activation=activation), l2, GradientDescent(lr=0.5))
    state = memory.init(dtype=torch.float64)
    for _ in range(5):
        state, _ = memory.write(state, draw(4), draw(4))
    assert memory.read(state, draw(4)).abs().max() > 0
    assert torch.equal(memory.read(state, torch.zeros(4, dtype=torch.float64)), torch.zeros(4, dtype=torch.float64))


@pytest.mark.parametrize(
    "model",
    [
        Matrix(4, 3),
        Matrix(4, 4, residual=True),
        MLP(4, 6, 3, residual=False),
        MLP(4, 6, 4),
        MLP(4, 5, 4, activation="tanh"),
    ],
    ids=lambda model: type(model).__name__,
)
def test_transpose_is_the_gradient_in_the_key(model: Model) -> None:
    parameters = {name: torch.randn_like(t) for name, t in model.init((2,), dtype=torch.float64).items()}
    key = draw(2, 5, 4).requires_grad_()
    error = torch.randn_like(model.read(parameters, key))
    (expected,) = torch.autograd.grad((model.read(parameters, key) * error).sum(), key)
    torch.testing.assert_close(model.transpose(parameters, key.detach(), error), expected, rtol=1e-11, atol=1e-11)


def test_inputs_are_what_each_weight_matrix_sees() -> None:
    """Weight times its input is that layer's output: S5 takes delta gradient descent layer by layer."""
    model = MLP(4, 6, 4, residual=False, activation="tanh")
    parameters = {name: torch.randn_like(t) for name, t in model.init(dtype=torch.float64).items()}
    key = draw(5, 4)
    seen = model.inputs(parameters, key)
    torch.testing.assert_close(seen["inner"], key)
    torch.testing.assert_close(seen["outer"] @ parameters["outer"].T, model.read(parameters, key))


def test_an_mlp_draws_from_the_given_generator() -> None:
    def inner(seed: int) -> Tensor:
        return MLP(4, 512, 4).init(generator=torch.Generator().manual_seed(seed))["inner"]

    assert torch.equal(inner(1), inner(1))
    assert not torch.equal(inner(1), inner(2))
    assert inner(1).std().item() == pytest.approx(1.0, abs=0.05)  # keys of unit length give units of unit variance


def test_init_takes_batch_shape_and_dtype() -> None:
    parameters = MLP(4, 6, 3, residual=False).init((2, 5), dtype=torch.bfloat16)
    assert {name: tuple(t.shape) for name, t in parameters.items()} == {"inner": (2, 5, 6, 4), "outer": (2, 5, 3, 6)}
    assert {t.dtype for t in parameters.values()} == {torch.bfloat16}
    assert tuple(Matrix(4, 3).init((2,))["weight"].shape) == (2, 3, 4)
    assert tuple(Constant((7,)).init((2,))["value"].shape) == (2, 7)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Matrix(0, 3), "in_dim must be at least 1, got 0"),
        (lambda: MLP(3, 0, 3), "hidden must be at least 1, got 0"),
        (lambda: MLP(3, 4, 2), "in_dim must equal out_dim.*3 and 2.*residual=False"),
        (lambda: Matrix(3, 2, residual=True), "in_dim must equal out_dim"),
        (lambda: MLP(3, 4, 3, activation="swish"), "activation must be one of .*silu.*got 'swish'"),
    ],
)
def test_shapes_that_cannot_be_are_refused(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]


def test_a_constant_has_no_weight_matrix_for_delta_gradient_descent() -> None:
    with pytest.raises(TypeError, match=r"Constant.*Matrix or an MLP"):
        Constant().inputs({"value": draw(1)}, draw(1))
