"""torch's name for a retention: a group answers to `momentum`, which is no second value and is in no checkpoint."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from .members import MEMBERS, Member, over
from .problems import advance, assert_equal, network, regression, snapshot
from .schedules import CYCLES, tick
from .selections import CLASSES, MANY_KINDS, fast_for
from .test_checkpoint import through_a_file


def settings_of(member: Member) -> set[str]:
    """The names of the constructor's arguments."""
    return set(inspect.signature(member.cls.__init__).parameters)


RETAINING = over(m for m in CLASSES if "retention" in settings_of(m) and "betas" not in settings_of(m))
WITH_BETAS = over(m for m in CLASSES if "betas" in settings_of(m))


def is_alias(group: dict[str, Any]) -> None:
    """Whatever is written under one name is read under the other."""
    kept = group["retention"]
    for write, value in ((("momentum", "retention"), 0.25), (("retention", "momentum"), 0.75)):
        group[write[0]] = value
        assert group[write[0]] == group[write[1]] == group.get("momentum") == group.get("retention") == value
    assert "momentum" in group
    assert "retention" in group
    group.update({"momentum": 0.125})
    assert group["retention"] == 0.125
    group.update(momentum=0.375)
    assert group["retention"] == 0.375
    group.update(retention=0.625)
    assert group["momentum"] == 0.625
    group.update({"retention": 0.25, "momentum": 0.5})
    assert group["momentum"] == group["retention"] == 0.5
    group.update({"momentum": 0.5, "retention": 0.25})
    assert group["momentum"] == group["retention"] == 0.25
    assert group.setdefault("momentum", 0.875) == 0.25
    assert group.setdefault("retention", 0.875) == group["momentum"] == 0.25
    assert group.get("nothing", 3) == 3
    group["retention"] = kept


@pytest.mark.parametrize(**RETAINING)
def test_momentum_and_retention_are_one_value(member: Member) -> None:
    optimizer = member.build(network())
    assert "momentum" in optimizer.defaults
    is_alias(optimizer.param_groups[0])


@pytest.mark.parametrize(**RETAINING)
def test_what_is_saved_is_the_retention(member: Member) -> None:
    optimizer = member.build(network())
    optimizer.param_groups[0]["momentum"] = 0.25
    for tree in (optimizer.state_dict(), through_a_file(optimizer.state_dict())):
        names = list(tree["param_groups"][0])
        assert tree["param_groups"][0]["retention"] == 0.25
        assert names.count("retention") == 1
        assert "momentum" not in names


