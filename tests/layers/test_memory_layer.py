"""MemoryLayer: every rule with every model equals the core's oracle on the layer's own associations, and textbooks."""

from itertools import product

import numpy as np
import pytest
import torch
from sequences import assert_same, gated_delta_rule, leaves, shaped
from torch import Tensor

from nestlearn.layers import MemoryLayer
from nestlearn.layers.memory_layer import RULES
from nestlearn.layers.rates import bounded_eta, erasures
from nestlearn.memory import AssociativeMemory, DeltaGradientDescent, GradientDescent, InnerMomentum, Matrix, l2
from nestlearn.ops import scan

FORMS = [(rule, memory) for rule, memory in product(RULES, ("matrix", "mlp")) if (rule, memory) != ("oja", "mlp")]


def make(rule: str, memory: str = "matrix", **options: object) -> MemoryLayer:
    layer = MemoryLayer(8, heads=2, rule=rule, memory=memory, **options).double()
    for name, parameter in layer.named_parameters():
        parameter.data += 0.3 * torch.randn_like(parameter) if "start." in name else 0
    return layer


def everything(layer: MemoryLayer, x: Tensor, oracle: bool) -> dict[str, Tensor]:
    """Answers, state, and the gradient of all of them for every parameter."""
    if oracle:
        found, _ = layer.associations(x)
        start = {"model": layer.initial_state(len(x))["memory"]["model"]}
        answers, memory = scan(layer.memory, **found, state=start, chunk=layer.chunk, window=layer.window)
        y = layer.readout(answers, x)
    else:
        y, state = layer(x, return_state=True)
        memory = state["memory"]
    told = {"y": y, **dict(leaves(memory))}
    slopes = torch.autograd.grad(sum(t.sin().sum() for t in told.values()), list(layer.parameters()))
    names = [f"gradient of {name}" for name, _ in layer.named_parameters()]
    return shaped(lambda t: t.detach(), told) | dict(zip(names, slopes, strict=True))


@pytest.mark.parametrize("momentum", [False, True], ids=["plain", "momentum"])
@pytest.mark.parametrize(("rule", "memory"), FORMS)
def test_every_rule_equals_the_oracle(rule, memory, momentum):
    """A ragged last chunk of two, with chunks of five."""
    layer, x = make(rule, memory, chunk=5, inner_momentum=momentum), torch.randn(2, 12, 8, dtype=torch.float64)
    assert_same(everything(layer, x, oracle=False), everything(layer, x, oracle=True))


@pytest.mark.parametrize("length", [1, 70])
def test_gated_delta_is_the_gated_delta_rule_of_plain_loops(length):
    """The whole layer in numpy, S8 with a = alpha, b = eta / alpha, v = alpha v; longer than a block of the kernel."""
    layer, x = make("gated_delta"), torch.randn(2, length, 8, dtype=torch.float64)
    weights = {name: p.detach().numpy() for name, p in layer.named_parameters()}

    def sigmoid(z: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-z))

    def unit(z: np.ndarray) -> np.ndarray:
        return z / np.sqrt((z**2).sum(-1, keepdims=True) + 1e-6)

    rows = []
    for sequence in x.numpy():
        projected = np.concatenate([np.zeros((3, 24)), sequence @ weights["qkv.weight"].T])
        mixed = sum(projected[j : j + length] * weights["convolution.weight"][j] for j in range(4))
        mixed = mixed * sigmoid(mixed)
        rates = sequence @ weights["rates.weight"].T + weights["rates.bias"]
        told = []
        for head in range(2):
            q, k, v = (mixed[:, 8 * part + 4 * head : 8 * part + 4 * head + 4] for part in range(3))
            alpha = sigmoid(rates[:, 2 + head])
            beta, start = sigmoid(rates[:, head]) / alpha, weights["start.weight"][head]
            answer, _ = gated_delta_rule(unit(q), unit(k), alpha[:, None] * v, beta, alpha, start)
            told.append(answer / np.sqrt((answer**2).mean(-1, keepdims=True) + 1e-5) * weights["readout.scale"])
        rows.append(np.concatenate(told, -1) @ weights["readout.out.weight"].T)
    torch.testing.assert_close(layer(x), torch.from_numpy(np.stack(rows)), rtol=1e-10, atol=1e-10)


