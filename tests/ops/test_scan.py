"""The oracle itself, against each rule's formula written out with matrices, and autograd for the MLP."""

import pytest
import torch
from sequences import RULES, assert_same, everything, matrix, mlp, shaped, tokens
from torch import Tensor

from nestlearn.memory import (
    MLP,
    AssociativeMemory,
    DeltaGradientDescent,
    GradientDescent,
    InnerMomentum,
    Matrix,
    dot_product,
    l2,
    oja,
)
from nestlearn.ops import parallel_scan, scan

OBJECTIVES = {objective.name: objective for objective in (dot_product, l2, oja)}


def gradient(objective: str, weight: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """M2 and M3 for one key and one value."""
    outer = torch.outer
    if objective == "dot_product":
        return -outer(value, key)
    if objective == "l2":
        return outer(weight @ key - value, key)
    return -outer(value, key - weight.mT @ value)


def by_hand(objective: str, rule: str, a: dict, chunk: int, window: int, read: str) -> tuple[Tensor, Tensor, Tensor]:
    """S2, S4, S6 and [T] 9-10 for one sequence: answers, last matrix, last momentum."""
    weight = frozen = a["state"]["model"]["weight"]
    momentum = torch.zeros_like(weight)
    identity = torch.eye(4, dtype=weight.dtype)
    answers = []
    for t in range(len(a["key"])):
        if t % chunk == 0:
            frozen = weight
        if read == "before":
            answers.append(weight @ a["query"][t])
        seen = range(max(0, t - window + 1), t + 1)
        step = a["eta"][t] * sum(gradient(objective, frozen, a["key"][i], a["value"][i]) for i in seen)
        forget = a["alpha"][t] * identity
        if rule.startswith("delta"):
            forget = forget - a["eta"][t] * sum(torch.outer(a["key"][i], a["key"][i]) for i in seen)
        momentum = step + (a["momentum"][t] * momentum if "momentum" in a else 0)
        weight = weight @ forget - momentum
        if read == "after":
            answers.append(weight @ a["query"][t])
    return torch.stack(answers), weight, momentum


@pytest.mark.parametrize("read", ["after", "before"])
@pytest.mark.parametrize("window", [1, 3])
@pytest.mark.parametrize("chunk", [1, 3])
@pytest.mark.parametrize("rule", ["descent", "delta", "momentum", "delta, momentum"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_matrix_memory_follows_its_formula(objective, rule, chunk, window, read):
    memory = matrix(OBJECTIVES[objective], rule)
    arguments = tokens(memory, 7, batch=())
    y, state = scan(memory, **arguments, chunk=chunk, window=window, read=read)
    answers, weight, momentum = by_hand(objective, rule, arguments, chunk, window, read)
    torch.testing.assert_close(y, answers, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(state["model"]["weight"], weight, rtol=1e-12, atol=1e-12)
    if "momentum" in rule:
        torch.testing.assert_close(state["rule"]["weight"]["model"]["value"], momentum, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("chunk", [1, 3])
@pytest.mark.parametrize("rule", ["descent", "delta", "delta, momentum"])
@pytest.mark.parametrize("objective", [dot_product, l2], ids=lambda objective: objective.name)
def test_an_mlp_memory_follows_autograd_layer_by_layer(objective, rule, chunk):
    """S5: each matrix forgets along its own input, gradients and inputs at the chunk's start (S6)."""
    memory = mlp(objective, rule)
    arguments = tokens(memory, 7, batch=())
    silu = torch.nn.functional.silu

    def units(parameters: dict, key: Tensor) -> Tensor:
        return silu(parameters["inner"] @ key) / 5**0.5

    def answer(parameters: dict, key: Tensor) -> Tensor:
        return key + parameters["outer"] @ units(parameters, key)

    def loss(parameters: dict, key: Tensor, value: Tensor) -> Tensor:
        told = answer(parameters, key)
        return -(told * value).sum() if objective is dot_product else 0.5 * (told - value).square().sum()

    model = frozen = arguments["state"]["model"]
    boxes = {name: torch.zeros_like(t) for name, t in model.items()}
    expected = []
    for t in range(7):
        frozen = model if t % chunk == 0 else frozen
        key, eta = arguments["key"][t], arguments["eta"][t]
        slopes = torch.func.grad(loss)(frozen, key, arguments["value"][t])
        inputs = {"inner": key, "outer": units(frozen, key)}
        theta = arguments["momentum"][t] if "momentum" in arguments else 0.0
        boxes = {name: theta * box + eta * slopes[name] for name, box in boxes.items()}
        model = {
            name: arguments["alpha"][t] * w
            - ("delta" in rule) * eta * torch.outer(w @ inputs[name], inputs[name])
            - boxes[name]
            for name, w in model.items()
        }
        expected.append(answer(model, arguments["query"][t]))
    y, state = scan(memory, **arguments, chunk=chunk)
    torch.testing.assert_close(y, torch.stack(expected), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(state["model"], model, rtol=1e-12, atol=1e-12)


def test_the_implicit_step_is_the_exact_minimum():
    """O12: with the dot product and retention 1 a write minimises 1/2 ||M k - v||^2 + ||M - M_{t-1}||^2 / (2 eta)."""
    memory = matrix(dot_product, "implicit")
    a = tokens(memory, 1, batch=())
    _, state = scan(memory, **(a | {"alpha": 1.0}))
    start, key, value, eta = a["state"]["model"]["weight"], a["key"][0], a["value"][0], a["eta"][0]
    system = eta * torch.outer(key, key) + torch.eye(4, dtype=torch.float64)
    expected = (eta * torch.outer(value, key) + start) @ torch.linalg.inv(system)
    torch.testing.assert_close(state["model"]["weight"], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("split", [0, 1, 2, 3, 4, 7, 8])
@pytest.mark.parametrize("memory", [matrix(l2, "delta, momentum"), mlp(l2, "delta, momentum")], ids=["matrix", "mlp"])
def test_one_long_call_equals_two_with_the_state_carried(memory, split):
    options = {"chunk": 3, "window": 2}
    a = tokens(memory, 8)
    whole, after = scan(memory, **a, **options)
    parts, state = [], a["state"]
    for section in (slice(0, split), slice(split, 8)):
        part = {name: t[:, :, section] for name, t in a.items() if name != "state"}
        y, state = scan(memory, **part, state=state, **options)
        parts.append(y)
    assert torch.equal(torch.cat(parts, 2), whole)
    torch.testing.assert_close(state, after, rtol=0, atol=0)


def test_a_start_is_expanded_and_numbers_serve_every_token():
    memory = matrix(l2)
    a = tokens(memory, 5)
    a |= {"eta": 0.3, "alpha": 0.9, "state": {"model": {"weight": a["state"]["model"]["weight"][0]}}}
    full = dict(a)
    full["state"] = {"model": {"weight": a["state"]["model"]["weight"].expand(2, 2, 3, 4)}}
    full |= {name: torch.full((2, 2, 5), a[name], dtype=torch.float64) for name in ("eta", "alpha")}
    torch.testing.assert_close(scan(memory, **a), scan(memory, **full), rtol=0, atol=0)


def test_without_a_state_a_matrix_starts_at_zero_and_answers_like_its_values():
    a = tokens(matrix(l2), 4, dtype=torch.bfloat16)
    del a["state"]
    y, state = scan(matrix(l2), **a, read="before")
    assert y.dtype == torch.bfloat16 and state["model"]["weight"].dtype == torch.float32
    assert not y[..., 0, :].any() and y[..., 1:, :].any()


def test_a_written_memory_answers_differently_without_any_label():
    memory = mlp(l2)
    a = tokens(memory, 6)
    _, state = scan(memory, **a)
    assert not torch.allclose(memory.read(state, a["query"]), memory.read(a["state"], a["query"]))


@pytest.mark.parametrize(
    "memory",
    [matrix(oja, "delta"), pytest.param(mlp(l2, "delta, momentum"), marks=pytest.mark.slow)],
    ids=["matrix", "mlp"],
)
def test_gradcheck(memory):
    a = tokens(memory, 4, batch=(1,))
    names = [name for name in a if name != "state"]
    model = list(a["state"]["model"])

    def run(*tensors: Tensor) -> Tensor:
        given = dict(zip(names, tensors[: len(names)], strict=True))
        start = dict(zip(model, tensors[len(names) :], strict=True))
        return scan(memory, **given, state={"model": start}, chunk=2, window=2)[0]

    inputs = [a[name] for name in names] + [a["state"]["model"][name] for name in model]
    assert torch.autograd.gradcheck(run, [t.requires_grad_() for t in inputs])


@pytest.mark.parametrize("rule", RULES)
def test_no_token_is_an_empty_answer_and_the_same_state(rule):
    memory = matrix(l2, rule)
    a = tokens(memory, 0)
    y, state = scan(memory, **a, chunk=3, window=2)
    assert y.shape == (2, 2, 0, 3) and int(state["time"]) == 0
    assert torch.equal(state["model"]["weight"], a["state"]["model"]["weight"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": torch.zeros(2, 2, 4, 3)}, r"value: expected \[\*B, T, 3\].*got \(2, 2, 4, 3\)"),
        ({"key": torch.zeros(2, 2, 5, 7)}, r"key: expected \[\*B, T, 4\]"),
        ({"eta": torch.zeros(3)}, r"eta: expected a number or a tensor \(2, 2, 5\).*got \(3,\)"),
        ({"chunk": 0}, "chunk: expected at least 1 token, got 0"),
        ({"window": 0}, "window: expected at least 1 token, got 0"),
        ({"momentum": 0.5}, "momentum: the rule GradientDescent has none; wrap it in InnerMomentum"),
        ({"read": "never"}, "read: expected 'after' or 'before', got 'never'"),
        ({"state": {"model": {"weight": torch.zeros(3, 2, 3, 4)}}}, r"state: 'weight' has shape \(3, 2, 3, 4\)"),
        ({"state": {"model": {"weight": torch.zeros(1, 4)}}}, r"shape \(1, 4\), .* to one memory \(3, 4\) for each"),
        ({"state": {"model": {"inner": torch.zeros(3, 4)}}}, r"expected parameters \['weight'\] .* got \['inner'\]"),
        ({"state": {"weight": torch.zeros(3, 4)}}, r"under 'model', got a state with \['weight'\]"),
    ],
)
def test_what_cannot_be_is_refused(change, message):
    a = tokens(matrix(l2), 5)
    for run in (scan, parallel_scan):
        with pytest.raises(ValueError, match=message):
            run(matrix(l2), **(a | change))


def test_the_state_of_another_window_is_refused():
    memory = matrix(l2)
    a = tokens(memory, 5)
    _, state = scan(memory, **a, window=3)
    with pytest.raises(ValueError, match=r"expected a window of keys \(2, 2, 1, 4\), got \(2, 2, 2, 4\)"):
        scan(memory, **(a | {"state": state}), window=2)


def test_memories_that_need_other_calls_are_refused():
    slow = AssociativeMemory(Matrix(4, 3), l2, GradientDescent(), period=2)
    with pytest.raises(ValueError, match="expected period 1, got 2; pass chunk=2"):
        scan(slow, **tokens(slow, 3))
    mean = AssociativeMemory(Matrix(4, 3), l2, DeltaGradientDescent(mean=True))
    with pytest.raises(ValueError, match="pass mean=False"):
        scan(mean, **tokens(mean, 3), window=2)


def test_everything_covers_all_inputs():
    """The comparison that the fast forms are held to sees every input and every tensor of the state."""
    memory = AssociativeMemory(MLP(4, 5, 4), l2, InnerMomentum(rule=DeltaGradientDescent()))
    found = everything(scan, memory, tokens(memory, 5), chunk=2, window=2)
    slopes = {name for name in found if name.startswith("gradient of ")}
    assert {name.removeprefix("gradient of ") for name in slopes} == {
        *("key", "value", "query", "eta", "alpha", "momentum", "state.model.inner", "state.model.outer")
    }
    assert all(found[name].abs().max() > 1e-6 for name in slopes)
    assert {"y", "state.frozen.inner", "state.window.key", "state.rule.outer.model.value"} <= set(found)
    with pytest.raises(AssertionError, match="gradient of key"):
        assert_same(found, found | {"gradient of key": shaped(lambda t: t + 1e-8, found["gradient of key"])})
