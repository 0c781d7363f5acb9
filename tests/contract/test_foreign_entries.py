"""Entries of others in the state and in the groups are left alone, saved and loaded; steps may be numbers, as in torch.

Averages of weights, flags and factors for the rate are kept there by schedules, wrappers and training scripts.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from .members import MEMBERS, Member, over
from .problems import advance, assert_equal, network, regression, snapshot
from .selections import CLASSES, MANY_KINDS, fast_for
from .test_checkpoint import through_a_file

Pair = tuple[nn.Module, torch.optim.Optimizer]

EACH = fast_for(MANY_KINDS, MEMBERS)


def an_average() -> Tensor:
    return torch.arange(6.0, dtype=torch.float64)


ENTRIES: dict[str, Callable[[], Any]] = {
    "tensor": an_average,
    "flag": lambda: True,
    "text": lambda: "frozen",
    "nothing": lambda: None,
    "nested": lambda: {"average": an_average(), "depth": {"count": 3}},
}
MINE = "mine"


def entries() -> dict[str, Any]:
    """One of each kind, under names of ours."""
    return {f"{MINE}_{kind}": made() for kind, made in ENTRIES.items()}


def mine(state: dict[str, Any]) -> dict[str, Any]:
    """The foreign entries of a state."""
    return {name: value for name, value in state.items() if name.startswith(MINE)}


def own(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Weights and state without the foreign entries."""
    held = {parameter: mine(state) for parameter, state in optimizer.state.items()}
    for parameter, names in held.items():
        for name in names:
            del optimizer.state[parameter][name]
    copies = snapshot(optimizer)
    for parameter, values in held.items():
        optimizer.state[parameter].update(values)
    return copies


def same(actual: Any, expected: Any) -> None:
    """Equal values and types, down to the leaves."""
    if isinstance(expected, Tensor):
        torch.testing.assert_close(actual, expected, rtol=0, atol=0)
    elif isinstance(expected, dict):
        assert actual.keys() == expected.keys()
        for key, value in expected.items():
            same(actual[key], value)
    else:
        assert type(actual) is type(expected)
        assert actual == expected


def run(member: Member, put: Callable[[nn.Module, torch.optim.Optimizer, int], None] | None) -> Pair:
    """Five steps, in the fourth of which the last layer has no gradient: a set of parameters that changes."""
    module = network()
    optimizer = member.build(module)
    for step in range(5):
        if put is not None:
            put(module, optimizer, step)
        for parameter in module[2].parameters():
            parameter.requires_grad_(step != 3)
        advance(member, optimizer, regression(module, [step]))
    return module, optimizer


@pytest.mark.parametrize(**EACH)
def test_entries_of_others_change_nothing(member: Member) -> None:
    """Of every kind beside each other, before the first step or later, on one parameter or on all."""
    _, plain = run(member, None)
    for when, everywhere in product([0, 2], [False, True]):
        assert_unseen(member, plain, ENTRIES, when, everywhere)


@pytest.mark.parametrize("kind", ENTRIES)
@pytest.mark.parametrize(**fast_for({"Muon"}, CLASSES))
def test_an_entry_of_others_changes_nothing(member: Member, kind: str) -> None:
    """Of one kind alone."""
    _, plain = run(member, None)
    assert_unseen(member, plain, [kind], when=2, everywhere=True)