def loaded(module: nn.Module, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    optimizer.load_state_dict(through_a_file(optimizer.state_dict()))
    return optimizer


def copied(module: nn.Module, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    return copy.deepcopy((module, optimizer))[1]


def pickled(module: nn.Module, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    return pickle.loads(pickle.dumps((module, optimizer)))[1]


@pytest.mark.parametrize("through", [loaded, copied, pickled])
@pytest.mark.parametrize(**RETAINING)
def test_the_name_survives(member: Member, through: Callable[..., torch.optim.Optimizer]) -> None:
    module = network()
    optimizer = member.build(module)
    advance(member, optimizer, regression(module, [0]))
    optimizer.param_groups[0]["momentum"] = 0.25
    for _ in range(2):
        optimizer = through(module, optimizer)
        assert optimizer.param_groups[0]["retention"] == 0.25
        assert "momentum" in optimizer.defaults
        is_alias(optimizer.param_groups[0])


@pytest.mark.parametrize(**RETAINING)
def test_a_group_may_be_given_a_momentum(member: Member) -> None:
    """At construction, or later; other groups keep the default."""
    module = network(widths=(6, 6, 6, 6))
    parts = [list(module[place].parameters()) for place in (0, 2, 4)]
    optimizer = member.build(module, [{"params": parts[0], "momentum": 0.25}, {"params": parts[1]}])
    optimizer.add_param_group({"params": parts[2], "momentum": 0.5})
    default = inspect.signature(member.cls.__init__).parameters["retention"].default
    assert [group["retention"] for group in optimizer.param_groups] == [0.25, default, 0.5]
    for group in optimizer.param_groups:
        assert list(group).count("momentum") == 0
        is_alias(group)


@pytest.mark.parametrize(**RETAINING)
def test_a_momentum_out_of_range_is_refused(member: Member) -> None:
    module = network()
    with pytest.raises(ValueError, match="retention"):
        member.build(module, [{"params": module.parameters(), "momentum": 1.5}])


@pytest.mark.parametrize(**RETAINING)
def test_a_momentum_written_between_steps_acts(member: Member) -> None:
    ends = []
    for name in ("momentum", "retention"):
        module = network()
        optimizer = member.build(module)
        for step in range(4):
            optimizer.param_groups[0][name] = 0.5 + 0.125 * step
            advance(member, optimizer, regression(module, [step]))
        ends.append(snapshot(optimizer))
    assert_equal(*ends)


@pytest.mark.parametrize(**fast_for(MANY_KINDS, MEMBERS))
def test_a_resumed_cycle_of_momentum_continues(member: Member) -> None:
    """Settings that the scheduler keeps in the groups are saved and loaded with the others."""
    module = network()
    optimizer = member.build(module, lr=0.05)
    scheduler = CYCLES["OneCycleLR"](optimizer)
    for step in range(3):
        advance(member, optimizer, regression(module, [step]))
        tick(scheduler)
    saved = through_a_file({"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()})
    fresh = network(seed=99)
    fresh.load_state_dict(module.state_dict())
    other = member.build(fresh, lr=0.05)
    driver = CYCLES["OneCycleLR"](other)
    other.load_state_dict(saved["optimizer"])
    driver.load_state_dict(saved["scheduler"])
    for step in range(3, 6):
        for net, driven, by in ((module, optimizer, scheduler), (fresh, other, driver)):
            advance(member, driven, regression(net, [step]))
            tick(by)
    assert other.state_dict()["param_groups"] == optimizer.state_dict()["param_groups"]
    assert_equal(snapshot(other), snapshot(optimizer))


@pytest.mark.parametrize(**WITH_BETAS)
def test_betas_keep_their_name(member: Member) -> None:
    """torch's schedulers write betas where there are some: the first is the momentum."""
    optimizer = member.build(network())
    group = optimizer.param_groups[0]
    default = inspect.signature(member.cls.__init__).parameters["betas"].default
    assert group["betas"] == optimizer.defaults["betas"] == default
    assert "momentum" not in group
    assert "momentum" not in optimizer.defaults


UNKNOWN = ["momentum", "betas", "ns_steps", "foreach", "fused", "capturable", "differentiable", "amsgrad", "dampening"]
"""Arguments of torch's optimizers. Some are called otherwise here, the others do not exist."""


def name_here(member: Member, unknown: str) -> str:
    """What the message must name besides the unknown argument: the same thing by the name that the class has for it."""
    candidates = {"momentum": ("betas", "retention"), "betas": ("retention",), "ns_steps": ("steps",)}.get(unknown, ())
    if unknown == "foreach":
        return "batch"
    return next((name for name in candidates if name in settings_of(member)), "argument")


@pytest.mark.parametrize("unknown", [*UNKNOWN, "nesterov", "momentun"])
@pytest.mark.parametrize(**over(CLASSES))
def test_an_argument_of_another_library_is_refused_by_name(member: Member, unknown: str) -> None:
    if unknown in settings_of(member):
        return
    with pytest.raises(TypeError) as caught:
        member.build(network(), **{unknown: (0.9, 0.99) if unknown == "betas" else 0.5})
    text = str(caught.value)
    assert repr(unknown) in text
    assert name_here(member, unknown) in text.replace(repr(unknown), "")
