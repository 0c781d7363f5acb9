"""Layers that are watched, for every rule that looks at them: whatever the layer, it is the linear map of its rows."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import nestlearn as nl
from nestlearn import rules
from nestlearn.precision import products

Make = Callable[..., nl.optim.Optimizer]


def composed(rule: rules.Link) -> Make:
    return lambda params, **given: nl.optim.Optimizer(params, lr=0.02, matrix=rule, element=rules.gradient(), **given)


WATCHERS: dict[str, Make] = {
    "LayerMomentum": lambda params, **given: nl.optim.LayerMomentum(params, refresh=2, **given),
    "LayerMomentum, inputs": lambda params, **given: nl.optim.LayerMomentum(params, sides="input", **given),
    "LayerMomentum, identity": lambda params, **given: nl.optim.LayerMomentum(
        params, sides="input", readout="identity", **given
    ),
    "SecantMomentum": nl.optim.SecantMomentum,
    "DeltaGradientDescent": nl.optim.DeltaGradientDescent,
    "whiten": composed(
        rules.chain(rules.average(0.7), rules.within(rules.whiten("root", of="layers"), rules.orthogonal()))
    ),
    "regress": composed(rules.chain(rules.average(0.7), rules.regress())),
}

QUICK = ("LayerMomentum",)
every_watcher = pytest.mark.parametrize(
    "watcher", [pytest.param(each, marks=() if each in QUICK else pytest.mark.slow) for each in WATCHERS]
)


@pytest.fixture(autouse=True)
def exact() -> Iterator[None]:
    """Float64 throughout, Newton-Schulz too."""
    with products(torch.float32):
        torch.manual_seed(0)
        yield


class Turned(nn.Module):
    """y = x W + b with W [in, out], as the Conv1D of transformers, for which it stands where that is not installed."""

    def __init__(self, out: int, into: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.3 * torch.randn(into, out))
        self.bias = nn.Parameter(torch.zeros(out))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


Turned.__module__, Turned.__qualname__ = "transformers.pytorch_utils", "Conv1D"


@dataclass(frozen=True)
class Case:
    """A layer, the shape of what goes in, and how it is called."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    call: Callable[[nn.Module, Tensor], Tensor] = lambda layer, x: layer(x)


CASES: dict[str, Case] = {
    "linear": Case(lambda: nn.Linear(4, 3), (6, 4)),
    "linear, sequences": Case(lambda: nn.Linear(4, 3), (2, 5, 4)),
    "linear, one input": Case(lambda: nn.Linear(4, 3), (4,)),
    "linear, by keyword": Case(lambda: nn.Linear(4, 3), (6, 4), lambda layer, x: layer(input=x)),
    "conv1d": Case(lambda: nn.Conv1d(2, 3, 2, stride=2, padding=1, dilation=2), (3, 2, 9)),
    "conv1d, no batch": Case(lambda: nn.Conv1d(2, 3, 2), (2, 9)),
    "conv2d": Case(lambda: nn.Conv2d(2, 5, (2, 3), stride=(2, 1), padding=(1, 2), dilation=(1, 2)), (2, 2, 5, 6)),
    "conv2d, no batch, as wide as channels": Case(lambda: nn.Conv2d(2, 5, 3, padding=1), (2, 5, 5)),
    "conv2d, by keyword": Case(lambda: nn.Conv2d(2, 4, 3), (2, 2, 5, 5), lambda layer, x: layer(input=x)),
    "conv2d, same": Case(lambda: nn.Conv2d(2, 4, (2, 3), padding="same", dilation=2), (2, 2, 5, 6)),
    "conv2d, valid": Case(lambda: nn.Conv2d(2, 4, 3, padding="valid"), (2, 2, 5, 6)),
    "conv2d, circular": Case(lambda: nn.Conv2d(2, 4, 3, padding=(1, 2), padding_mode="circular"), (2, 2, 5, 6)),
    "conv2d, reflect, same": Case(lambda: nn.Conv2d(2, 4, 4, padding="same", padding_mode="reflect"), (2, 2, 5, 6)),
    "conv2d, replicate": Case(lambda: nn.Conv2d(2, 4, 3, padding=2, padding_mode="replicate"), (2, 2, 5, 6)),
    "conv3d": Case(lambda: nn.Conv3d(2, 3, (1, 2, 2), stride=(1, 2, 1), padding=(0, 1, 1)), (2, 2, 2, 4, 3)),
    "conv3d, circular, no batch": Case(lambda: nn.Conv3d(2, 3, 2, padding=1, padding_mode="circular"), (2, 2, 3, 3)),
    "turned": Case(lambda: Turned(3, 4), (6, 4)),
    "turned, by keyword": Case(lambda: Turned(3, 4), (2, 3, 4), lambda layer, x: layer(x=x)),
    "checkpointed": Case(lambda: nn.Linear(4, 3), (6, 4), lambda layer, x: checkpoint(layer, x, use_reentrant=False)),
    "checkpointed, reentrant": Case(
        lambda: nn.Linear(4, 3), (6, 4), lambda layer, x: checkpoint(layer, x.requires_grad_(), use_reentrant=True)
    ),
    "compiled": Case(lambda: nn.Linear(4, 3), (6, 4), lambda layer, x: torch.compile(layer, backend="aot_eager")(x)),
}


