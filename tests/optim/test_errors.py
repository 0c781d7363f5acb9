"""Bad input is refused with a message that says what was expected, what came and how to mend it; nothing is lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import nestlearn as nl

EXPORTED = {name: getattr(nl.optim, name) for name in sorted(nl.optim.__all__)}
CLASSES = [
    name
    for name, value in EXPORTED.items()
    if isinstance(value, type) and issubclass(value, torch.optim.Optimizer) and name != "Optimizer"
]
NEED_MODEL = ("DeltaGradientDescent", "LayerMomentum")


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3))


def build(name: str, module: nn.Module, **settings: Any) -> torch.optim.Optimizer:
    extra = {"model": module} if name in NEED_MODEL else {}
    return getattr(nl.optim, name)(module.named_parameters(), **extra, **settings)


def train(module: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 2) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        module(torch.ones(4, 5)).square().mean().backward()
        optimizer.step()


# --------------------------------------------------------------------------------------- unknown names


@pytest.mark.parametrize(
    ("name", "settings", "near"),
    [
        ("DeepMomentum", {"target": "second_momnt"}, "second_moment"),
        ("PreconditionedMomentum", {"target": "hesian"}, "hessian"),
        ("PreconditionedMomentum", {"target": "kroneker"}, "kronecker"),
        ("DeepMomentum", {"objective": "l_2"}, "l2"),
        ("DeepMomentum", {"objective": "hypergradent"}, "hypergradient"),
        ("DeepMomentum", {"readout": "newton_shulz"}, "newton_schulz"),
        ("Momentum", {"readout": "identitty"}, "identity"),
        ("Muon", {"scale": "rmss"}, "rms"),
        ("LayerMomentum", {"sides": "inputs"}, "input"),
        ("Momentum", {"nonfinite": "rise"}, "raise"),
    ],
)
def test_an_unknown_name_is_met_with_the_nearest_known_one(name: str, settings: dict[str, Any], near: str) -> None:
    with pytest.raises(ValueError, match=f"(?i)did you mean '?{near}") as caught:
        build(name, network(), **settings)
    ((option, given),) = settings.items()
    assert option in str(caught.value)
    assert given in str(caught.value)


@pytest.mark.parametrize("name", CLASSES)
def test_an_unknown_keyword_is_an_error(name: str) -> None:
    with pytest.raises(TypeError, match="momentun"):
        build(name, network(), momentun=0.9)


@pytest.mark.parametrize("name", CLASSES)
def test_settings_after_lr_are_keyword_only(name: str) -> None:
    with pytest.raises(TypeError):
        getattr(nl.optim, name)(network().parameters(), 0.1, 0.9)


# --------------------------------------------------------------------------------- values out of range


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("lr", -0.1),
        ("lr", float("nan")),
        ("weight_decay", -0.1),
        ("elementwise_lr", -1.0),
        ("period", 0),
        ("period", -1),
        ("period", 1.5),
        ("nonfinite", "maybe"),
    ],
)
def test_common_settings_out_of_range(name: str, option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=option) as caught:
        build(name, network(), **{option: value})
    assert str(value) in str(caught.value)


OWN: list[tuple[str, str, Any]] = [
    ("Momentum", "retention", -0.1),
    ("Momentum", "retention", 1.1),
    ("PreconditionedMomentum", "retention", 1.5),
    ("PreconditionedMomentum", "target_period", 0),
    ("DeltaMomentum", "inner_lr", -0.1),
    ("DeltaMomentum", "retention", 2.0),
    ("DeepMomentum", "inner_lr", -1.0),
    ("DeepMomentum", "hidden", 0),
    ("DeepMomentum", "levels", 0),
    ("DeepMomentum", "levels", 1.5),
    ("DeepMomentum", "target_period", 0),
    ("DeepMomentum", "retention", -1.0),
    ("Adam", "betas", (0.9, 1.0)),
    ("Adam", "betas", (-0.1, 0.9)),
    ("Adam", "eps", -1e-8),
    ("DeepAdam", "hidden", 0),
    ("DeepAdam", "inner_lr", -1.0),
    ("Muon", "retention", 1.5),
    ("Muon", "steps", 0),
    ("M3", "slow_period", 0),
    ("M3", "slow_retention", 1.5),
    ("M3", "slow_weight", -1.0),
    ("SecantMomentum", "rho", -0.5),
    ("SecantMomentum", "retention", 1.01),
    ("LayerMomentum", "damping", -0.1),
    ("LayerMomentum", "retention", float("nan")),
]


@pytest.mark.parametrize(("name", "option", "value"), OWN, ids=lambda value: str(value))
def test_own_settings_out_of_range(name: str, option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=option.rstrip("s")) as caught:
        build(name, network(), **{option: value})
    shown = value if not isinstance(value, tuple) else next(each for each in value if not 0 <= each < 1)
    assert str(shown) in str(caught.value)


@pytest.mark.parametrize("betas", [(0.9,), (0.9, 0.99, 0.999), 0.9], ids=str)
def test_betas_are_two(betas: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="betas"):
        build("Adam", network(), betas=betas)


@pytest.mark.parametrize(("name", "option", "value"), [*OWN[:3], ("Momentum", "period", 0)], ids=str)
def test_a_bad_group_is_refused_and_not_kept(name: str, option: str, value: Any) -> None:
    module = network()
    optimizer = build(name, module[0])
    with pytest.raises(ValueError, match=option):
        optimizer.add_param_group({"params": list(module[2].named_parameters()), option: value})
    assert len(optimizer.param_groups) == 1
    optimizer.add_param_group({"params": list(module[2].named_parameters())})
    train(module, optimizer)


@pytest.mark.parametrize("name", CLASSES)
def test_no_parameters_is_an_error(name: str) -> None:
    extra = {"model": network()} if name in NEED_MODEL else {}
    with pytest.raises(ValueError, match="empty"):
        getattr(nl.optim, name)([], **extra)


# ------------------------------------------------------------------------------------- what is missing


@pytest.mark.parametrize("name", NEED_MODEL)
def test_optimizers_that_read_layers_ask_for_the_model(name: str) -> None:
    for settings in ({}, {"model": None}):
        with pytest.raises((TypeError, ValueError), match="model"):
            getattr(nl.optim, name)(network().parameters(), **settings)


@pytest.mark.parametrize("name", (*NEED_MODEL, "SecantMomentum"))
def test_a_matrix_that_is_no_weight_of_a_layer_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=r"0\.weight.*elementwise"):
        getattr(nl.optim, name)(network().named_parameters(), model=network()[0])


@pytest.mark.parametrize("name", NEED_MODEL)
def test_a_step_without_a_forward_pass_is_never_silent(name: str) -> None:
    """Gradients that came from nowhere have no layer inputs: the message names the layer's weight."""
    module = network()
    optimizer = build(name, module)
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = [parameter.detach().clone() for parameter in module.parameters()]
    with pytest.raises(RuntimeError, match=r"0\.weight"):
        optimizer.step()
    assert all(torch.equal(p, old) for p, old in zip(module.parameters(), before, strict=True))


