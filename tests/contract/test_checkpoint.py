"""A checkpoint, a copy or a pickle continues bit for bit, in a fresh optimizer over a fresh model."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

from .members import COLLECTING, EVERY, MEMBERS, Member
from .problems import advance, assert_equal, flat_state, network, regression, snapshot, tensors_of
from .selections import MANY_KINDS, fast_for

EACH = fast_for(MANY_KINDS, MEMBERS)


def through_a_file(tree: Any) -> Any:
    """`tree` after torch.save and the safe torch.load."""
    file = io.BytesIO()
    torch.save(tree, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def resumed(member: Member, module: nn.Module, optimizer: torch.optim.Optimizer, **overrides: Any) -> tuple:
    """A fresh network and optimizer, both loaded from files of the given ones."""
    fresh = network(next(module.parameters()).dtype, seed=99)
    fresh.load_state_dict(through_a_file(module.state_dict()))
    other = member.build(fresh, **overrides)
    other.load_state_dict(through_a_file(optimizer.state_dict()))
    return fresh, other


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(**EVERY)
def test_resume_is_bit_equal(member: Member, dtype: torch.dtype) -> None:
    module = network(dtype)
    optimizer = member.build(module)
    advance(member, optimizer, regression(module, range(3)))
    fresh, other = resumed(member, module, optimizer)
    assert_equal(snapshot(other), snapshot(optimizer))
    advance(member, optimizer, regression(module, range(3, 7)))
    advance(member, other, regression(fresh, range(3, 7)))
    assert_equal(snapshot(other), snapshot(optimizer))


@pytest.mark.parametrize(**COLLECTING)
def test_resume_in_the_middle_of_a_period_is_bit_equal(member: Member) -> None:
    module = network(torch.float32)
    optimizer = member.build(module, period=3)
    advance(member, optimizer, regression(module, range(4)))
    fresh, other = resumed(member, module, optimizer, period=3)
    advance(member, optimizer, regression(module, range(4, 9)))
    advance(member, other, regression(fresh, range(4, 9)))
    assert_equal(snapshot(other), snapshot(optimizer))


@pytest.mark.parametrize(**EACH)
def test_settings_come_from_the_checkpoint(member: Member) -> None:
    module = network(torch.float32)
    optimizer = member.build(module, lr=0.003, weight_decay=0.25)
    advance(member, optimizer, regression(module, range(1)))
    _, other = resumed(member, module, optimizer, lr=0.5)
    assert (other.param_groups[0]["lr"], other.param_groups[0]["weight_decay"]) == (0.003, 0.25)


@pytest.mark.parametrize(**EACH)
def test_a_fresh_checkpoint_loads(member: Member) -> None:
    module = network(torch.float32)
    optimizer = member.build(module)
    fresh, other = resumed(member, module, optimizer)
    advance(member, optimizer, regression(module, range(2)))
    advance(member, other, regression(fresh, range(2)))
    assert_equal(snapshot(other), snapshot(optimizer))


@pytest.mark.parametrize(**EACH)
def test_loading_into_a_bfloat16_model_keeps_the_memories(member: Member) -> None:
    module = network(torch.float32)
    optimizer = member.build(module)
    advance(member, optimizer, regression(module, range(3)))
    small = network(torch.bfloat16)
    other = member.build(small)
    other.load_state_dict(through_a_file(optimizer.state_dict()))
    for ours, theirs in zip(flat_state(other), flat_state(optimizer), strict=True):
        assert_equal(ours, theirs)
    assert all(parameter.dtype == torch.bfloat16 for parameter in small.parameters())
    advance(member, other, regression(small, range(3, 5)))
    assert all(parameter.isfinite().all() for parameter in small.parameters())


@pytest.mark.parametrize(**EACH)
def test_a_used_optimizer_can_be_set_back(member: Member) -> None:
    """Loading replaces everything that the steps since have left behind, schedules included, wherever these stand."""
    module = network(torch.float32)
    optimizer = member.build(module)
    advance(member, optimizer, regression(module, range(2)))
    weights, checkpoint = copy.deepcopy(module.state_dict()), copy.deepcopy(optimizer.state_dict())
    advance(member, optimizer, regression(module, range(2, 5)))
    expected = snapshot(optimizer)
    for spent in (1, 2, 3):
        advance(member, optimizer, regression(module, range(5, 5 + spent)))
        module.load_state_dict(weights)
        optimizer.load_state_dict(checkpoint)
        advance(member, optimizer, regression(module, range(2, 5)))
        assert_equal(snapshot(optimizer), expected)


@pytest.mark.parametrize(**EACH)
def test_loading_does_not_alias_the_checkpoint(member: Member) -> None:
    module = network(torch.float32)
    optimizer = member.build(module)
    advance(member, optimizer, regression(module, range(2)))
    checkpoint = copy.deepcopy(optimizer.state_dict())
    kept = copy.deepcopy(checkpoint)
    fresh = network(torch.float32)
    other = member.build(fresh)
    other.load_state_dict(checkpoint)
    advance(member, other, regression(fresh, range(2, 4)))
    assert_equal(dict(tensors_of(checkpoint["state"])), dict(tensors_of(kept["state"])))


@pytest.mark.parametrize(**EACH)
def test_a_deep_copy_goes_its_own_way(member: Member) -> None:
    module = network(torch.float32)
    optimizer = member.build(module)
    advance(member, optimizer, regression(module, range(2)))
    fresh, other = copy.deepcopy((module, optimizer))
    before = snapshot(optimizer)
    advance(member, other, regression(fresh, range(2, 5)))
    assert_equal(snapshot(optimizer), before)
    advance(member, optimizer, regression(module, range(2, 5)))
    assert_equal(snapshot(other), snapshot(optimizer))


@pytest.mark.parametrize(**EACH)
def test_a_pickle_continues(member: Member) -> None:
    module = network(torch.float32)
    optimizer = member.build(module)
    advance(member, optimizer, regression(module, range(2)))
    fresh, other = pickle.loads(pickle.dumps((module, optimizer)))
    advance(member, optimizer, regression(module, range(2, 5)))
    advance(member, other, regression(fresh, range(2, 5)))
    assert_equal(snapshot(other), snapshot(optimizer))


@pytest.mark.parametrize(**EACH)
def test_a_choice_of_elementwise_parameters_is_saved_as_data(member: Member) -> None:
    """A callable chooses; the checkpoint holds neither the callable nor a parameter."""
    module = network(torch.float32)
    optimizer = member.build(module, module.named_parameters(), elementwise=lambda name, _: name.startswith("2"))
    advance(member, optimizer, regression(module, range(2)))
    fresh = network(torch.float32, seed=99)
    fresh.load_state_dict(module.state_dict())
    other = member.build(fresh, fresh.named_parameters(), elementwise=["2.*"])
    other.load_state_dict(through_a_file(optimizer.state_dict()))
    advance(member, optimizer, regression(module, range(2, 4)))
    advance(member, other, regression(fresh, range(2, 4)))
    assert_equal(snapshot(other), snapshot(optimizer))


@pytest.mark.parametrize("flatten", [True, False], ids=["flat", "nested"])
@pytest.mark.parametrize(**EACH)
def test_distributed_state_dict_continues(member: Member, flatten: bool) -> None:
    options = StateDictOptions(flatten_optimizer_state_dict=flatten)
    module = network(torch.float32)
    optimizer = member.build(module)
    advance(member, optimizer, regression(module, range(3)))
    saved = through_a_file(get_optimizer_state_dict(module, optimizer, options=options))
    if flatten:
        assert all("." in key for key in saved)
    fresh = network(torch.float32, seed=99)
    fresh.load_state_dict(module.state_dict())
    other = member.build(fresh)
    set_optimizer_state_dict(fresh, other, saved, options=options)
    assert_equal(snapshot(other), snapshot(optimizer))
    advance(member, optimizer, regression(module, range(3, 5)))
    advance(member, other, regression(fresh, range(3, 5)))
    assert_equal(snapshot(other), snapshot(optimizer))


@pytest.mark.parametrize(**EACH)
def test_the_state_initialisation_of_distributed_checkpoints_moves_nothing(member: Member) -> None:
    """They make the state exist with one step on zero gradients at lr = 0, without a forward pass."""
    module = network(torch.float32)
    optimizer = member.build(module)
    before = [parameter.detach().clone() for parameter in module.parameters()]
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.param_groups[0]["lr"] = 0.0
    optimizer.step()
    for parameter, old in zip(module.parameters(), before, strict=True):
        assert torch.equal(parameter, old)
    layout = [{key: v.shape for key, v in state.items()} for state in flat_state(optimizer)]
    trained = network(torch.float32)
    reference = member.build(trained)
    advance(member, reference, regression(trained, range(1)))
    assert layout == [{key: v.shape for key, v in state.items()} for state in flat_state(reference)]


def test_every_member_has_its_own_checkpoint_names() -> None:
    """Dotted names hold no separator that flattened checkpoints or safetensors would misread."""
    for member in MEMBERS:
        module = network(torch.float32)
        optimizer = member.build(module)
        advance(member, optimizer, regression(module, range(1)))
        for state in flat_state(optimizer):
            assert all(key and not set(key) & set(" /\\:") for key in state), member