def as_rows(layer: nn.Module, x: Tensor) -> Tensor:
    """What stands in front of every position of an answer, found by the layer itself: each entry of a patch is what a
    kernel gives that is one there and zero elsewhere.
    """
    if not hasattr(layer, "kernel_size"):
        return x.reshape(-1, x.shape[-1])
    size = layer.weight[0].numel()
    probe = copy.deepcopy(layer)
    probe.weight = nn.Parameter(torch.eye(size).to(x).reshape(size, *layer.weight.shape[1:]))
    probe.bias = None
    dims = len(layer.kernel_size)
    found = probe(x if x.ndim == dims + 2 else x[None]).detach()
    return found.movedim(1, -1).reshape(-1, size)


def slope(answer: Tensor) -> Tensor:
    return (answer - 0.3).cosh().mean()


@every_watcher
@pytest.mark.parametrize("name", CASES)
def test_a_layer_is_the_linear_map_of_its_rows(name: str, watcher: str) -> None:
    case = CASES[name]
    layer = case.make().double()
    turned = isinstance(layer, Turned)
    matrix = (layer.weight.detach().T if turned else layer.weight.detach().flatten(1)).clone()
    plain = nn.Linear(matrix.shape[1], matrix.shape[0]).double()
    with torch.no_grad():
        plain.weight.copy_(matrix)
        plain.bias.copy_(layer.bias)
    ours, theirs = (WATCHERS[watcher](module.parameters(), model=module) for module in (layer, plain))
    for _ in range(4):
        x = torch.randn(case.shape, dtype=torch.float64)
        for optimizer, answer in ((ours, case.call(layer, x)), (theirs, plain(as_rows(layer, x.detach())))):
            optimizer.zero_grad()
            slope(answer).backward()
            optimizer.step()
    found = layer.weight.detach().T if turned else layer.weight.detach().flatten(1)
    torch.testing.assert_close(found, plain.weight.detach(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(layer.bias, plain.bias, rtol=1e-9, atol=1e-9)
    assert (found - matrix).norm() > 1e-4


@every_watcher
def test_a_turned_weight_is_saved_and_resumed(watcher: str) -> None:
    layer = Turned(3, 4).double()
    double = copy.deepcopy(layer)
    first, second = (WATCHERS[watcher](module.parameters(), model=module) for module in (layer, double))
    for step in range(5):
        x = torch.randn(6, 4, dtype=torch.float64)
        if step == 2:
            second = WATCHERS[watcher](double.parameters(), model=double)
            second.load_state_dict(copy.deepcopy(first.state_dict()))
        for optimizer, module in ((first, layer), (second, double)):
            optimizer.zero_grad()
            slope(module(x)).backward()
            optimizer.step()
    assert torch.equal(layer.weight, double.weight)


# ------------------------------------------------------------------------------------------------- what cannot be read


class Twice(nn.Module):
    """Multiplies by the weight of a layer without calling it."""

    def __init__(self) -> None:
        super().__init__()
        self.called, self.used = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(self.called(x), self.used.weight)


UNREADABLE: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "attention": (lambda: nn.MultiheadAttention(8, 2), "in_proj_weight .*without calling.*out_proj.weight .*without"),
    "encoder": (lambda: nn.TransformerEncoderLayer(8, 2, 16), "self_attn.in_proj_weight .*self_attn.out_proj.weight"),
    "groups": (lambda: nn.Sequential(nn.Conv2d(4, 4, 3, groups=2)), "0.weight .*in 2 groups"),
    "transposed": (lambda: nn.Sequential(nn.ConvTranspose2d(4, 4, 3)), "0.weight .*ConvTranspose2d.*nn.Conv3d"),
    "bilinear": (lambda: nn.Sequential(nn.Bilinear(4, 4, 3)), "0.weight .*Bilinear"),
    "table": (lambda: nn.Sequential(nn.Embedding(4, 4)), "0.weight .*Embedding"),
    "parametrized": (
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))),
        "original1 .*ParametrizationList",
    ),
}


