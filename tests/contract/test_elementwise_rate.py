"""`elementwise_lr` follows `lr` in proportion: under any scheduler, vectors train as a group of AdamW of their own."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from itertools import chain
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from .members import MEMBERS, Member, over
from .problems import Bag, assert_close, assert_equal, snapshot
from .schedules import CYCLES, LR, SCHEDULERS, STEPS, free_gradients, rate, tick
from .selections import CLASSES, fast_for
from .test_checkpoint import through_a_file

OWN = 0.003
"""The rate of the element-wise rule while the optimizer's own is `LR`."""

WITH_ADAM = [
    member
    for member in CLASSES
    if member.name in {"Muon", "M3", "DeepMomentum", "DeepAdam", "SecantMomentum", "LayerMomentum"}
]
"""Members whose element-wise rule is Adam with its defaults, whatever their settings; their matrices have another."""

ADAMS = fast_for({"Muon"}, WITH_ADAM)
MUONS = over(member for member in MEMBERS if member.name == "Muon")


def table(*, complex_too: bool = True) -> Bag:
    """A matrix, a vector, a scalar and a complex matrix, of which the element-wise rule gets all."""
    generator = torch.Generator().manual_seed(3)
    values = [torch.rand(shape, generator=generator, dtype=torch.float64) for shape in ((5, 4), (6,), ())]
    other = torch.rand((3, 2), generator=generator, dtype=torch.complex128)
    return Bag([*values, other] if complex_too else values)


