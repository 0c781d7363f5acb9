"""SelfModifyingTitans: S4 and S6 written out token by token, with nothing of the layer but its parameters."""

from typing import Any

import pytest
import torch
from sequences import leaves, shaped
from torch import Tensor
from torch.nn.functional import silu

from nestlearn.layers import SelfModifyingTitans
from nestlearn.memory import AssociativeMemory, DeltaGradientDescent, Matrix, dot_product
from nestlearn.ops import parallel_scan

Memories = dict[str, dict[str, Tensor]]


def make(**options: Any) -> SelfModifyingTitans:
    """Two heads of four numbers, with every parameter away from the zero where it may start."""
    layer = SelfModifyingTitans(8, heads=2, **options).double()
    for name, parameter in layer.named_parameters():
        parameter.data += 0.3 * torch.randn_like(parameter) if name.startswith(("banks.", "fixed.")) else 0
    return layer


def unit(x: Tensor) -> Tensor:
    return x / (x.square().sum(-1, keepdim=True) + 1e-6).sqrt()


def apply(weights: dict[str, Tensor], x: Tensor) -> Tensor:
    """W(x): a matrix, or W_outer tanh(W_inner x) / sqrt(hidden). Weights [B, H, ...], x [B, H, d]."""
    if "weight" in weights:
        return torch.einsum("bhij,bhj->bhi", weights["weight"], x)
    return torch.einsum("bhij,bhj->bhi", weights["outer"], hidden(weights, x))


def whole(weights: dict[str, Tensor], features: Tensor | None) -> dict[str, Tensor]:
    """The weights of a memory with the features that stay."""
    return weights if features is None else {**weights, "inner": weights["inner"] + features}


def hidden(weights: dict[str, Tensor], x: Tensor) -> Tensor:
    before = torch.einsum("bhij,bhj->bhi", weights["inner"], x)
    return before.tanh() / before.shape[-1] ** 0.5