@every_watcher
@pytest.mark.parametrize("name", UNREADABLE)
def test_what_cannot_be_read_is_named_with_the_remedy(name: str, watcher: str) -> None:
    make, pattern = UNREADABLE[name]
    model = make()
    with pytest.raises(ValueError, match=rf"{pattern}.*elementwise=.*unreadable='elementwise'"):
        WATCHERS[watcher](model.named_parameters(), model=model)


@every_watcher
def test_a_transformer_trains_where_what_cannot_be_read_is_element_wise(watcher: str) -> None:
    def train(**given: Any) -> nn.Module:
        torch.manual_seed(1)
        model = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True), 2).double()
        optimizer = WATCHERS[watcher](model.named_parameters(), model=model, **given)
        for _ in range(4):
            optimizer.zero_grad()
            (model(torch.randn(2, 5, 8, dtype=torch.float64)) - 1).square().mean().backward()
            optimizer.step()
        return model

    with pytest.warns(UserWarning, match="layers.0.self_attn.in_proj_weight.*layers.1.self_attn.out_proj") as said:
        found = train(unreadable="elementwise")
    assert len(said) == 1
    named = train(elementwise=["*self_attn*"])
    for own, other in zip(found.parameters(), named.parameters(), strict=True):
        assert torch.equal(own, other)


def test_unreadable_is_one_of_two_words() -> None:
    layer = nn.Linear(4, 3)
    with pytest.raises(ValueError, match="unreadable"):
        nl.optim.LayerMomentum(layer.parameters(), model=layer, unreadable="skip")


def test_a_copy_knows_what_is_element_wise() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Conv1d(4, 4, 1, groups=2))
    with pytest.warns(UserWarning, match="1.weight"):
        optimizer = nl.optim.LayerMomentum(model.named_parameters(), model=model, unreadable="elementwise")
    double = copy.deepcopy(optimizer)
    assert double.is_elementwise(double.param_groups[0]["params"][2])
    assert not double.is_elementwise(double.param_groups[0]["params"][0])


# ------------------------------------------------------------------------------------ why something was not recorded


@every_watcher
def test_a_weight_that_is_used_without_its_layer_is_named(watcher: str) -> None:
    model = Twice()
    optimizer = WATCHERS[watcher](model.named_parameters(), model=model)
    model(torch.randn(5, 4)).square().mean().backward()
    with pytest.raises(RuntimeError, match=r"used.weight .*layer 'used' was not called.*elementwise="):
        optimizer.step()


@every_watcher
def test_a_model_that_was_compiled_before_is_named(watcher: str) -> None:
    torch.compiler.reset()
    model = nn.Linear(4, 3)
    compiled = torch.compile(model, backend="eager")
    compiled(torch.randn(2, 4))
    optimizer = WATCHERS[watcher](model.named_parameters(), model=model)
    compiled(torch.randn(2, 4)).square().mean().backward()
    with pytest.raises(RuntimeError, match=r"no layer of model= was called.*compiled.*torch\.compiler\.reset"):
        optimizer.step()
    torch.compiler.reset()
    optimizer.zero_grad()
    compiled(torch.randn(2, 4)).square().mean().backward()
    optimizer.step()


def test_a_gradient_from_before_is_named() -> None:
    model = nn.Linear(4, 3)
    optimizer = nl.optim.LayerMomentum(model.named_parameters(), model=model)
    model(torch.randn(5, 4)).sum().backward()
    kept = model.weight.grad
    optimizer.zero_grad()
    model(torch.randn(5, 4))
    model.weight.grad = kept
    with pytest.raises(RuntimeError, match=r"weight .*was not recorded.*called, but no backward pass"):
        optimizer.step()


# ----------------------------------------------------------------------------------------------- which passes count


@every_watcher
def test_a_step_in_the_backward_pass_is_the_usual_step(watcher: str) -> None:
    models = [nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()]
    models.append(copy.deepcopy(models[0]))
    usual, hooked = (WATCHERS[watcher](model.parameters(), model=model) for model in models)

    def hook(parameter: Tensor) -> None:
        hooked.step()
        hooked.zero_grad()

    for parameter in models[1].parameters():
        parameter.register_post_accumulate_grad_hook(hook)
    for _ in range(3):
        x = torch.randn(6, 4, dtype=torch.float64)
        usual.zero_grad()
        slope(models[0](x)).backward()
        usual.step()
        slope(models[1](x)).backward()
        assert models[1][0].weight.grad is None
    for own, other in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-12, atol=1e-12)


