"""Averaged weights beside an optimizer: what is averaged, and how it comes into the model and out again."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from contract.members import OPEN
from rules.examples import composed, stepped
from torch import nn
from torch.optim.swa_utils import AveragedModel

import nestlearn as nl
from nestlearn.rules import (
    adam,
    average,
    averaged_weights,
    blocks,
    chain,
    gradient,
    muon,
    orthogonal,
    part,
    partition,
    sum,
)

SAME = {"rtol": 1e-12, "atol": 1e-12}


def network(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4)).to(dtype)


def trained(module: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 4, seed: int = 1):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        inputs = torch.randn(16, 6, generator=generator).to(module[0].weight)
        optimizer.zero_grad()
        (module(inputs) - inputs[:, :4].sin()).square().mean().backward()
        optimizer.step()
    return values(module)


def values(module: nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in module.parameters()]


def equal(one, other) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("place", ["matrix", "element"])
@pytest.mark.parametrize(("retention", "start"), [(0.8, 0), (0.8, 5), (1.0, 0), (1.0, 5), (0.0, 0)])
@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_it_is_the_weighted_mean_of_the_weights_after_each_write(place, retention, start, decay):
    rule = chain(sum(0.5), averaged_weights(retention, start=start))
    found: list[torch.Tensor] = []

    class Watched(nl.optim.Optimizer):
        def step(self, closure=None):
            super().step(closure)
            (state,) = self.state.values()
            found.append(state["averaged_weights.model.value"].clone())

    path = stepped(lambda weights: Watched(weights, 0.1, **{place: rule}, weight_decay=decay))
    for time, ours in enumerate(found, start=1):
        counted = path[start:time] if time > start else path[time - 1 : time]
        weights = [retention ** (len(counted) - 1 - age) for age in range(len(counted))]
        expected = torch.stack([w * each for w, each in zip(weights, counted, strict=True)]).sum(0) / math_sum(weights)
        torch.testing.assert_close(ours, expected, **SAME)
    assert equal(path, stepped(composed(sum(0.5), weight_decay=decay)))  # nobody's step knows of it


def math_sum(numbers: list[float]) -> float:
    return float(torch.tensor(numbers, dtype=torch.float64).sum())


def test_an_even_average_is_that_of_torch():
    module = network()
    optimizer = nl.optim.Adam(module.parameters(), averaged_weights=1.0)
    reference = AveragedModel(module)
    for seed in range(5):
        trained(module, optimizer, 1, seed)
        reference.update_parameters(module)
    optimizer.eval()
    for ours, theirs in zip(module.parameters(), reference.module.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, **SAME)


@pytest.mark.parametrize(**OPEN)
def test_every_optimizer_has_it_behind_its_own_rule(member, monkeypatch):
    # torch's kernels have no average: to the bit it is the composed rule that is the same with it and without.
    monkeypatch.setattr("nestlearn.optim.plan.fits", lambda kernel, parameter: False)
    one, two = network(), network()
    plain, averaging = member.build(one), member.build(two, averaged_weights=0.5)
    assert equal(trained(one, plain), trained(two, averaging))
    size = nl.describe(averaging).state_bytes - nl.describe(plain).state_bytes
    assert size == 8 * torch.nn.utils.parameters_to_vector(two.parameters()).numel()
    assert "a function of" not in str(nl.describe(averaging))
    averaging.eval()
    assert not equal(values(one), values(two))
    averaging.train()
    assert equal(trained(one, plain, seed=2), trained(two, averaging, seed=2))


def test_groups_that_average_otherwise_do_not_mix():
    """They are written together where they can be; each parameter is what it would be alone."""
    torch.manual_seed(0)
    retentions = (0.9, 0.5, None, 1.0, 0.9)
    shapes = ((6, 4), (6, 4), (6, 4), (3,), (3,))
    starts = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    ours, apart = ([nn.Parameter(start.clone()) for start in starts] for _ in range(2))
    groups = [
        {"params": [weight], "averaged_weights": retention} for weight, retention in zip(ours, retentions, strict=True)
    ]
    rule = blocks(3, muon(0.7))
    alone = [
        nl.optim.Optimizer([weight], 0.1, matrix=rule, averaged_weights=retention)
        for weight, retention in zip(apart, retentions, strict=True)
    ]
    optimizer = nl.optim.Optimizer(groups, 0.1, matrix=rule)
    for _ in range(4):
        for one, two in zip(ours, apart, strict=True):
            one.grad = two.grad = torch.randn_like(one)
        for each in (optimizer, *alone):
            each.step()
    for each in (optimizer, *alone):
        if hasattr(each, "eval"):
            each.eval()
    for one, two, start in zip(ours, apart, starts, strict=True):
        torch.testing.assert_close(one, two, **SAME)
        assert not torch.equal(one, start)


def test_kernels_leave_it_to_the_composed_rule():
    module = network()
    optimizer = nl.optim.Adam(module.parameters(), averaged_weights=0.9)
    assert "averaged_weights(0.9)), composed, joined" in repr(optimizer)
    optimizer.param_groups[0]["averaged_weights"] = None
    assert repr(optimizer).count("fused by torch") == 1 and "averaged_weights(" not in repr(optimizer)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_training_goes_on_as_if_nobody_had_looked(dtype):
    one, two = network(dtype), network(dtype)
    plain, averaging = (nl.optim.Muon(module.parameters(), averaged_weights=0.9) for module in (one, two))
    for seed in range(3):
        trained(one, plain, 2, seed)
        before = trained(two, averaging, 2, seed)
        averaging.eval()
        seen = values(two)
        averaging.eval()
        assert equal(values(two), seen) and not equal(seen, before)
        averaging.train()
        averaging.train()
        assert equal(values(two), before)
    assert equal(values(one), values(two))
    for mine, other in zip(plain.state.values(), averaging.state.values(), strict=True):
        assert mine.keys() == other.keys() and all(torch.equal(mine[name], other[name]) for name in mine)


def test_no_step_is_taken_from_an_average():
    module = network()
    optimizer = nl.optim.Adam(module.parameters(), averaged_weights=0.9)
    trained(module, optimizer)
    optimizer.eval()
    held = values(module)
    with pytest.raises(RuntimeError, match=r"Adam: the model holds averaged weights; call optimizer.train\(\)"):
        optimizer.step()
    assert equal(held, values(module))


def test_who_has_no_average_has_no_eval():
    module = network()
    optimizer = nl.optim.Muon(module.parameters())
    assert not hasattr(optimizer, "eval") and not hasattr(optimizer, "train")
    with pytest.raises(
        AttributeError, match=r"Muon has no eval\(\), as it keeps no averaged weights.*averaged_weights=0"
    ):
        optimizer.eval()
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(3))], "averaged_weights": 0.9})
    assert hasattr(optimizer, "eval")


def test_what_was_never_written_stays_as_it_is():
    module = network()
    optimizer = nl.optim.GradientDescent(
        [{"params": module[0].parameters(), "period": 3}, {"params": module[2].parameters(), "averaged_weights": None}],
        averaged_weights=0.9,
    )
    start = values(module)
    optimizer.eval()
    assert equal(start, values(module))
    optimizer.train()
    after = trained(module, optimizer, 2)  # the first group waits for its third gradient
    optimizer.eval()
    assert equal(after, values(module))
    optimizer.train()
    after = trained(module, optimizer, 4)
    optimizer.eval()
    assert not torch.equal(after[0], values(module)[0]) and equal(after[2:], values(module)[2:])


@pytest.mark.parametrize("looking", [False, True])
def test_a_checkpoint_goes_on_from_wherever_it_was_saved(looking, tmp_path):
    one, two = network(torch.bfloat16), network(torch.bfloat16)
    first, second = (nl.optim.Muon(module.parameters(), averaged_weights=0.9) for module in (one, two))
    trained(one, first)
    if looking:
        first.eval()
    torch.save((one.state_dict(), first.state_dict()), tmp_path / "both.pt")
    saved_model, saved = torch.load(tmp_path / "both.pt", weights_only=True)
    assert any("trained_weights" in state for state in saved["state"].values()) == looking
    two.load_state_dict(saved_model)
    second.load_state_dict(saved)
    if looking:
        with pytest.raises(RuntimeError, match="the model holds averaged weights"):
            second.step()
    for optimizer in (first, second):
        optimizer.train()
    assert equal(trained(one, first), trained(two, second))
    for optimizer in (first, second):
        optimizer.eval()
    assert equal(values(one), values(two))


def test_copies_know_whether_they_are_looked_at():
    module = network()
    optimizer = nl.optim.Adam(module.parameters(), averaged_weights=0.9)
    before = trained(module, optimizer)
    optimizer.eval()
    for both in (copy.deepcopy((module, optimizer)), pickle.loads(pickle.dumps((module, optimizer)))):
        model, double = both
        double.train()
        assert equal(values(model), before)
    assert not equal(values(module), before)


def test_convolutions_complex_numbers_and_parts_of_a_partition():
    torch.manual_seed(0)
    weights = [
        nn.Parameter(torch.randn(4, 3, 2, 2)),
        nn.Parameter(torch.randn(3, 2, dtype=torch.complex64)),
        nn.Parameter(torch.randn(5, 4)),
        nn.Parameter(torch.randn(7, 4)),
    ]
    rule = partition(part(chain(muon(), averaged_weights(0.0)), shape=(5, 4)), part(muon()))
    optimizer = nl.optim.Optimizer(weights, 0.1, matrix=rule, element=chain(adam(), averaged_weights(1.0)))
    path = []
    for _ in range(2):
        for weight in weights:
            weight.grad = torch.randn_like(weight)
        optimizer.step()
        path.append([weight.detach().clone() for weight in weights])
    optimizer.eval()
    torch.testing.assert_close(weights[1].detach(), (path[0][1] + path[1][1]) / 2)
    for place in (0, 2, 3):  # no average, one that is W itself, no average
        torch.testing.assert_close(weights[place].detach(), path[1][place])
    optimizer.train()
    assert equal([weight.detach() for weight in weights], path[1])
    optimizer = nl.optim.Muon(weights, averaged_weights=1.0)
    optimizer.step()
    optimizer.eval()
    assert {state["averaged_weights.model.value"].shape for state in optimizer.state.values()} >= {(4, 12), (3, 2, 2)}


@pytest.mark.parametrize(
    "rule",
    [
        chain(averaged_weights(), orthogonal()),
        chain(chain(average(0.9), averaged_weights()), orthogonal()),
        nl.rules.parallel(average(0.9), averaged_weights()),
        partition(part(chain(averaged_weights(), average(0.9)))),
    ],
    ids=repr,
)
def test_it_is_the_last_link(rule):
    with pytest.raises(
        ValueError, match=r"averaged_weights\(\) averages the weights that a rule has written, so it is"
    ):
        nl.optim.Optimizer([nn.Parameter(torch.ones(3, 2))], 0.1, matrix=rule)
    for last in (averaged_weights(), chain(gradient(), chain(average(0.9), averaged_weights()))):
        assert nl.optim.Optimizer([nn.Parameter(torch.ones(3, 2))], 0.1, matrix=last)


@pytest.mark.parametrize("retention", [-0.1, 1.5, "much", True])
def test_what_is_no_retention_is_refused(retention):
    with pytest.raises((ValueError, TypeError), match=r"averaged_weights"):
        nl.optim.Adam([nn.Parameter(torch.ones(3))], averaged_weights=retention)


def test_rules_of_the_core_have_no_average_behind_them():
    class Own(nl.optim.GradientDescent):
        def element_rule(self, group):
            return nl.memory.GradientDescent()

    with pytest.raises(TypeError, match="averaged_weights= takes a rule of"):
        Own([nn.Parameter(torch.ones(3))], averaged_weights=0.9)


@pytest.mark.slow
@pytest.mark.parametrize("retention", [0.9, 1.0])
def test_a_compiled_rule_averages_too(retention):
    generator = torch.Generator().manual_seed(0)
    weights = [nn.Parameter(torch.randn(200, 300, generator=generator)) for _ in range(2)]
    optimizers = [
        nl.optim.Adam([weight], averaged_weights=retention, compile=number == 1)
        for number, weight in enumerate(weights)
    ]
    weights[1].data.copy_(weights[0].data)
    for _ in range(3):
        weights[0].grad = weights[1].grad = torch.randn(200, 300, generator=generator)
        for optimizer in optimizers:
            optimizer.step()
    for optimizer in optimizers:
        optimizer.eval()
    torch.testing.assert_close(weights[0].detach(), weights[1].detach())
