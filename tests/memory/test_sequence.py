"""The core as a fast-weight layer: a memory written token by token, and everything around it trained through it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nestlearn.memory import (
    MLP,
    AssociativeMemory,
    DeltaGradientDescent,
    GradientDescent,
    Matrix,
    dot_product,
    l2,
)

BATCH, TIME, DIM = 2, 9, 4


class SequenceMemory(nn.Module):
    """y_t = M_t(q_t), M written with (k_t, v_t) at a rate and a retention that each token chooses (S2, S8)."""

    def __init__(self, memory: AssociativeMemory) -> None:
        super().__init__()
        self.memory = memory
        self.query, self.key, self.value = (nn.Linear(DIM, DIM, bias=False).double() for _ in range(3))
        self.rates = nn.Linear(DIM, 2).double()
        start = memory.init(dtype=torch.float64)["model"]
        self.start = nn.ParameterDict({name: nn.Parameter(0.3 * torch.randn_like(t)) for name, t in start.items()})

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        unit = nn.functional.normalize
        lr, retention = torch.sigmoid(self.rates(x)).unbind(-1)
        return unit(self.query(x), dim=-1), unit(self.key(x), dim=-1), self.value(x), 0.5 * lr, 0.5 + 0.5 * retention

    def forward(self, x: Tensor) -> Tensor:
        q, k, v, lr, retention = self.project(x)
        state: dict[str, Any] = self.memory.init((len(x),), dtype=x.dtype)
        state["model"] = {name: start.expand(len(x), *start.shape) for name, start in self.start.items()}
        outputs = []
        for t in range(x.shape[1]):
            state, _ = self.memory.write(state, k[:, t], v[:, t], time=t, lr=lr[:, t], retention=retention[:, t])
            outputs.append(self.memory.read(state, q[:, t]))
        return torch.stack(outputs, 1)


def gated_delta_rule(layer: SequenceMemory, x: Tensor, strength: float) -> Tensor:
    """S8 and S7 by their own formula: S <- a S (I - b k k^T) + b w k^T, a = alpha, b = strength eta / alpha."""
    q, k, v, lr, retention = layer.project(x)
    results = []
    for sequence in range(len(x)):
        state, outputs = layer.start["weight"], []
        for t in range(x.shape[1]):
            key, a = k[sequence, t], retention[sequence, t]
            b = lr[sequence, t] / a
            forget = torch.eye(DIM, dtype=torch.float64) - strength * b * torch.outer(key, key)
            state = a * state @ forget + b * torch.outer(a * v[sequence, t], key)
            outputs.append(state @ q[sequence, t])
        results.append(torch.stack(outputs))
    return torch.stack(results)


LINEAR: dict[str, tuple[AssociativeMemory, float]] = {
    "l2": (AssociativeMemory(Matrix(DIM, DIM), l2, GradientDescent()), 1.0),
    "dot product, forgetting along keys": (
        AssociativeMemory(Matrix(DIM, DIM), dot_product, DeltaGradientDescent()),
        1.0,
    ),
    "l2, forgetting along keys": (AssociativeMemory(Matrix(DIM, DIM), l2, DeltaGradientDescent()), 2.0),
    "dot product": (AssociativeMemory(Matrix(DIM, DIM), dot_product, GradientDescent()), 0.0),
}
DEEP: dict[str, AssociativeMemory] = {
    "mlp": AssociativeMemory(MLP(DIM, 6, DIM), l2, GradientDescent()),
    "mlp, forgetting along keys": AssociativeMemory(MLP(DIM, 6, DIM), dot_product, DeltaGradientDescent()),
    "mlp, in chunks": AssociativeMemory(MLP(DIM, 6, DIM), l2, GradientDescent(), period=3),
}
MEMORIES = {**{name: memory for name, (memory, _) in LINEAR.items()}, **DEEP}


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def slopes(output: Callable[[SequenceMemory, Tensor], Tensor], layer: SequenceMemory, x: Tensor) -> dict[str, Tensor]:
    parameters = dict(layer.named_parameters())
    weights = torch.linspace(-1, 1, BATCH * TIME * DIM, dtype=torch.float64).view(BATCH, TIME, DIM)
    found = torch.autograd.grad((output(layer, x) * weights).sum(), list(parameters.values()))
    return dict(zip(parameters, found, strict=True))


@pytest.mark.parametrize("name", LINEAR)
def test_a_linear_sequence_memory_is_the_gated_delta_rule(name: str) -> None:
    """Answers and every gradient, against the formula of S8 (S7 for the factor of two)."""
    memory, strength = LINEAR[name]
    layer, x = SequenceMemory(memory), draw(BATCH, TIME, DIM)

    def reference(layer: SequenceMemory, x: Tensor) -> Tensor:
        return gated_delta_rule(layer, x, strength)

    torch.testing.assert_close(layer(x), reference(layer, x), rtol=1e-12, atol=1e-12)
    found, expected = slopes(SequenceMemory.forward, layer, x), slopes(reference, layer, x)
    for parameter, slope in expected.items():
        torch.testing.assert_close(found[parameter], slope, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", MEMORIES)
def test_every_initial_state_and_projection_learns(name: str) -> None:
    """S4: all of them receive an outer gradient, which is how knowledge passes from the slow level to the fast one."""
    found = slopes(SequenceMemory.forward, SequenceMemory(MEMORIES[name]), draw(BATCH, TIME, DIM))
    assert {"query.weight", "key.weight", "value.weight", "rates.weight"} < set(found)
    assert sum(parameter.startswith("start") for parameter in found) == (1 if name in LINEAR else 2)
    for parameter, slope in found.items():
        assert slope.abs().max() > 1e-6, f"{parameter} learns nothing"


@pytest.mark.parametrize("name", MEMORIES)
@pytest.mark.slow
def test_an_answer_depends_on_its_past_alone(name: str) -> None:
    layer, x = SequenceMemory(MEMORIES[name]), draw(1, TIME, DIM)
    reach = torch.autograd.functional.jacobian(layer, x)[0, :, :, 0].abs().sum((1, 3))
    future = torch.ones(TIME, TIME).triu(1).bool()
    assert not reach[future].any()
    period = MEMORIES[name].period
    for t in range(TIME):  # chunks end with their last token: until then their tokens are not in the memory
        written = t + 1 if period == 1 else (t + 1) // period * period
        assert bool((reach[t, :written] > 0).all()), f"answer {t} has forgotten some of tokens 0 to {written - 1}"
