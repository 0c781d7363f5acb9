"""The core's contract: state in and out, periods, batches, vmap, gradients through writes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nestlearn.memory import (
    MLP,
    AssociativeMemory,
    Constant,
    DeltaGradientDescent,
    GradientDescent,
    LeastSquares,
    Matrix,
    Model,
    dot_product,
    l2,
    oja,
)

DIM = 3
MEMORIES: dict[str, AssociativeMemory] = {
    "hebbian": AssociativeMemory(Matrix(DIM, DIM), dot_product, GradientDescent(lr=0.2, retention=0.9)),
    "delta": AssociativeMemory(Matrix(DIM, DIM), l2, GradientDescent(lr=0.2, retention=0.95)),
    "oja": AssociativeMemory(Matrix(DIM, DIM), oja, GradientDescent(lr=0.1)),
    "residual": AssociativeMemory(Matrix(DIM, DIM, residual=True), l2, GradientDescent(lr=0.2)),
    "dgd": AssociativeMemory(Matrix(DIM, DIM), l2, DeltaGradientDescent(lr=0.2, retention=0.9)),
    "implicit": AssociativeMemory(Matrix(DIM, DIM), dot_product, DeltaGradientDescent(lr=0.2, implicit=True)),
    "mlp": AssociativeMemory(MLP(DIM, 4, DIM), l2, GradientDescent(lr=0.2, retention=0.95)),
    "mlp dgd": AssociativeMemory(MLP(DIM, 4, DIM), l2, DeltaGradientDescent(lr=0.2, retention=0.95)),
    "least squares": AssociativeMemory(Matrix(DIM, DIM), l2, LeastSquares(discount=0.9, ridge=0.1)),
    "period": AssociativeMemory(MLP(DIM, 4, DIM), l2, GradientDescent(lr=0.2, retention=0.95), period=3),
}


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def fresh(memory: AssociativeMemory, batch: tuple[int, ...] = ()) -> dict[str, Any]:
    """A state in which nothing is zero."""
    state = memory.init(batch, dtype=torch.float64)
    return {**state, "model": {name: 0.5 * torch.randn_like(t) for name, t in state["model"].items()}}


def leaves(state: dict[str, Any]) -> list[Tensor]:
    """The tensors of a nested state; anything else fails."""
    found = []
    for name, value in state.items():
        assert isinstance(name, str)
        assert isinstance(value, (dict, Tensor)), f"{name} is a {type(value).__name__}"
        found += leaves(value) if isinstance(value, dict) else [value]
    return found


def run(memory: AssociativeMemory, state: dict[str, Any], keys: Tensor, values: Tensor, **options: Any) -> Any:
    for time, (key, value) in enumerate(zip(keys, values, strict=True)):
        state, _ = memory.write(state, key, value, time=time, **options)
    return state


def same(one: Any, two: Any, tolerance: float = 1e-12) -> None:
    assert len(leaves(one)) == len(leaves(two)) > 0
    for a, b in zip(leaves(one), leaves(two), strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


# ------------------------------------------------------------------------------------- reading and writing


@pytest.mark.parametrize("name", MEMORIES)
def test_a_write_returns_a_new_state_and_the_surprise_before_it(name: str) -> None:
    memory, key, value = MEMORIES[name], draw(4, DIM), draw(4, DIM)
    state = fresh(memory)
    before = [tensor.clone() for tensor in leaves(state)]
    new, surprise = memory.write(state, key, value, time=2)
    torch.testing.assert_close(surprise, memory.surprise(state, key, value))
    assert all(torch.equal(a, b) for a, b in zip(leaves(state), before, strict=True)), "the given state was changed"
    assert any(not torch.equal(a, b) for a, b in zip(leaves(new["model"]), leaves(state["model"]), strict=True))
    assert memory.write(state, key, value, time=2, surprise=False)[1] is None


@pytest.mark.parametrize("batch", [(), (2,)], ids=["one memory", "2 memories"])
@pytest.mark.parametrize("name", MEMORIES)
def test_a_single_key_is_one_row(name: str, batch: tuple[int, ...]) -> None:
    memory, key, value = MEMORIES[name], draw(*batch, DIM), draw(*batch, DIM)
    state = fresh(memory, batch)
    one, surprise = memory.write(state, key, value, time=0)
    two, other = memory.write(state, key.unsqueeze(-2), value.unsqueeze(-2), time=0)
    same(one, two)
    torch.testing.assert_close(surprise, other)
    answer = memory.read(state, key)
    assert answer.shape == key.shape
    torch.testing.assert_close(answer, memory.read(state, key.unsqueeze(-2)).squeeze(-2))


def test_writing_lowers_the_surprise_of_what_was_written() -> None:
    for name in ("delta", "residual", "mlp", "dgd"):
        memory, state = MEMORIES[name], fresh(MEMORIES[name])
        key, value = draw(DIM), draw(DIM)
        key = key / key.norm()
        after, surprise = memory.write(state, key, value, retention=1.0)
        assert memory.surprise(after, key, value) < surprise


def test_lr_and_retention_of_one_write_override_the_rule() -> None:
    key, value = draw(DIM), draw(DIM)
    slow = AssociativeMemory(Matrix(DIM, DIM), l2, GradientDescent(lr=0.01, retention=1.0))
    quick = AssociativeMemory(Matrix(DIM, DIM), l2, GradientDescent(lr=0.3, retention=0.5))
    state = fresh(slow)
    same(slow.write(state, key, value, lr=0.3, retention=0.5)[0], quick.write(state, key, value)[0])


# ------------------------------------------------------------------------------------------------ periods


@pytest.mark.parametrize("as_tensor", [False, True], ids=["int time", "tensor time"])
@pytest.mark.parametrize("model", [Matrix(DIM, DIM), MLP(DIM, 4, DIM)], ids=["matrix", "mlp"])
def test_a_period_is_one_write_with_the_gradients_at_its_start(model: Model, as_tensor: bool) -> None:
    """C1, S6: inside a chunk all gradients are taken at the state of the previous chunk's end."""
    period, alpha, zeta = 4, 0.9, 0.2
    memory = AssociativeMemory(model, l2, GradientDescent(lr=zeta, retention=alpha), period=period)
    state = fresh(memory)
    expected = {name: tensor.clone() for name, tensor in state["model"].items()}
    keys, values = draw(10, DIM), draw(10, DIM)
    for time in range(10):
        place = torch.tensor(time) if as_tensor else time
        state, _ = memory.write(state, keys[time], values[time], time=place)
        if time % period == period - 1:
            parameters = {name: tensor.requires_grad_() for name, tensor in expected.items()}
            chunk = slice(time + 1 - period, time + 1)
            loss = 0.5 * (model.read(parameters, keys[chunk]) - values[chunk]).square().sum()
            slopes = torch.autograd.grad(loss, list(parameters.values()))
            expected = {
                name: (alpha * tensor - zeta * slope).detach()
                for (name, tensor), slope in zip(parameters.items(), slopes, strict=True)
            }
            assert not any(tensor.any() for tensor in leaves(state["pending"]))
        else:
            assert all(bool(tensor.any()) for tensor in leaves(state["pending"]))
        for name, tensor in expected.items():
            torch.testing.assert_close(state["model"][name], tensor, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", MEMORIES)
def test_a_period_of_one_needs_no_time(name: str) -> None:
    memory = MEMORIES[name]
    if memory.period == 1:
        memory.write(fresh(memory), draw(DIM), draw(DIM))
    else:
        with pytest.raises(ValueError, match=r"period 3 needs to know the time.*time=step"):
            memory.write(fresh(memory), draw(DIM), draw(DIM))


# ------------------------------------------------------------------------------------------------- batches


@pytest.mark.parametrize("name", MEMORIES)
def test_a_batch_of_memories_equals_single_ones(name: str) -> None:
    memory, batch, steps = MEMORIES[name], 3, 5
    state = fresh(memory, (batch,))
    keys, values = draw(steps, batch, 2, DIM), draw(steps, batch, 2, DIM)
    together = run(memory, state, keys, values)
    for number in range(batch):
        alone = run(memory, pick(state, number), keys[:, number], values[:, number])
        same(pick(together, number), alone)


def pick(state: dict[str, Any], number: int) -> dict[str, Any]:
    return {name: pick(value, number) if isinstance(value, dict) else value[number] for name, value in state.items()}


@pytest.mark.parametrize("name", MEMORIES)
def test_vmap_over_memories_equals_native_batches(name: str) -> None:
    """With a learning rate and a retention of its own for every memory, as tokens have them."""
    memory, batch = MEMORIES[name], 4
    state = fresh(memory, (batch,))
    keys, values = draw(5, batch, DIM), draw(5, batch, DIM)
    lr, retention = 0.1 + 0.2 * torch.rand(batch, dtype=torch.float64), torch.rand(batch, dtype=torch.float64)
    together = run(memory, state, keys, values, lr=lr, retention=retention)

    def one(state: Any, keys: Tensor, values: Tensor, lr: Tensor, retention: Tensor) -> Any:
        return run(memory, state, keys, values, lr=lr, retention=retention)

    mapped = torch.func.vmap(one, in_dims=(0, 1, 1, 0, 0))(state, keys, values, lr, retention)
    same(mapped, together)
    uniform = run(memory, state, keys, values, lr=0.2, retention=0.5)
    assert not torch.allclose(leaves(uniform["model"])[0], leaves(together["model"])[0])


# ---------------------------------------------------------------------------------------- gradients through


@pytest.mark.parametrize("name", MEMORIES)
def test_gradcheck_through_eight_writes_under_vmap(name: str) -> None:
    """In keys, values, the query, each token's learning rate and retention, and the initial state."""
    memory, batch, steps = MEMORIES[name], 2, 8
    start = fresh(memory, (batch,))["model"]
    names, empty = list(start), memory.init(dtype=torch.float64)

    def answer(keys: Tensor, values: Tensor, query: Tensor, lr: Tensor, retention: Tensor, *weights: Tensor) -> Tensor:
        state = {**empty, "model": dict(zip(names, weights, strict=True))}
        for time in range(steps):
            state, _ = memory.write(state, keys[time], values[time], time=time, lr=lr[time], retention=retention[time])
        return memory.read(state, query)

    shapes = [(batch, steps, DIM), (batch, steps, DIM), (batch, DIM)]
    inputs = [0.7 * draw(*shape) for shape in shapes]
    inputs += [0.05 + 0.2 * torch.rand(batch, steps, dtype=torch.float64) for _ in range(2)]
    inputs[4] = 1 - inputs[4]
    inputs += [start[name] for name in names]
    tensors = tuple(tensor.clone().requires_grad_() for tensor in inputs)
    assert torch.autograd.gradcheck(torch.func.vmap(answer), tensors, fast_mode=True)
    slopes = torch.autograd.grad(torch.func.vmap(answer)(*tensors).sum(), tensors, allow_unused=True)
    assert all(slope is not None and bool(slope.any()) for slope in slopes)


# ---------------------------------------------------------------------------------- networks as memories


def test_back_propagation_is_a_memory_of_inputs_and_error_signals() -> None:
    """O1: key = a layer's input, value = -dL/dy, dot product, one write a step: SGD on the layer."""
    torch.manual_seed(3)
    module = nn.Sequential(nn.Linear(4, 5, bias=False), nn.Tanh(), nn.Linear(5, 2, bias=False)).double()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.3)
    layers = [module[0], module[2]]
    rule = GradientDescent(lr=0.3)
    memories = [AssociativeMemory(Matrix(s.in_features, s.out_features), dot_product, rule) for s in layers]
    states = [{"model": {"weight": layer.weight.detach().clone()}, "rule": {}} for layer in layers]
    for _ in range(20):
        batch, target = draw(6, 4), draw(6, 2)
        first = layers[0](batch)
        second = layers[1](torch.tanh(first))
        errors = torch.autograd.grad((second - target).cosh().mean(), [first, second])
        seen = [batch, torch.tanh(first).detach()]
        optimizer.zero_grad()
        (module(batch) - target).cosh().mean().backward()
        optimizer.step()
        for number, memory in enumerate(memories):
            states[number], _ = memory.write(states[number], seen[number], -errors[number])
            torch.testing.assert_close(
                states[number]["model"]["weight"], layers[number].weight.detach(), rtol=1e-12, atol=1e-12
            )


def test_shampoos_left_factor_is_a_hebbian_memory_over_gradient_columns() -> None:
    """O9: L = sum of u u^T, keys and values both the columns of u."""
    memory = AssociativeMemory(Matrix(4, 4), dot_product, GradientDescent(lr=1.0))
    state = memory.init(dtype=torch.float64)
    gradients = draw(10, 4, 7)
    for gradient in gradients:
        state, _ = memory.write(state, gradient.T, gradient.T)
    torch.testing.assert_close(state["model"]["weight"], torch.einsum("tij,tkj->ik", gradients, gradients))


# ------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"model": "matrix"}, TypeError, "model must be a Model, got str"),
        ({"objective": "l2"}, TypeError, "objective must be a Objective, got str"),
        ({"rule": 0.1}, TypeError, "rule must be a Rule, got float"),
        ({"rule": GradientDescent}, TypeError, "rule must be a Rule, got ABCMeta"),
        ({"period": 0}, ValueError, "period must be at least 1, got 0"),
    ],
)
def test_what_is_no_memory_is_refused(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    parts = {"model": Constant(), "objective": l2, "rule": GradientDescent(), **changes}
    with pytest.raises(error, match=message):
        AssociativeMemory(**parts)
