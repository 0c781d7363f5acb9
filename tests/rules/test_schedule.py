"""Settings that change as training goes on: values in a rule, plain data in a group, numbers in a write."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import nn

import nestlearn as nl
from nestlearn import rules
from nestlearn.rules import (
    average,
    chain,
    deep,
    every,
    from_data,
    muon,
    parse,
    part,
    partition,
    ramp,
    slow,
    sum,
    to_data,
    with_lr,
)

from .examples import composed, stepped

SAME = {"rtol": 1e-12, "atol": 1e-12}
RULE = chain(sum(ramp(0.9, 0.5, writes=4, after=2)), slow(0.9, weight=with_lr(0.3)))


def loop(rates: list[float], steps: int = 12) -> list[torch.Tensor]:
    """The steps of ``stepped`` with ``RULE`` written by hand, lr being given for each."""
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    box, averaged, path = torch.zeros_like(weight), torch.zeros_like(weight), []
    for time in range(steps):
        u = 0.5 * weight + torch.randn(4, 3, generator=generator, dtype=torch.float64)
        kept = 0.9 - 0.4 * min(max((time - 2) / 4, 0), 1)
        box = kept * box + u
        averaged = 0.9 * averaged + 0.1 * box
        weight = weight - rates[time] * (box + 0.3 * rates[time] / rates[0] * averaged)
        path.append(weight)
    return path


class Falling:
    """An optimizer whose lr is 1 / (1 + time) of its first, as a scheduler of torch makes it."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda time: 1 / (1 + time))

    def step(self) -> None:
        self.optimizer.step()
        self.scheduler.step()


@pytest.mark.parametrize("place", ["matrix", "element"])
def test_numbers_follow_writes_and_the_learning_rate(place):
    rates = [0.1 / (1 + time) for time in range(12)]
    found = stepped(lambda weights: Falling(nl.optim.Optimizer(weights, 0.1, **{place: RULE})))
    for ours, theirs in zip(found, loop(rates), strict=True):
        torch.testing.assert_close(ours, theirs, **SAME)


def test_without_a_scheduler_lr_is_that_of_the_beginning():
    for ours, theirs in zip(stepped(composed(RULE)), loop([0.1] * 12), strict=True):
        torch.testing.assert_close(ours, theirs, **SAME)