def closures(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Callable[[], Tensor] | None]:
    def freeing() -> Tensor:
        optimizer.zero_grad()
        loss = module(torch.ones(4, 5)).square().mean()
        loss.backward()
        return loss

    def detached() -> Tensor:
        return freeing().detach()

    return {"none": None, "freeing": freeing, "detached": detached}


@pytest.mark.parametrize("kind", ["none", "freeing", "detached"])
@pytest.mark.parametrize("name", ["PreconditionedMomentum", "DeepMomentum"])
def test_curvature_asks_for_a_closure_that_keeps_the_graph(name: str, kind: str) -> None:
    module = network()
    optimizer = build(name, module, target="hessian")
    before = [parameter.detach().clone() for parameter in module.parameters()]
    module(torch.ones(4, 5)).square().mean().backward()
    with pytest.raises(RuntimeError, match="retain_graph=True"):
        optimizer.step(closures(module, optimizer)[kind])
    assert all(torch.equal(p, old) for p, old in zip(module.parameters(), before, strict=True))
    assert all(int(state.get("step", 0)) == 0 for state in optimizer.state.values())


def test_names_of_elementwise_parameters_need_names() -> None:
    for chosen in (["0.*"], lambda name, parameter: True):
        with pytest.raises(ValueError, match="named_parameters"):
            nl.optim.Muon(network().parameters(), elementwise=chosen)


def test_an_elementwise_pattern_that_matches_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="embeding"):
        nl.optim.Muon(network().named_parameters(), elementwise=["embeding.*"])


def test_elementwise_takes_no_numbers() -> None:
    with pytest.raises(TypeError, match="int"):
        nl.optim.Muon(network().named_parameters(), elementwise=[3])


def test_the_quadratic_objective_refuses_a_period():
    with pytest.raises(ValueError, match="period=1"):
        nl.optim.DeepMomentum([torch.nn.Parameter(torch.ones(3, 2))], objective="quadratic", period=2)


def test_a_memory_of_ones_own_is_sent_to_where_it_goes():
    mine = nl.memory.MLP(1, 8, 1, residual=False, activation="tanh")
    with pytest.raises(ValueError, match=r"deep\(model="):
        nl.optim.DeepMomentum([torch.nn.Parameter(torch.ones(3, 2))], memory=mine)