def assert_unseen(
    member: Member, plain: torch.optim.Optimizer, kinds: Iterable[str], when: int, everywhere: bool
) -> None:
    """The entries are put there before step `when`; training goes as in `plain`, and the objects are not touched."""
    placed: dict[tuple[Tensor, str], Any] = {}

    def put(module: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
        if step == when:
            for parameter, kind in product(list(module.parameters())[: None if everywhere else 1], kinds):
                placed[parameter, kind] = optimizer.state[parameter][f"{MINE}_{kind}"] = ENTRIES[kind]()

    _, watched = run(member, put)
    assert_equal(own(watched), own(plain))
    for (parameter, kind), value in placed.items():
        assert watched.state[parameter][f"{MINE}_{kind}"] is value
        same(value, ENTRIES[kind]())
    assert len(placed) == (4 if everywhere else 1) * len(list(kinds))


@pytest.mark.parametrize(**EACH)
def test_entries_of_others_are_saved_and_loaded(member: Member) -> None:
    """Also by an optimizer that has never seen them."""
    module, optimizer = run(member, None)
    for parameter in (module[0].weight, module[2].bias):
        optimizer.state[parameter].update(entries())
    saved = through_a_file(optimizer.state_dict())
    same(mine(saved["state"][0]), entries())
    fresh = network(seed=99)
    fresh.load_state_dict(module.state_dict())
    other = member.build(fresh)
    for _ in range(2):
        other.load_state_dict(saved)
        same(mine(other.state[fresh[0].weight]), entries())
        same(mine(other.state[fresh[2].bias]), entries())
        assert not mine(other.state[fresh[0].bias])
    for net, driven in ((module, optimizer), (fresh, other)):
        advance(member, driven, regression(net, range(5, 7)))
    assert_equal(own(other), own(optimizer))
    same(mine(other.state[fresh[0].weight]), entries())


@pytest.mark.parametrize(**over(CLASSES))
def test_an_entry_of_others_alone_is_loaded(member: Member) -> None:
    """From a checkpoint before the first step: the parameter's own state is still to be made."""
    module = network()
    optimizer = member.build(module)
    optimizer.state[module[0].weight][f"{MINE}_tensor"] = an_average()
    fresh = network()
    other = member.build(fresh)
    other.load_state_dict(through_a_file(optimizer.state_dict()))
    same(other.state[fresh[0].weight][f"{MINE}_tensor"], an_average())
    plain = network()
    reference = member.build(plain)
    for net, driven in ((fresh, other), (plain, reference)):
        advance(member, driven, regression(net, range(3)))
    assert_equal(own(other), own(reference))


@pytest.mark.parametrize(**over(CLASSES))
def test_an_entry_may_be_called_as_ours_are(member: Member) -> None:
    """Whose an entry is tells what this optimizer would make, not how it reads."""
    module, optimizer = run(member, None)
    twin, reference = run(member, None)
    notes = {name: torch.full((3,), 2.0) for name in ("teacher.model.value", "x.answer", "pending_average")}
    saved = copy.deepcopy(optimizer.state_dict())
    saved["state"][0].update(notes)
    optimizer.load_state_dict(saved)
    reference.load_state_dict(copy.deepcopy(reference.state_dict()))
    for one, loss in ((optimizer, module), (reference, twin)):
        advance(member, one, regression(loss, [5]))
    expected, found = snapshot(reference), snapshot(optimizer)
    assert_equal({name: found[name] for name in expected}, expected)
    state = optimizer.state[next(module.parameters())]
    assert all(torch.equal(state[name], note) for name, note in notes.items())


@pytest.mark.parametrize("when", ["made", "later"])
@pytest.mark.parametrize(**EACH)
def test_a_setting_of_others_changes_nothing(member: Member, when: str) -> None:
    notes = {"lr_mult": 2.0, "note": "x", "tags": ["a", "b"]}
    ends = []
    for noted in (False, True):
        module = network()
        group: dict[str, Any] = {"params": list(module.parameters())}
        optimizer = member.build(module, [group | copy.deepcopy(notes)] if noted and when == "made" else [group])
        for step in range(4):
            if noted and when == "later" and step == 2:
                optimizer.param_groups[0].update(copy.deepcopy(notes))
            advance(member, optimizer, regression(module, [step]))
        ends.append((module, optimizer))
    (_, plain), (module, noted_one) = ends
    assert_equal(snapshot(noted_one), snapshot(plain))
    assert {key: noted_one.param_groups[0][key] for key in notes} == notes
    saved = through_a_file(noted_one.state_dict())
    fresh = network()
    fresh.load_state_dict(module.state_dict())
    other = member.build(fresh)
    other.load_state_dict(saved)
    assert {key: other.param_groups[0][key] for key in notes} == notes
    for net, driven in ((module, noted_one), (fresh, other)):
        advance(member, driven, regression(net, range(4, 6)))
    assert_equal(snapshot(other), snapshot(noted_one))


STEPS: dict[str, Callable[[int], Any]] = {
    "float": float,
    "int": int,
    "int64": lambda count: torch.tensor(count, dtype=torch.int64),
    "float64": lambda count: torch.tensor(float(count), dtype=torch.float64),
}
"""What other code writes as a step count; torch made floats of them once, and old checkpoints hold such."""


def without_clocks(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Weights and memories, and the counts as numbers."""
    counts = {}
    copies: dict[str, Tensor] = {}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for place, parameter in enumerate(parameters):
        copies[f"{place}"] = parameter.detach().clone()
        for key, value in optimizer.state[parameter].items():
            if key == "step":
                counts[f"{place}.{key}"] = torch.tensor(int(value))
            else:
                copies[f"{place}.{key}"] = value.detach().clone()
    return copies | counts


@pytest.mark.parametrize(
    ("kind", "everywhere"), [("float", True), ("int", False), ("int64", True), ("float64", False), ("float64", True)]
)
@pytest.mark.parametrize(**fast_for({"Adam", "Muon"}, CLASSES))
def test_a_step_may_be_another_kind_of_number(member: Member, kind: str, everywhere: bool) -> None:
    """At rest, and in a checkpoint; the count that is meant goes on."""
    module, optimizer = run(member, None)
    weights, saved = copy.deepcopy(module.state_dict()), copy.deepcopy(optimizer.state_dict())
    advance(member, optimizer, regression(module, range(5, 8)))
    expected = without_clocks(optimizer)

    fresh = network(seed=99)
    fresh.load_state_dict(weights)
    other = member.build(fresh)
    other.load_state_dict(saved)
    for parameter in list(fresh.parameters())[: None if everywhere else 1]:
        other.state[parameter]["step"] = STEPS[kind](int(other.state[parameter]["step"]))
    advance(member, other, regression(fresh, range(5, 8)))
    assert_equal(without_clocks(other), expected)

    for number in range(4 if everywhere else 1):
        saved["state"][number]["step"] = STEPS[kind](int(saved["state"][number]["step"]))
    fresh.load_state_dict(weights)
    for _ in range(2):
        other.load_state_dict(copy.deepcopy(saved))
    advance(member, other, regression(fresh, range(5, 8)))
    assert_equal(without_clocks(other), expected)