def test_a_schedule_counts_writes_and_not_steps():
    found = stepped(composed(sum(ramp(0.9, 0.0, writes=2)), period=2))
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    box, waiting = torch.zeros_like(weight), torch.zeros_like(weight)
    for time in range(12):
        waiting = waiting + 0.5 * weight + torch.randn(4, 3, generator=generator, dtype=torch.float64)
        if time % 2:
            box = max(0.9 - 0.45 * (time // 2), 0.0) * box + waiting
            weight, waiting = weight - 0.1 * box, torch.zeros_like(waiting)
        torch.testing.assert_close(found[time], weight, **SAME)


def test_a_group_holds_it_as_data_and_a_checkpoint_goes_on(tmp_path):
    weight = nn.Parameter(torch.ones(4, 3, dtype=torch.float64))
    optimizer = nl.optim.Optimizer([weight], 0.1, matrix=RULE)
    held = optimizer.param_groups[0]["matrix.sum.retention"]
    assert held == {"ramp": {"start": 0.9, "stop": 0.5, "writes": 4, "after": 2}}

    def train(optimizer: torch.optim.Optimizer, weight: nn.Parameter, steps: range) -> torch.Tensor:
        for step in steps:
            weight.grad = torch.randn(4, 3, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
            optimizer.step()
        return weight.detach()

    train(optimizer, weight, range(3))
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    other = copy.deepcopy(weight)
    again = nl.optim.Optimizer([other], 0.1, matrix=RULE)
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    double = copy.deepcopy(optimizer)
    (third,) = double.param_groups[0]["params"]
    expected = train(optimizer, weight, range(3, 8))
    assert torch.equal(train(again, other, range(3, 8)), expected)
    assert torch.equal(train(double, third, range(3, 8)), expected)


def test_a_group_may_have_a_schedule_of_its_own_or_a_number_instead():
    weights = [nn.Parameter(torch.ones(4, 3)) for _ in range(2)]
    groups = [
        {"params": weights[:1], "matrix.sum.retention": 0.3},
        {"params": weights[1:], "matrix.slow.weight": ramp(1.0, 0.0, 5)},
    ]
    optimizer = nl.optim.Optimizer(groups, 0.1, matrix=RULE)
    one, two = (optimizer.rules(group).matrix for group in optimizer.param_groups)
    assert one == chain(sum(0.3), slow(0.9, 0.3)) and two == chain(sum(0.9), slow(0.9, 1.0))
    named = nl.optim.Optimizer([("w", weights[0])], 0.1, matrix=partition(part(RULE, names="*")))
    assert named.rules(named.param_groups[0]).matrix == chain(sum(0.9), slow(0.9, 0.3))


def test_a_named_optimizer_takes_schedules_as_well(tmp_path):
    composed_of = nl.rules.muon(ramp(0.5, 0.9, 6), steps=3)
    named = stepped(lambda weights: nl.optim.Muon(weights, 0.1, retention=ramp(0.5, 0.9, 6), steps=3))
    for one, two in zip(named, stepped(composed(composed_of)), strict=True):
        assert torch.equal(one, two)
    weight = nn.Parameter(torch.ones(3, 2))
    optimizer = nl.optim.Muon([weight], retention=ramp(0.5, 0.9, 6))
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    torch.load(tmp_path / "state.pt", weights_only=True)
    with pytest.raises(ValueError, match=r"retention must be between 0 and 1, got 1\.5"):
        nl.optim.Muon([weight], retention=ramp(0.5, 1.5, 6))


def test_memories_behind_memories_have_schedules_too():
    rule = deep(3, inner_lr=ramp(0.5, 0.0, 5), written_by=chain(average(ramp(0.0, 0.9, 5))), beside=every(2, average()))
    assert all(weight.isfinite().all() for weight in stepped(composed(rule)))
    optimizer = nl.optim.Optimizer([nn.Parameter(torch.ones(4, 3))], 0.1, matrix=rule)
    assert optimizer.rules(optimizer.param_groups[0]).matrix.parts()["deep.average"].retention == 0.0


@pytest.mark.slow
def test_a_compiled_kernel_is_given_the_numbers():
    paths = []
    for compiled in (False, True):
        make = lambda weights: nl.optim.Optimizer(weights, 0.1, element=RULE, compile=compiled)  # noqa: B023, E731
        paths.append(stepped(make, (140, 130), steps=7, dtype=torch.float32))
    for one, two in zip(*paths, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)


def test_it_is_a_part_of_the_value():
    assert eval(repr(RULE), vars(rules)) == RULE == parse(repr(RULE))
    assert from_data(json.loads(json.dumps(to_data(RULE)))) == RULE and hash(RULE) == hash(parse(repr(RULE)))
    assert RULE.replace({"sum.retention": 0.5}) == chain(sum(0.5), RULE.links[1])


def with_another_group(**settings):
    optimizer = nl.optim.Optimizer([nn.Parameter(torch.ones(2, 2))], 0.1, matrix=RULE)
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2, 2))], **settings})


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: average(ramp(0.5, 1.5, 10)), r"retention, at an end of ramp\(.*\), must be between 0 and 1, got 1.5"),
        (lambda: slow(weight=with_lr(-1.0)), r"weight, at an end of with_lr\(.*\), must be at least 0, got -1.0"),
        (lambda: deep(hidden=ramp(3, 5, 10)), "hidden decides what is remembered, so it cannot change"),
        (lambda: muon(scale=ramp(0, 1, 2)), "scale decides what is remembered"),
        (lambda: ramp(0.0, 1.0, 0), "writes must be at least 1"),
        (lambda: rules.as_rule(RULE), "which only an Optimizer knows"),
        (lambda: with_another_group(**{"matrix.slow.weight": ramp(0.5, -1.0, 5)}), "weight.* must be at least 0"),
    ],
)
def test_what_cannot_change_is_refused(make, words):
    with pytest.raises((TypeError, ValueError), match=words):
        make()