@every_watcher
def test_a_gradient_penalty_counts_the_passes_that_reach_the_weights(watcher: str) -> None:
    """The pass to the inputs is no example; the last pass, with what the penalty adds to the slopes, is."""
    models = [nn.Linear(4, 3).double()]
    models.append(copy.deepcopy(models[0]))
    ours, theirs = (WATCHERS[watcher](model.parameters(), model=model) for model in models)
    for _ in range(3):
        x = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
        ours.zero_grad()
        answer = models[0](x)
        (sensitivity,) = torch.autograd.grad(slope(answer), x, create_graph=True)
        (slope(answer) + sensitivity.square().sum()).backward()
        ours.step()
        # By hand: one pass with the slopes that all of the loss has in the answers, and the gradients of all of it.
        theirs.zero_grad()
        answer = models[1](x)
        (sensitivity,) = torch.autograd.grad(slope(answer), x, create_graph=True)
        loss = slope(answer) + sensitivity.square().sum()
        *gradients, error = torch.autograd.grad(loss, [*models[1].parameters(), answer])
        theirs.zero_grad()
        models[1](x.detach()).backward(error)
        for parameter, gradient in zip(models[1].parameters(), gradients, strict=True):
            parameter.grad = gradient
        theirs.step()
        torch.testing.assert_close(models[0].weight, models[1].weight, rtol=1e-10, atol=1e-10)


@every_watcher
def test_a_skipped_step_of_a_scaler_leaves_nothing_in_the_records(watcher: str) -> None:
    models = [nn.Linear(6, 3)]
    models.append(copy.deepcopy(models[0]))
    scaled, plain = (WATCHERS[watcher](model.parameters(), model=model) for model in models)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for step in range(6):
        x = torch.randn(16, 6)
        models[0].zero_grad()  # as the loop of transformers' Trainer does: the optimizer does not hear of it
        overflows = step in (0, 3)
        scale = scaler.get_scale()
        scaler.scale((torch.inf if overflows else 1.0) * models[0](x).square().mean()).backward()
        scaler.step(scaled)
        scaler.update()
        assert (scaler.get_scale() < scale) == overflows
        if not overflows:
            plain.zero_grad()
            (scale * models[1](x).square().mean()).backward()
            for parameter in models[1].parameters():
                parameter.grad /= scale
            plain.step()
    torch.testing.assert_close(models[0].weight, models[1].weight, rtol=1e-5, atol=1e-6)


@every_watcher
@pytest.mark.filterwarnings("ignore:.*too large to be squared:RuntimeWarning")
def test_a_scaler_that_begins_far_too_high_ends_in_finite_weights(watcher: str) -> None:
    model = nn.Linear(6, 3)
    optimizer = WATCHERS[watcher](model.parameters(), model=model)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    for _ in range(6):
        model.zero_grad()
        scaler.scale(model(torch.randn(16, 6)).square().sum()).backward()
        scaler.step(optimizer)
        scaler.update()
    assert optimizer.state[model.weight]["step"] > 0 and model.weight.isfinite().all()


@every_watcher
def test_what_is_too_large_to_be_squared_enters_nothing_and_is_said_once(watcher: str) -> None:
    layer = nn.Linear(4, 3)
    optimizer = WATCHERS[watcher](layer.named_parameters(), model=layer)
    with pytest.warns(RuntimeWarning, match=r"weight .*layer '' saw.*too large to be squared") as said:
        for size in (1e25, 1e25, 1.0, 1.0):
            optimizer.zero_grad()
            (layer(size * torch.randn(5, 4)) / size).square().mean().backward()
            optimizer.step()
    assert len(said) == 1 and layer.weight.isfinite().all()
    assert all(leaf.isfinite().all() for leaf in optimizer.state[layer.weight].values())


@every_watcher
def test_a_layer_that_sees_nothing_but_zeros_is_no_error(watcher: str) -> None:
    layer = nn.Linear(4, 3)
    optimizer = WATCHERS[watcher](layer.named_parameters(), model=layer)
    for _ in range(3):
        optimizer.zero_grad()
        layer(torch.zeros(5, 4)).square().mean().backward()
        optimizer.step()
    assert layer.weight.isfinite().all()
