"""Rules against the equations M3, O12, O15 and against exact minimisers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nestlearn.memory import (
    MLP,
    AssociativeMemory,
    Context,
    DeltaGradientDescent,
    GradientDescent,
    LeastSquares,
    Matrix,
    Objective,
    Rule,
    dot_product,
    l2,
    oja,
)

OUT, IN = 3, 4
ALPHA, ZETA = 0.9, 0.3
EYE = torch.eye(IN, dtype=torch.float64)


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def written(objective: Objective, rule: Rule, weight: Tensor, key: Tensor, value: Tensor) -> Tensor:
    memory = AssociativeMemory(Matrix(IN, OUT), objective, rule)
    state = {**memory.init(dtype=torch.float64), "model": {"weight": weight}}
    return memory.write(state, key, value)[0]["model"]["weight"]


def hebb(m: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return ALPHA * m + ZETA * torch.outer(v, k)


def delta(m: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return ALPHA * m - ZETA * torch.outer(m @ k - v, k)


def oja_rule(m: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return ALPHA * m + ZETA * torch.outer(v, k - m.T @ v)


RULES = {"hebbian": (dot_product, hebb), "delta": (l2, delta), "oja": (oja, oja_rule)}


@pytest.mark.parametrize("name", RULES)
def test_a_linear_memory_follows_its_named_rule(name: str) -> None:
    """M3, over a sequence of writes so that the state matters."""
    objective, rule = RULES[name]
    memory = AssociativeMemory(Matrix(IN, OUT), objective, GradientDescent(lr=ZETA, retention=ALPHA))
    state = {"model": {"weight": draw(OUT, IN)}, "rule": {}}
    expected = state["model"]["weight"]
    for _ in range(10):
        k, v = draw(IN), draw(OUT)
        expected = rule(expected, k, v)
        state, _ = memory.write(state, k, v)
        torch.testing.assert_close(state["model"]["weight"], expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", RULES)
def test_many_keys_in_one_write_are_the_sum_of_their_rules(name: str) -> None:
    objective, rule = RULES[name]
    weight, keys, values = draw(OUT, IN), draw(6, IN), draw(6, OUT)
    found = written(objective, GradientDescent(lr=ZETA, retention=ALPHA), weight, keys, values)
    changes = [rule(weight, k, v) - ALPHA * weight for k, v in zip(keys, values, strict=True)]
    torch.testing.assert_close(found, ALPHA * weight + torch.stack(changes).sum(0))


@pytest.mark.parametrize("retention", [1.0, 0.8])
def test_delta_gradient_descent_on_the_dot_product_is_gradient_descent_on_l2(retention: float) -> None:
    """O12: forgetting along the key is what regression adds to Hebbian learning."""
    one = written_rule(dot_product, DeltaGradientDescent(lr=ZETA, retention=retention))
    two = written_rule(l2, GradientDescent(lr=ZETA, retention=retention))
    torch.testing.assert_close(one, two, rtol=1e-13, atol=1e-13)
    plain = written_rule(dot_product, GradientDescent(lr=ZETA, retention=retention))
    assert not torch.allclose(plain, two)


def written_rule(objective: Objective, rule: Rule) -> Tensor:
    torch.manual_seed(1)
    return written(objective, rule, draw(OUT, IN), draw(5, IN), draw(5, OUT))


def test_delta_gradient_descent_averages_over_keys() -> None:
    """O12: a batch replaces x x^T by its mean."""
    weight, keys, values = draw(OUT, IN), draw(5, IN), draw(5, OUT)
    found = written(dot_product.averaged(), DeltaGradientDescent(lr=ZETA, mean=True), weight, keys, values)
    expected = weight @ (EYE - ZETA * keys.T @ keys / 5) + ZETA * values.T @ keys / 5
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("lr", [0.01, 1.0, 1e4])
@pytest.mark.parametrize("objective", [dot_product, l2], ids=["dot_product", "l2"])
def test_implicit_delta_gradient_descent_is_the_exact_minimiser(objective: Objective, lr: float) -> None:
    """O12: argmin_W 1/2 ||W x + delta||^2 + 1/(2 lr) ||W - W_t||^2, delta the error signal at W_t."""
    weight, x, v = draw(OUT, IN), draw(IN), draw(OUT)
    error = -v if objective is dot_product else weight @ x - v
    # Where the gradient (W x + delta) x^T + (W - W_t) / lr vanishes.
    best = torch.linalg.solve(torch.outer(x, x) + EYE / lr, weight / lr - torch.outer(error, x), left=False)
    found = written(objective, DeltaGradientDescent(lr=lr, implicit=True), weight, x, v)
    torch.testing.assert_close(found, best, rtol=1e-8, atol=1e-8)


def test_implicit_steps_are_exact_for_each_layer_of_an_mlp() -> None:
    """S5: layer by layer, each weight matrix with its own input and its own error signal."""
    lr, model = 0.7, MLP(IN, 6, IN)
    memory = AssociativeMemory(model, l2, DeltaGradientDescent(lr=lr, implicit=True))
    weights = {name: torch.randn_like(t) for name, t in model.init(dtype=torch.float64).items()}
    x, v = draw(IN), draw(IN)
    state, _ = memory.write({"model": weights, "rule": {}}, x, v)

    hidden_in = (weights["inner"] @ x).requires_grad_()
    hidden = torch.nn.functional.silu(hidden_in) / 6**0.5
    answer = x + weights["outer"] @ hidden
    (inner_error,) = torch.autograd.grad(0.5 * (answer - v).square().sum(), hidden_in)
    layers = {"inner": (x, inner_error), "outer": (hidden.detach(), (answer - v).detach())}
    for name, (seen, error) in layers.items():
        eye = torch.eye(len(seen), dtype=torch.float64)
        target = weights[name] / lr - torch.outer(error, seen)
        best = torch.linalg.solve(torch.outer(seen, seen) + eye / lr, target, left=False)
        torch.testing.assert_close(state["model"][name], best, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("batch", [(), (2,)], ids=["one memory", "2 memories"])
@pytest.mark.parametrize("discount", [1.0, 0.9])
def test_least_squares_is_the_discounted_ridge_solution_of_everything_seen(
    discount: float, batch: tuple[int, ...]
) -> None:
    ridge, steps, rows = 0.05, 7, 2
    memory = AssociativeMemory(Matrix(IN, OUT), l2, LeastSquares(discount=discount, ridge=ridge))
    state = memory.init(batch, dtype=torch.float64)
    keys, values = draw(steps, *batch, rows, IN), draw(steps, *batch, rows, OUT)
    for key, value in zip(keys, values, strict=True):
        state, _ = memory.write(state, key, value)
    weights = (discount ** torch.arange(steps - 1, -1, -1, dtype=torch.float64)).sqrt()
    shape = (-1, *(1,) * (keys.ndim - 1))
    stacked = (keys * weights.view(shape)).movedim(0, -3).flatten(-3, -2)
    wanted = (values * weights.view(shape)).movedim(0, -3).flatten(-3, -2)
    # Ridge regression as plain least squares: sqrt(lambda) I below the keys, zeros below the values.
    size = ridge * stacked.square().sum((-2, -1)) / IN
    below = size.sqrt()[..., None, None] * EYE
    tall = torch.cat([stacked, below], -2)
    solution = torch.linalg.lstsq(tall, torch.cat([wanted, torch.zeros(*batch, IN, OUT, dtype=torch.float64)], -2))
    torch.testing.assert_close(state["model"]["weight"], solution.solution.mT, rtol=1e-10, atol=1e-10)


def test_least_squares_does_not_depend_on_the_scale_of_keys() -> None:
    """The ridge is relative: keys ten million times larger give weights as much smaller."""
    keys, values = draw(6, IN), draw(6, OUT)
    one = written(l2, LeastSquares(), torch.zeros(OUT, IN, dtype=torch.float64), keys, values)
    two = written(l2, LeastSquares(), torch.zeros(OUT, IN, dtype=torch.float64), 1e7 * keys, values)
    torch.testing.assert_close(one, 1e7 * two, rtol=1e-10, atol=1e-10)


def test_least_squares_that_has_seen_nothing_answers_zero() -> None:
    zeros = torch.zeros(2, IN, dtype=torch.float64)
    found = written(l2, LeastSquares(ridge=0.0), draw(OUT, IN), zeros, draw(2, OUT))
    torch.testing.assert_close(found, torch.zeros(OUT, IN, dtype=torch.float64))


@pytest.mark.parametrize(
    ("rule", "message"),
    [(DeltaGradientDescent(), "must pass its key"), (LeastSquares(), "must pass both")],
    ids=["delta", "least squares"],
)
def test_rules_that_read_keys_say_so(rule: Rule, message: str) -> None:
    weight, key = {"weight": draw(OUT, IN)}, draw(2, IN)
    alone = (Context(), Context(key=key), Context(parameters=weight))
    for context in alone if isinstance(rule, DeltaGradientDescent) else (*alone, Context(parameters=weight, key=key)):
        with pytest.raises(ValueError, match=message):
            rule.update({"gram": EYE, "moment": draw(OUT, IN)}, {"weight": draw(OUT, IN)}, context)