def written(
    weights: dict[str, Tensor],
    held: dict[str, Tensor],
    box: dict[str, Tensor],
    base: Tensor,
    features: Tensor | None,
    key: Tensor,
    value: Tensor,
    eta: Tensor,
    alpha: Tensor,
    theta: Tensor | None,
    layer: SelfModifyingTitans,
    dgd: bool,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """One memory after one token, by autograd; the value is a constant of the loss, not a function of the weights."""

    def loss(weights: dict[str, Tensor]) -> Tensor:
        answer = apply(whole(weights, features), key) + torch.einsum("bhij,bhj->bhi", base, key)
        return (answer - value).square().sum() / 2 if layer.regresses else -(answer * value).sum()

    slopes = torch.func.grad(loss)(held)
    inputs = {"weight": key, "inner": key, "outer": hidden(whole(held, features), key) if "inner" in held else key}
    after, boxes = {}, {}
    for name, weight in weights.items():
        forgotten = torch.einsum("bhij,bhj,bhl->bhil", weight, inputs[name], inputs[name]) if dgd else 0
        step = eta[..., None, None] * slopes[name]
        if theta is not None:
            step = theta[..., None, None] * box[name] + step
            boxes[name] = step
        after[name] = alpha[..., None, None] * weight - eta[..., None, None] * forgotten - step
    return after, boxes


def slow_titans(layer: SelfModifyingTitans, x: Tensor, dgd: bool = True) -> tuple[Tensor, Memories]:
    """The layer's answers and memories, one token after the other."""
    (batch, time, dim), heads = x.shape, layer.heads
    width, filters = dim // heads, layer.convolution.weight
    padded = torch.cat([x.new_zeros(batch, len(filters) - 1, 3 * dim), x @ layer.qkv.weight.T], 1)
    mixed = silu(sum(padded[:, j : j + time] * filters[j] for j in range(len(filters))))
    seen = unit(mixed.view(batch, time, 3, heads, width))
    theta = None if layer.momentum is None else layer.momentum(x).sigmoid()
    start = {name: each for bank in layer.banks.values() for name, each in bank.start.items()}
    base = {name: each.expand(batch, -1, -1, -1) for bank in layer.banks.values() for name, each in bank.base.items()}
    features = dict(layer.banks["mlp"].features) if "mlp" in layer.banks else {}
    gain = {name: each.sigmoid() for bank in layer.banks.values() for name, each in bank.gain.items()}
    running = {name: {part: t.expand(batch, -1, -1, -1) for part, t in each.items()} for name, each in start.items()}
    boxes = {name: {part: torch.zeros_like(t) for part, t in each.items()} for name, each in running.items()}
    held, answers = dict(running), []
    for t in range(time):
        for name in running:
            if t % (layer.chunk if name == "mem" else layer.projection_chunk) == 0:
                held[name] = running[name]

        def read(name: str, z: Tensor, weights: Memories) -> Tensor:
            return apply(whole(weights[name], features.get(name)), z) + torch.einsum("bhij,bhj->bhi", base[name], z)

        def rate(name: str, z: Tensor) -> Tensor:
            told = read(name, z, held) if name in held else torch.einsum("hij,bhj->bhi", layer.fixed[name], z)
            return told[..., 0] * width**0.5 + layer.bias[name]

        q, k, v = seen[:, t].unbind(1)
        alpha = rate("alpha", k).sigmoid() if layer.retention else x.new_ones(batch, heads)
        most = ((1 + alpha) / layer.strength if layer.strength else torch.full_like(alpha, 9)).clamp(max=layer.max_eta)
        eta = rate("eta", k).sigmoid() * most
        q, k, v = (unit(read(name, z, held)) if name in held else z for name, z in (("q", q), ("k", k), ("v", v)))
        answers.append(read("mem", q, running))
        share = 1.0 if theta is None else 1 - theta[:, t]
        eta = eta * share if layer.regresses else eta
        for name in list(running):
            value = v
            if len(running) > 1:
                value = read(name, v, held)
                value = value / (1 + value.square().sum(-1, keepdim=True)).sqrt() * gain.get(name, 1.0)
            value = value if layer.regresses or theta is None else value * share[..., None]
            now = None if theta is None else theta[:, t]
            running[name], boxes[name] = written(
                running[name],
                held[name],
                boxes[name],
                base[name],
                features.get(name),
                k,
                value,
                eta,
                alpha,
                now,
                layer,
                dgd,
            )
    told = torch.stack(answers, 1)
    told = told / (told.square().mean(-1, keepdim=True) + 1e-5).sqrt() * layer.readout.scale
    return told.flatten(2) @ layer.readout.out.weight.T, running


def unstacked(layer: SelfModifyingTitans, state: dict[str, Any]) -> Memories:
    """The memories of the layer's state by name."""
    found: Memories = {}
    for name, bank in layer.banks.items():
        model = state["banks"][name]["model"]
        if name == "matrix":
            rows = model["weight"].split(list(bank.sizes.values()), -2)
            found |= {each: {"weight": weight} for each, weight in zip(bank.sizes, rows, strict=True)}
        else:
            found |= {each: {part: t[:, :, i] for part, t in model.items()} for i, each in enumerate(bank.sizes)}
    return found


def assert_same(layer: SelfModifyingTitans, x: Tensor, dgd: bool = True) -> None:
    y, state = layer(x, return_state=True)
    told = {"y": y, **dict(leaves(unstacked(layer, state)))}
    expected_y, memories = slow_titans(layer, x, dgd)
    expected = {"y": expected_y, **dict(leaves(memories))}
    assert told.keys() == expected.keys()
    for name, truth in expected.items():
        torch.testing.assert_close(told[name], truth, rtol=1e-10, atol=1e-10, msg=lambda text, name=name: name + text)
    parameters = dict(layer.named_parameters())
    slopes, truths = (
        torch.autograd.grad(sum(t.sin().sum() for t in each.values()), list(parameters.values()))
        for each in (told, expected)
    )
    for name, slope, truth in zip(parameters, slopes, truths, strict=True):
        torch.testing.assert_close(slope, truth, rtol=1e-10, atol=1e-10, msg=lambda text, name=name: name + text)


@pytest.mark.parametrize("memory", ["matrix", "mlp"])
@pytest.mark.parametrize("objective", ["dot_product", "l2"])
@pytest.mark.parametrize("momentum", [False, True], ids=["plain", "momentum"])
def test_chunks_of_one_token_are_s4(memory, objective, momentum):
    layer = make(memory=memory, objective=objective, inner_momentum=momentum, chunk=1)
    assert_same(layer, torch.randn(2, 5, 8, dtype=torch.float64))


@pytest.mark.parametrize("memory", ["matrix", "mlp"])
@pytest.mark.parametrize("objective", ["dot_product", "l2"])
@pytest.mark.parametrize("chunks", [(4, 2), (2, 4), (3, 2)], ids=str)
@pytest.mark.slow
def test_chunks_freeze_what_is_generated_and_every_gradient(memory, objective, chunks):
    """S6, with a ragged end, and projections that wait for as long, shorter or longer than the main memory."""
    layer = make(memory=memory, objective=objective, chunk=chunks[0], projection_chunk=chunks[1])
    assert_same(layer, torch.randn(1, 7, 8, dtype=torch.float64))


@pytest.mark.parametrize("memory", ["matrix", "mlp"])
@pytest.mark.parametrize(
    "options",
    [
        {"retention": False},
        {"inner_momentum": True, "objective": "dot_product"},
        {"inner_momentum": True, "objective": "l2"},
        {"self_modifying": ()},
        {"self_modifying": ("k",)},
        {"self_modifying": ("v", "alpha")},
        {"self_modifying": ("eta",), "modify_query": True},
        {"modify_query": True},
        {"max_eta": 2.0},
        {"hidden": 3},
    ],
    ids=str,
)
@pytest.mark.slow
def test_every_switch(memory, options):
    assert_same(make(memory=memory, chunk=3, **options), torch.randn(1, 5, 8, dtype=torch.float64))


@pytest.mark.parametrize("objective", ["dot_product", "l2"])
def test_gradient_descent_instead_of_delta_gradient_descent(objective):
    layer = make(chunk=4, dgd=False, objective=objective)
    assert layer.max_eta == (1.0 if objective == "dot_product" else 0.25)
    assert_same(layer, torch.randn(1, 7, 8, dtype=torch.float64), dgd=False)


def test_with_nothing_self_modified_it_is_the_rule_of_a_memory_layer():
    layer, x = make(self_modifying=(), chunk=4), torch.randn(2, 11, 8, dtype=torch.float64)
    mixed, _ = layer.convolution(layer.qkv(x), layer.convolution.initial_state(2))
    query, key, value = (unit(part.unflatten(-1, (2, 4)).transpose(1, 2)) for part in mixed.chunk(3, -1))
    rate = {name: (key @ layer.fixed[name].mT)[..., 0] * 2 + layer.bias[name][:, None] for name in ("eta", "alpha")}
    memory = AssociativeMemory(Matrix(4, 4), dot_product, DeltaGradientDescent())
    bank = layer.banks["matrix"]
    start = {"model": {"weight": bank.start["mem"]["weight"].expand(2, -1, -1, -1)}}
    rates = (rate["eta"].sigmoid(), rate["alpha"].sigmoid())
    answers, _ = parallel_scan(memory, key, value, query, *rates, start, read="before")
    expected = layer.readout(answers + query @ bank.base["mem"].mT, x)
    torch.testing.assert_close(layer(x), expected, rtol=1e-10, atol=1e-10)


def test_a_fresh_layer_is_nearly_one_with_fixed_projections():
    layer = SelfModifyingTitans(32, heads=2, chunk=8)
    fixed = SelfModifyingTitans(32, heads=2, chunk=8, self_modifying=("eta",))
    x = torch.randn(2, 64, 32)
    own = dict(layer.named_parameters())
    for name, parameter in fixed.named_parameters():
        if name in own:
            parameter.data.copy_(own[name])
    # What k and v see is turned by their bases, which a fixed projection has in its own weights.
    for part, name in ((1, "k"), (2, "v")):
        layer.banks["matrix"].base[name].data.copy_(torch.eye(16).expand(2, 16, 16))
        assert fixed.qkv.weight.chunk(3)[part].equal(layer.qkv.weight.chunk(3)[part])
    y, close = layer(x), fixed(x)
    assert torch.nn.functional.cosine_similarity(y, close, dim=-1).mean() > 0.95


def test_what_is_read_is_seen_as_it_is_and_what_is_generated_is_turned():
    base = SelfModifyingTitans(16, heads=2).banks["matrix"].base
    assert torch.equal(base["mem"].detach(), torch.eye(8).expand(2, 8, 8))
    for name in ("k", "v"):
        turned = base[name].detach()
        torch.testing.assert_close(turned @ turned.mT, torch.eye(8).expand(2, 8, 8))
        assert not torch.allclose(turned, base["mem"].detach())
    assert not base["eta"].any()


def test_bounds_hold_whatever_the_input():
    layer = make(max_eta=2.0, chunk=8)
    told = []
    generate = layer._generate
    layer._generate = lambda *given: told.append(generate(*given)) or told[-1]
    layer(1e4 * torch.randn(2, 40, 8, dtype=torch.float64))
    for tokens in told:
        assert ((tokens.eta >= 0) & (tokens.eta <= 1 + tokens.alpha) & (tokens.alpha >= 0) & (tokens.alpha <= 1)).all()
        assert max(t.norm(dim=-1).max() for t in (tokens.key, tokens.value, tokens.query)) < 1 + 1e-9


@pytest.mark.parametrize("memory", ["matrix", "mlp"])
def test_memories_stay_bounded_when_keys_vary_and_the_value_does_not(memory):
    """The feedback that makes a memory grow which is written with what it answers, at the largest eta and alpha."""
    layer = make(memory=memory, chunk=8)
    layer.bias["eta"].data.fill_(30)
    layer.bias["alpha"].data.fill_(30)
    layer.qkv.weight.data[:16, 0] = 0  # keys and queries see what varies ...
    layer.qkv.weight.data[16:, 1:] = 0  # ... and values what does not
    x = torch.randn(1, 800, 8, dtype=torch.float64)
    x[..., 0] = 1
    with torch.no_grad():
        _, state = layer(x, return_state=True)
    assert max(t.abs().max() for _, t in leaves(state["banks"])) < 5


def test_what_is_read_survives_a_restart(tmp_path):
    layer, x = make(chunk=4), torch.randn(2, 11, 8, dtype=torch.float64)
    _, state = layer(x[:, :6], return_state=True)
    torch.save({"layer": layer.state_dict(), "state": shaped(lambda t: t.detach(), state)}, tmp_path / "file")
    read = torch.load(tmp_path / "file", weights_only=True)
    again = make(chunk=4)
    again.load_state_dict(read["layer"])
    torch.testing.assert_close(again(x[:, 6:], state=read["state"]), layer(x)[:, 6:], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chunk": 0}, "chunk: expected at least 1 token, got 0"),
        ({"projection_chunk": 0}, "projection_chunk: expected at least 1 token, got 0"),
        ({"memory": "box"}, "memory: expected 'matrix' or 'mlp', got 'box'"),
        ({"objective": "oja"}, r"objective: expected one of \['dot_product', 'l2'\], got 'oja'"),
        ({"self_modifying": ("q",)}, r"self_modifying: expected some of .* got \('q',\); .* modify_query"),
        ({"self_modifying": "k"}, "self_modifying: expected some of"),
        ({"max_eta": 3.0}, "max_eta: expected 0 to 2, beyond which this memory diverges, got 3.0"),
        ({"heads": 3}, "heads: expected a divisor of dim = 8, got 3"),
        ({"heads": 8}, "heads: expected at least 2 numbers in each, got 8 / 8 = 1"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        SelfModifyingTitans(8, **options)