def test_keys_and_queries_have_unit_length_and_rates_their_bounds():
    layer = make("gated_delta", inner_momentum=True, max_eta=2.0)
    found, _ = layer.associations(10 * torch.randn(2, 50, 8, dtype=torch.float64))
    for name in ("key", "query"):
        torch.testing.assert_close(
            found[name].norm(dim=-1), torch.ones(2, 2, 50, dtype=torch.float64), rtol=0, atol=1e-3
        )
    alpha, eta = found["alpha"], found["eta"]
    assert ((alpha > 0) & (alpha < 1) & (eta > 0) & (eta < 1 + alpha)).all()
    assert ((found["momentum"] > 0) & (found["momentum"] < 1)).all()


@pytest.mark.parametrize("rule", ["delta", "gated_delta", "oja", "omega", "dgd"])
def test_the_largest_eta_keeps_a_repeated_key_bounded(rule):
    """One key and one value for ever, at the very bound of eta: what the memory answers does not grow."""
    layer = make(rule, max_eta=2 / make(rule).strength)
    key = torch.zeros(1, 1, 400, 4, dtype=torch.float64)
    key[..., 0] = 1
    logit = torch.full((1, 1, 400), 30.0, dtype=torch.float64)
    alpha = torch.full_like(logit, 0.999)
    eta = bounded_eta(logit, alpha, layer.max_eta, layer.strength)
    start = {"model": {"weight": torch.full((1, 1, 4, 4), 0.5, dtype=torch.float64)}}
    y, _ = scan(layer.memory, key, key, key, eta, alpha, start, chunk=layer.chunk, window=layer.window)
    assert y.abs().max() < 5


def test_what_erases_is_counted():
    def strength(rule: object, chunk: int = 1, window: int = 1) -> int:
        return erasures(AssociativeMemory(Matrix(2, 2), l2, rule), chunk, window)

    assert strength(GradientDescent()) == 1
    assert strength(GradientDescent(), chunk=8) == 8
    assert strength(DeltaGradientDescent(), chunk=8) == 2
    assert strength(InnerMomentum(rule=DeltaGradientDescent()), chunk=8) == 16
    assert strength(GradientDescent(), window=4) == 4


def test_what_nobody_chose_is_as_documented():
    layer = MemoryLayer(16, heads=2, rule="dgd", memory="mlp")
    assert layer.features.shape == (2, 16, 8)  # twice the width of a head
    remembers = layer.rates.bias[2:].sigmoid()
    torch.testing.assert_close(remembers, torch.tensor([15 / 16, 1023 / 1024]))
    assert MemoryLayer(16, heads=2, rule="gated_delta").max_eta == 1
    assert MemoryLayer(16, heads=2, rule="dgd").max_eta == 0.5


def test_a_window_of_one_is_no_window():
    torch.manual_seed(1)
    omega = MemoryLayer(8, heads=2, rule="omega", window=1).double()
    torch.manual_seed(1)
    plain = MemoryLayer(8, heads=2, rule="gated_delta").double()
    x = torch.randn(1, 7, 8, dtype=torch.float64)
    assert torch.equal(omega(x), plain(x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": "gate"}, r"rule: expected one of \['delta', .*got 'gate'"),
        ({"memory": "box"}, "memory: expected 'matrix' or 'mlp', got 'box'"),
        ({"memory": "mlp", "rule": "oja"}, "rule: 'oja' is made for a matrix, pass memory='matrix' instead of 'mlp'"),
        ({"chunk": 0}, "chunk: expected at least 1 token, got 0"),
        ({"window": 0}, "window: expected at least 1 token, got 0"),
        ({"convolution": 0}, "convolution: expected a width of at least 1 token, got 0"),
        ({"max_eta": 2.5}, "max_eta: expected 0 to 2, beyond which this memory diverges, got 2.5"),
        ({"rule": "omega", "max_eta": 1.0}, "max_eta: expected 0 to 0.5"),
        ({"heads": 3}, "heads: expected a divisor of dim = 8, got 3"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        MemoryLayer(8, **options)
