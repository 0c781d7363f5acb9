"""Any rule as an optimizer: settings by path, groups, checkpoints, what is measured, and the named classes as rules."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
from contract.members import EVERY
from torch import nn

import nestlearn as nl
from nestlearn import rules
from nestlearn.rules import adam, average, chain, gradient, muon, orthogonal, slow, sum, whiten, within

from .examples import RULES, SMALL, UNSEEN, composed, every_other, stepped

NAMES = {name: getattr(module, name) for module in (rules, nl.targets) for name in module.__all__}
ARENA = chain(average(0.65, nesterov=True), within(whiten(retention=0.97), orthogonal()), slow())


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4)).double()


def trained(module: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 5) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        inputs = torch.randn(16, 6, generator=generator).to(next(module.parameters()).dtype)

        def closure(inputs: torch.Tensor = inputs) -> torch.Tensor:
            optimizer.zero_grad()
            loss = (module(inputs) - inputs[:, :4].sin()).square().mean()
            loss.backward(retain_graph=True)
            return loss

        optimizer.step(closure)
    return [parameter.detach().clone() for parameter in module.parameters()]


@pytest.mark.parametrize("name", every_other({**RULES, **UNSEEN}))
def test_every_rule_trains_resumes_and_is_described(name, tmp_path):
    rule = {**RULES, **UNSEEN}[name]
    module = network()
    optimizer = nl.optim.Optimizer(module.parameters(), 1e-3, matrix=rule, model=module)
    trained(module, optimizer, 3)
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    double = copy.deepcopy(module)
    other = nl.optim.Optimizer(double.parameters(), 1e-3, matrix=rule, model=double)
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for one, two in zip(trained(module, optimizer), trained(double, other), strict=True):
        assert one.isfinite().all() and torch.equal(one, two)
    system = nl.describe(optimizer)
    assert "a function of" not in str(system) and "a combination of" not in str(system)
    held = sum_of_bytes(optimizer)
    assert system.state_bytes == held


def sum_of_bytes(optimizer: torch.optim.Optimizer) -> float:
    tensors = [tensor for state in optimizer.state.values() for tensor in state.values()]
    return math.fsum(tensor.numel() * tensor.element_size() for tensor in tensors)


@pytest.mark.parametrize(**EVERY)
def test_a_named_optimizer_is_the_rule_that_it_prints(member):
    """Names of memories are part of the rule, so even the states have the same keys."""
    module = network()
    named = member.build(module)
    made, group, double = named.rules(named.param_groups[0]), named.param_groups[0], copy.deepcopy(module)
    matrix, element = (None if rule is None else eval(repr(rule), NAMES) for rule in (made.matrix, made.element))
    model = double if member.model else None
    optimizer = nl.optim.Optimizer(double.parameters(), group["lr"], matrix=matrix, element=element, model=model)
    for one, two in zip(trained(module, named), trained(double, optimizer), strict=True):
        assert torch.equal(one, two)
    for one, two in zip(named.state.values(), optimizer.state.values(), strict=True):
        assert one.keys() == two.keys()


def test_a_group_overrides_a_setting_by_its_path_or_by_the_end_of_it():
    module = network()
    groups = [
        {"params": [module[0].weight], "matrix.average.retention": 0.3, "damping": 0.5, "lr": 0.5},
        {"params": [module[2].weight]},
    ]
    optimizer = nl.optim.Optimizer(groups, 0.1, matrix=ARENA)
    one, two = (optimizer.rules(group).matrix for group in optimizer.param_groups)
    assert one == ARENA.replace({"average.retention": 0.3}, damping=0.5) and two == ARENA
    assert optimizer.param_groups[0]["matrix.whiten.damping"] == 0.5
    with pytest.raises(ValueError, match="could be any of matrix"):
        optimizer.add_param_group({"params": [module[0].bias], "retention": 0.5})
    with pytest.raises(ValueError, match="damping must be at least 0"):
        optimizer.add_param_group({"params": [module[0].bias], "damping": -1.0})
    assert len(optimizer.param_groups) == 2


def test_a_scheduler_of_momentum_reaches_the_only_retention():
    weight = nn.Parameter(torch.ones(4, 3))
    optimizer = nl.optim.Optimizer([weight], 0.1, matrix=chain(average(0.9), orthogonal()), element=gradient())
    torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=10)
    assert optimizer.param_groups[0]["matrix.average.retention"] == 0.95
    assert optimizer.rules(optimizer.param_groups[0]).matrix == chain(average(0.95), orthogonal())


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (chain(average(0.9), slow(), orthogonal()), "has 3 parts here and 2 in the checkpoint"),
        (muon(), "average.name"),
        (average(0.9), "matrix.average is here alone"),
    ],
)
def test_a_checkpoint_of_another_rule_is_refused_with_the_difference(rule, words):
    weight = nn.Parameter(torch.ones(4, 3))
    saved = nl.optim.Optimizer([weight], 0.1, matrix=chain(average(0.9), orthogonal())).state_dict()
    with pytest.raises(ValueError, match=words):
        nl.optim.Optimizer([weight], 0.1, matrix=rule).load_state_dict(saved)
    other = nl.optim.Optimizer([weight], 0.1, matrix=chain(average(0.5), orthogonal()))
    other.load_state_dict(saved)
    assert other.param_groups[0]["matrix.average.retention"] == 0.9
    del saved["param_groups"][0]["rule"]
    with pytest.raises(ValueError, match="another rule: it has none"):
        other.load_state_dict(saved)


def test_rules_are_checked_when_the_optimizer_is_made():
    weight = nn.Parameter(torch.ones(4, 3))
    with pytest.raises(ValueError, match=r"whiten\(retention=0.97\) is for whole matrices: pass it as matrix="):
        nl.optim.Optimizer([weight], 0.1, element=ARENA)
    with pytest.raises(TypeError, match="matrix= takes a rule such as"):
        nl.optim.Optimizer([weight], 0.1, matrix=torch.nn.Linear(2, 2))
    with pytest.raises(TypeError, match="reads the inputs of layers: pass model="):
        nl.optim.Optimizer([weight], 0.1, matrix=chain(average(), within(whiten(of="layers"), orthogonal())))


def test_without_a_rule_it_is_gradient_descent_and_beside_one_it_is_adam():
    module = network()
    for matrix, element in ((None, gradient()), (muon(), adam())):
        optimizer = nl.optim.Optimizer(module.parameters(), 0.1, matrix=matrix)
        assert optimizer.rules(optimizer.param_groups[0]).element == element


def test_copies_keep_the_rule_and_watch_a_model_of_their_own():
    module = network()
    rule = chain(average(), within(whiten(of="layers"), orthogonal()))
    optimizer = nl.optim.Optimizer(module.parameters(), 0.1, matrix=rule, model=module)
    for double in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        assert double.model is not module
        trained(double.model, double, 2)
        assert double.rules(double.param_groups[0]).matrix == rule
    assert not optimizer.state


def test_a_rule_that_does_not_look_measures_nothing():
    module = network()
    optimizer = nl.optim.Optimizer(module.parameters(), 0.1, matrix=muon(), model=module)
    module(torch.randn(3, 6).double()).sum().backward()
    assert not any(optimizer.observe(None).values()) and not optimizer.needs_graph
    assert not any(optimizer.layers._recorder.recorded(name) for name in ("0", "2"))
    assert nl.optim.Optimizer(module.parameters(), 0.1, matrix=rules.newton(4)).needs_graph


@pytest.mark.parametrize("rule", SMALL.values(), ids=SMALL)
def test_entries_are_written_alike_in_matrices_and_alone(rule):
    """The lanes are other ones: a stack of matrices, and entries end to end."""
    matrix = stepped(composed(rule))
    alone = stepped(lambda weights: nl.optim.Optimizer(weights, 0.1, element=rule))
    for one, two in zip(matrix, alone, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("rule", SMALL.values(), ids=SMALL)
def test_a_compiled_kernel_writes_as_the_rule_does(rule):
    """What it cannot write, such as what happens every third time, is left to the rule itself."""
    paths = []
    for compiled in (False, True):
        make = lambda weights: nl.optim.Optimizer(weights, 0.1, element=rule, compile=compiled)  # noqa: B023, E731
        paths.append(stepped(make, (140, 130), steps=4, dtype=torch.float32))
    for one, two in zip(*paths, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)


def test_soap_muon_is_one_expression_and_lowers_a_loss():
    module = network()
    optimizer = nl.optim.Optimizer(module.named_parameters(), lr=0.02, matrix=ARENA, element=sum(0.9))
    inputs = torch.randn(64, 6).double()
    before = (module(inputs) - inputs[:, :4].sin()).square().mean().item()
    trained(module, optimizer, 100)
    assert (module(inputs) - inputs[:, :4].sin()).square().mean().item() < 0.5 * before
