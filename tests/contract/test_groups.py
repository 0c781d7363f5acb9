"""Parameter groups, periods and micro-batches: how the parameters are dealt out does not change what they learn.

Members with a closure are left out where the order decides which random signs a parameter's curvature is measured with.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from .members import COLLECTING, EVERY, MEMBERS, OPEN, Member, over
from .problems import Bag, advance, assert_close, flat_state, network, quadratic, regression

REQUIRED = over(member for member in MEMBERS if member.model)


def halves(module: nn.Sequential) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    return list(module[0].parameters()), list(module[2].parameters())


@pytest.mark.parametrize(**OPEN)
def test_the_order_of_parameters_does_not_matter(member: Member) -> None:
    modules = []
    for order in (1, -1):
        module = network(widths=(6, 6, 6, 3))
        optimizer = member.build(module, list(module.parameters())[::order])
        advance(member, optimizer, regression(module, range(4)))
        modules.append(module)
    assert_close(*modules)


@pytest.mark.parametrize(**EVERY)
def test_the_split_in_groups_does_not_matter(member: Member) -> None:
    modules = []
    for split in (False, True):
        module = network(widths=(6, 6, 6))
        groups = [{"params": half} for half in halves(module)] if split else None
        advance(member, member.build(module, groups), regression(module, range(4)))
        modules.append(module)
    assert_close(*modules)


@pytest.mark.parametrize(**OPEN)
def test_two_groups_equal_two_optimizers(member: Member) -> None:
    """Every setting of a group, inner ones and the period included, acts on that group alone."""
    special: dict[str, Any] = {"lr": 0.03, "weight_decay": 0.1, "period": 2, **member.inner}
    together, apart = network(), network()
    one, two = halves(together)
    optimizer = member.build(together, [{"params": one}, {"params": two, **special}], lr=0.01)
    advance(member, optimizer, regression(together, range(6)))
    one, two = halves(apart)
    pair = [member.build(apart, one, lr=0.01), member.build(apart, two, **special)]
    for loss in regression(apart, range(6)):
        apart.zero_grad()
        loss().backward()
        for each in pair:
            each.step()
    assert_close(together, apart)


@pytest.mark.parametrize(**EVERY)
def test_a_group_with_zero_lr_rests(member: Member) -> None:
    module = network(torch.float32)
    one, two = halves(module)
    start = [parameter.detach().clone() for parameter in one + two]
    advance(member, member.build(module, [{"params": one, "lr": 0.0}, {"params": two}]), regression(module, range(2)))
    moved = [not torch.equal(p, old) for p, old in zip(one + two, start, strict=True)]
    assert moved == [False, False, True, True]


@pytest.mark.parametrize(**EVERY)
def test_a_group_can_be_added_later(member: Member) -> None:
    module = network(torch.float32)
    one, two = halves(module)
    start = [parameter.detach().clone() for parameter in two]
    optimizer = member.build(module, one)
    advance(member, optimizer, regression(module, range(2)))
    assert all(torch.equal(p, old) for p, old in zip(two, start, strict=True))
    optimizer.add_param_group({"params": two, "lr": 0.05})
    assert set(optimizer.param_groups[1]) == set(optimizer.param_groups[0])
    module.zero_grad()
    advance(member, optimizer, regression(module, range(2, 4)))
    assert not any(torch.equal(p, old) for p, old in zip(two, start, strict=True))
    assert [int(state["step"]) for state in flat_state(optimizer)] == [4, 4, 2, 2]


@pytest.mark.parametrize(**COLLECTING)
def test_nothing_moves_before_the_period_is_over(member: Member) -> None:
    module = network(torch.float32)
    optimizer = member.build(module, period=3)
    moved = []
    for index in range(6):
        before = [parameter.detach().clone() for parameter in module.parameters()]
        advance(member, optimizer, regression(module, [index]))
        moved.append({not torch.equal(p, old) for p, old in zip(module.parameters(), before, strict=True)})
    assert moved == [{False}, {False}, {True}] * 2


@pytest.mark.parametrize(**OPEN)
def test_a_period_is_one_write_on_the_sum_of_the_gradients(member: Member) -> None:
    """C4 and C1: C steps on C batches equal one step on the sum of their losses."""
    slow, fast = network(), network()
    advance(member, member.build(slow, period=3), regression(slow, range(6)))
    once = member.build(fast)
    for start in (0, 3):
        once.zero_grad()
        for loss in regression(fast, range(start, start + 3)):
            loss().backward()
        once.step()
    assert_close(slow, fast)


@pytest.mark.parametrize(**OPEN)
def test_micro_batches_equal_the_batch(member: Member) -> None:
    """Two backward passes before a step: it is steps that count, not batches."""
    whole, parts = network(), network()
    generator = torch.Generator().manual_seed(5)
    inputs = torch.randn(3, 16, 6, generator=generator, dtype=torch.float64)
    targets = torch.randn(3, 16, 3, generator=generator, dtype=torch.float64)
    first, second = member.build(whole), member.build(parts)
    for x, y in zip(inputs, targets, strict=True):
        first.zero_grad()
        second.zero_grad()
        (whole(x) - y).square().mean().backward()
        for piece, goal in zip(x.chunk(2), y.chunk(2), strict=True):
            ((parts(piece) - goal).square().mean() / 2).backward()
        first.step()
        second.step()
    assert_close(parts, whole)


@pytest.mark.parametrize(**OPEN)
def test_parameters_of_one_shape_do_not_mix(member: Member) -> None:
    """Training two equal networks with one optimizer equals training each with its own."""
    pair = nn.ModuleList([network(seed=1), network(seed=2)])
    advance(
        member,
        member.build(pair),
        [lambda a=a, b=b: a() + b() for a, b in zip(regression(pair[0], range(4)), regression(pair[1], range(4)),
                                                     strict=True)],
    )  # fmt: skip
    for index in (0, 1):
        alone = network(seed=index + 1)
        advance(member, member.build(alone), regression(alone, range(4)))
        assert_close(pair[index], alone)


@pytest.mark.parametrize(**REQUIRED)
def test_an_evaluation_between_backward_and_step_leaves_no_trace(member: Member) -> None:
    """Memories keyed by layer inputs read training data alone."""
    plain, watched = network(), network()
    advance(member, member.build(plain), regression(plain, range(3)))
    optimizer = member.build(watched)
    for loss in regression(watched, range(3)):
        optimizer.zero_grad()
        loss().backward()
        with torch.no_grad():
            watched(torch.full((5, 6), 100.0, dtype=torch.float64))
        optimizer.step()
    assert_close(watched, plain)


@pytest.mark.parametrize(**EVERY)
def test_elementwise_lr_acts_on_vectors_alone(member: Member) -> None:
    """With the lr of the element-wise rule at zero, vectors and scalars rest; matrices do not where a rule has them."""
    start = [torch.ones(4, 3, dtype=torch.float64), torch.ones(4, dtype=torch.float64), torch.ones(()).double()]
    matrix_rule = {"Muon", "M3", "DeepMomentum"}
    module = Bag([value.clone() for value in start])
    advance(member, member.build(module, elementwise_lr=0.0), quadratic(module, 2))
    moved = [not torch.equal(p.detach(), old) for p, old in zip(module.parameters(), start, strict=True)]
    if member.name in matrix_rule:
        assert moved == [True, False, False]
