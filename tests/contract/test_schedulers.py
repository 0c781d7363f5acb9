"""Every scheduler of torch drives every optimizer as it drives torch's own: rates, and momentum where it is cycled."""

from __future__ import annotations

import inspect
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from .members import MEMBERS, Member, over
from .problems import Bag, advance, assert_close, assert_equal, network, regression, snapshot
from .schedules import CYCLES, LR, SCHEDULERS, STEPS, exported_schedulers, free_gradients, rate, tick
from .selections import CLASSES, MANY_KINDS, fast_for, one_a_class

ALL = fast_for(MANY_KINDS, MEMBERS)
WITHOUT_MEMORY = one_a_class(m for m in MEMBERS if m.name in {"GradientDescent", "DeltaGradientDescent"})


def momentum_name(member: Member) -> str | None:
    """What the class calls the share of its momentum that is kept: "betas" has it in front, None is no momentum."""
    names = inspect.signature(member.cls.__init__).parameters
    return "betas" if "betas" in names else "retention" if "retention" in names else None


def test_every_scheduler_is_tested() -> None:
    """A scheduler that a new version of torch brings has to be given its arguments in `schedules.py`."""
    assert set(SCHEDULERS) == exported_schedulers()


def curve(name: str, module: nn.Module, optimizer: torch.optim.Optimizer, tensor: bool) -> list[float]:
    """The rates that a scheduler gives an optimizer."""
    scheduler, rates = SCHEDULERS[name](optimizer), []
    for step in range(STEPS):
        free_gradients(module, step)
        optimizer.step()
        tick(scheduler)
        rates.append(optimizer.param_groups[0]["lr"])
        assert isinstance(rates[-1], Tensor) == tensor, name
        rates[-1] = float(rates[-1])
    return rates


@cache
def curve_of_adamw(name: str, tensor: bool) -> list[float]:
    module = Bag([torch.ones(3, dtype=torch.float64)])
    rates = curve(name, module, torch.optim.AdamW(module.parameters(), lr=rate(tensor)), tensor)
    assert len(set(rates)) > 1, f"{name} never moves the rate"
    return rates


@pytest.mark.parametrize("tensor", [False, True], ids=["float", "tensor"])
@pytest.mark.parametrize(**fast_for(MANY_KINDS, CLASSES))
def test_the_rate_has_the_curve_of_adamw(member: Member, tensor: bool) -> None:
    """The rate is the group's, which no setting of a class has to do with."""
    for name in SCHEDULERS:
        module = Bag([torch.ones(3, dtype=torch.float64)])
        optimizer = member.build(module, lr=rate(tensor))
        expected = pytest.approx(curve_of_adamw(name, tensor), rel=1e-6 if tensor else 0, abs=0)
        assert curve(name, module, optimizer, tensor) == expected, name


@pytest.mark.parametrize("name", CYCLES)
@pytest.mark.parametrize(**ALL)
def test_a_cycle_of_momentum_is_that_of_sgd(member: Member, name: str) -> None:
    module, place = Bag([torch.ones(3, dtype=torch.float64)]), momentum_name(member)
    ours = member.build(module, lr=LR)
    reference = torch.optim.SGD([torch.nn.Parameter(torch.ones(3))], lr=LR, momentum=0.9)
    drivers = [CYCLES[name](optimizer) for optimizer in (ours, reference)]
    cycled = set()
    for step in range(STEPS):
        free_gradients(module, step)
        ours.step()
        reference.step()
        expected, group = reference.param_groups[0]["momentum"], ours.param_groups[0]
        if place == "betas":
            assert group["betas"][0] == expected
            assert group["betas"][1] == ours.defaults["betas"][1]
        elif place == "retention":
            assert group["momentum"] == group["retention"] == expected
        cycled.add(expected)
        for driver in drivers:
            tick(driver)
    assert len(cycled) == STEPS


@pytest.mark.parametrize("name", CYCLES)
@pytest.mark.parametrize(**ALL)
def test_a_cycle_of_momentum_reaches_the_memory(member: Member, name: str) -> None:
    """The steps are those of an optimizer whose settings are written by hand."""
    ends = []
    reference = torch.optim.SGD([torch.nn.Parameter(torch.ones(3))], lr=LR, momentum=0.9)
    settings = []
    driver = CYCLES[name](reference)
    for _ in range(6):
        settings.append((reference.param_groups[0]["lr"], reference.param_groups[0]["momentum"]))
        reference.step()
        tick(driver)
    for by_hand in (True, False):
        module = network()
        optimizer = member.build(module, lr=LR)
        scheduler = None if by_hand else CYCLES[name](optimizer)
        group, place = optimizer.param_groups[0], momentum_name(member)
        for step, (lr, momentum) in enumerate(settings):
            if scheduler is None:
                group["lr"] = lr
                if place is not None:
                    group[place] = (momentum, group["betas"][1]) if place == "betas" else momentum
            advance(member, optimizer, regression(module, [step]))
            if scheduler is not None:
                tick(scheduler)
        ends.append(snapshot(optimizer))
    assert_equal(*ends)


@pytest.mark.parametrize("name", CYCLES)
@pytest.mark.parametrize(
    **over(m for m in MEMBERS if m.name == "Adam" or (m.name == "Momentum" and set(m.settings) <= {"nesterov"}))
)
def test_a_cycle_of_momentum_trains_as_torch_does(member: Member, name: str) -> None:
    ends = []
    for torchs in (True, False):
        module = network()
        if not torchs:
            optimizer = member.build(module, lr=LR)
        elif member.name == "Adam":
            optimizer = torch.optim.AdamW(module.parameters(), lr=LR, weight_decay=0.0)
        else:
            optimizer = torch.optim.SGD(module.parameters(), lr=LR, momentum=0.9, **member.settings)
        scheduler = CYCLES[name](optimizer)
        for step in range(STEPS):
            advance(member, optimizer, regression(module, [step]))
            tick(scheduler)
        ends.append(module)
    assert_close(ends[1], ends[0], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", CYCLES)
@pytest.mark.parametrize(**WITHOUT_MEMORY)
def test_without_a_memory_a_cycle_of_momentum_does_nothing(member: Member, name: str) -> None:
    ends = []
    for cycled in (True, False):
        module = network()
        optimizer = member.build(module, lr=LR)
        scheduler = CYCLES[name](optimizer, cycle_momentum=cycled)
        for step in range(6):
            advance(member, optimizer, regression(module, [step]))
            tick(scheduler)
        ends.append(snapshot(optimizer))
    assert_equal(*ends)