def adamw(module: nn.Module, lr: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(module.parameters(), lr=lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)


def drive(module: nn.Module, optimizer: torch.optim.Optimizer, scheduler: LRScheduler, steps: range) -> None:
    """Steps on gradients that are the same for every optimizer."""
    for step in steps:
        free_gradients(module, step)
        optimizer.step()
        tick(scheduler)


@pytest.mark.parametrize("tensor", [False, True], ids=["float", "tensor"])
@pytest.mark.parametrize(**ADAMS)
def test_it_follows_every_scheduler_as_a_group_of_adamw_does(member: Member, tensor: bool) -> None:
    for name, scheduled in SCHEDULERS.items():
        ours, theirs = table(), table()
        optimizer = member.build(ours, lr=rate(tensor), elementwise=[ours], elementwise_lr=OWN)
        reference = adamw(theirs, rate(tensor) * (OWN / LR))
        drive(ours, optimizer, scheduled(optimizer), range(STEPS))
        # The momentum of the element-wise rule stays as it is, unless the class has betas, which are cycled.
        more = {"cycle_momentum": member.name == "DeepAdam"} if name in CYCLES else {}
        drive(theirs, reference, scheduled(reference, OWN / LR, **more), range(STEPS))
        assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(**MUONS)
def test_matrices_keep_the_rate_of_their_rule(member: Member) -> None:
    """Vectors at a rate of their own leave a matrix where it is without one, and take it themselves."""
    ends = []
    for own in (None, OWN):
        module = Bag([torch.eye(4, dtype=torch.float64), torch.ones(4, dtype=torch.float64)])
        optimizer = member.build(module, lr=LR, elementwise_lr=own)
        drive(module, optimizer, SCHEDULERS["OneCycleLR"](optimizer), range(STEPS))
        ends.append(module)
    assert torch.equal(ends[0].p0, ends[1].p0)
    assert not torch.equal(ends[0].p1, ends[1].p1)


@pytest.mark.parametrize(**ADAMS)
def test_each_group_has_a_proportion_of_its_own(member: Member) -> None:
    """It is the rate that the group was made with that counts, whenever it was made."""
    ours, theirs = table(), table()
    rates = [(0.05, 0.003), (0.02, 0.004), (0.1, None), (0.08, 0.001)]
    groups = [
        {"params": [parameter], "lr": lr, "elementwise_lr": own}
        for parameter, (lr, own) in zip(ours.parameters(), rates, strict=True)
    ]
    optimizer = member.build(ours, groups[:-1], elementwise=list(ours.parameters())[:-1], lr=0.7)
    reference = torch.optim.AdamW(
        [
            {"params": [parameter], "lr": own or lr}
            for parameter, (lr, own) in zip(theirs.parameters(), rates, strict=True)
        ],
        weight_decay=0.0,
    )
    optimizer.add_param_group(groups[-1])
    drive(ours, optimizer, SCHEDULERS["LinearLR"](optimizer), range(8))
    drive(theirs, reference, SCHEDULERS["LinearLR"](reference), range(8))
    assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("tensor", [False, True], ids=["float", "tensor"])
@pytest.mark.parametrize(**ADAMS)
def test_zero_stays_zero(member: Member, tensor: bool) -> None:
    for name in ("OneCycleLR", "CosineAnnealingWarmRestarts", "LambdaLR"):
        module = table()
        start = [parameter.detach().clone() for parameter in module.parameters()]
        optimizer = member.build(module, lr=rate(tensor), elementwise=[module], elementwise_lr=0.0)
        drive(module, optimizer, SCHEDULERS[name](optimizer), range(6))
        assert all(torch.equal(p, old) for p, old in zip(module.parameters(), start, strict=True)), name


def to_zero_and_back(optimizer: torch.optim.Optimizer, scale: float = 1.0) -> LRScheduler:
    """A cosine that ends at exactly zero, every fifth step, and starts again."""
    return LambdaLR(optimizer, lambda step: (1 + math.cos(math.pi * (step % 5) / 4)) / 2)


Run = tuple[Bag, torch.optim.Optimizer, LRScheduler]


def resumed(
    member: Member, scheduled: Callable[..., LRScheduler], before: int, *, tensor: bool = False
) -> tuple[Run, list[Run]]:
    """The run that goes on and those of two fresh optimizers and schedulers, loaded after `before` steps.

    The first of them loads its optimizer first, the second its scheduler.
    """
    made = []
    for _ in range(3):
        module = table()
        optimizer = member.build(module, lr=rate(tensor), elementwise=[module], elementwise_lr=OWN)
        made.append((module, optimizer, scheduled(optimizer)))
    module, optimizer, scheduler = made[0]
    drive(module, optimizer, scheduler, range(before))
    saved = through_a_file({"model": module.state_dict(), "optimizer": optimizer.state_dict()})
    of_scheduler = copy.deepcopy(scheduler.state_dict())
    for (fresh, other, driver), optimizer_first in zip(made[1:], (True, False), strict=True):
        fresh.load_state_dict(saved["model"])
        if optimizer_first:
            other.load_state_dict(saved["optimizer"])
        driver.load_state_dict(copy.deepcopy(of_scheduler))
        if not optimizer_first:
            other.load_state_dict(saved["optimizer"])
    for one in made:
        drive(*one, range(before, STEPS))
    return made[0], made[1:]


@pytest.mark.slow
@pytest.mark.parametrize("tensor", [False, True], ids=["float", "tensor"])
@pytest.mark.parametrize(**ADAMS)
def test_a_run_resumed_in_the_middle_continues(member: Member, tensor: bool) -> None:
    for name, scheduled in SCHEDULERS.items():
        one, others = resumed(member, scheduled, 5, tensor=tensor)
        for two in others:
            assert float(two[1].param_groups[0]["lr"]) == float(one[1].param_groups[0]["lr"]), name
            assert_equal(snapshot(two[1]), snapshot(one[1]))


@pytest.mark.parametrize("before", [4, 5])
@pytest.mark.parametrize("name", ["LambdaLR", "CosineAnnealingWarmRestarts"])
@pytest.mark.parametrize(**MUONS)
def test_a_checkpoint_at_a_rate_of_zero_restarts(member: Member, name: str, before: int) -> None:
    """Written where the rate is zero, or one step later; the proportion is not forgotten there."""
    scheduled = to_zero_and_back if name == "LambdaLR" else SCHEDULERS[name]
    one, (two, three) = resumed(member, scheduled, before)
    assert_equal(snapshot(two[1]), snapshot(one[1]))
    assert_equal(snapshot(three[1]), snapshot(one[1]))
    theirs = table()
    reference = adamw(theirs, OWN)
    drive(theirs, reference, scheduled(reference, OWN / LR), range(STEPS))
    assert_close(two[0], theirs, rtol=1e-12, atol=1e-14)


def test_the_cosine_of_these_tests_does_reach_zero() -> None:
    module = table()
    optimizer = adamw(module, LR)
    scheduler = to_zero_and_back(optimizer)
    drive(module, optimizer, scheduler, range(4))
    assert optimizer.param_groups[0]["lr"] == 0.0
    drive(module, optimizer, scheduler, range(4, 5))
    assert optimizer.param_groups[0]["lr"] == LR


@pytest.mark.parametrize("rewind", ["deepcopy", "twice"])
@pytest.mark.parametrize(**MUONS)
def test_copies_keep_the_proportion(member: Member, rewind: str) -> None:
    """After the rate has changed, a copy or a second load does not take the rate of now for the first."""
    module = table()
    optimizer = member.build(module, lr=LR, elementwise=[module], elementwise_lr=OWN)
    drive(module, optimizer, SCHEDULERS["LinearLR"](optimizer), range(2))
    if rewind == "deepcopy":
        other, twin = copy.deepcopy((module, optimizer))
    else:
        other, twin = table(), None
        other.load_state_dict(module.state_dict())
        twin = member.build(other, lr=LR, elementwise=[other], elementwise_lr=OWN)
        for _ in range(2):
            twin.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for step in range(2, 6):
        for net, driven in ((module, optimizer), (other, twin)):
            free_gradients(net, step)
            driven.param_groups[0]["lr"] = LR / step
            driven.step()
    assert_equal(snapshot(twin), snapshot(optimizer))
    theirs = table()
    reference = adamw(theirs, OWN)
    drive(theirs, reference, SCHEDULERS["LinearLR"](reference), range(2))
    for group, step in zip(chain.from_iterable([reference.param_groups] * 4), range(2, 6), strict=True):
        free_gradients(theirs, step)
        group["lr"] = OWN / step
        reference.step()
    assert_close(module, theirs, rtol=1e-12, atol=1e-14)
