"""A checkpoint that does not fit is refused by name, and the optimizer goes on as if nothing had been tried."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nestlearn.optim.settings import COMMON

from .members import MEMBERS, Member
from .problems import advance, assert_equal, flat_state, network, regression, snapshot
from .selections import MANY_KINDS, fast_for

FIRST = "0.weight"


def trained(member: Member, **settings: Any) -> tuple[nn.Sequential, torch.optim.Optimizer]:
    """A network [6 -> 8 -> 3] and an optimizer over its named parameters after two steps."""
    module = network(torch.float32)
    optimizer = member.build(module, module.named_parameters(), **settings)
    advance(member, optimizer, regression(module, range(2)))
    return module, optimizer


def memories(member: Member) -> list[str]:
    """The keys of what the member remembers for the weight of the first layer."""
    return [key for key, value in flat_state(trained(member)[1])[0].items() if key != "step" and value.ndim > 0]


# One check serves every setting of a class.
PLAIN = fast_for(MANY_KINDS, (m for m in MEMBERS if not m.extra))
WITHOUT_MEMORY = {"GradientDescent", "DeltaGradientDescent"}
REMEMBERING = fast_for(MANY_KINDS, (m for m in MEMBERS if not m.extra and m.name not in WITHOUT_MEMORY))


def refuses(member: Member, corrupt: Callable[[dict[str, Any]], Any], *words: str) -> None:
    """Loading a corrupted checkpoint raises ValueError with `words` and leaves a trained optimizer as it was."""
    module, optimizer = trained(member)
    checkpoint = copy.deepcopy(optimizer.state_dict())
    corrupt(checkpoint)
    before, settings = snapshot(optimizer), copy.deepcopy(optimizer.state_dict()["param_groups"])
    with pytest.raises(ValueError) as caught:
        optimizer.load_state_dict(checkpoint)
    assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)
    assert optimizer.state_dict()["param_groups"] == settings
    assert_equal(snapshot(optimizer), before)
    advance(member, optimizer, regression(module, [2]))
    other, reference = trained(member)
    advance(member, reference, regression(other, [2]))
    assert_equal(snapshot(optimizer), snapshot(reference))


@pytest.mark.parametrize(**PLAIN)
def test_a_checkpoint_of_torch_adam_is_refused(member: Member) -> None:
    module = network(torch.float32)
    foreign = torch.optim.Adam(module.parameters(), lr=0.5)
    regression(module, [0])[0]().backward()
    foreign.step()

    def corrupt(checkpoint: dict[str, Any]) -> None:
        checkpoint.clear()
        checkpoint.update(copy.deepcopy(foreign.state_dict()))

    refuses(member, corrupt, FIRST)


@pytest.mark.parametrize("value", [torch.zeros(7, 7, 7), "seven", None], ids=["shape", "text", "none"])
@pytest.mark.parametrize(**REMEMBERING)
def test_a_memory_that_does_not_fit_is_refused(member: Member, value: Any) -> None:
    key = memories(member)[0]
    shown = "(7, 7, 7)" if isinstance(value, Tensor) else type(value).__name__
    refuses(member, lambda checkpoint: checkpoint["state"][0].update({key: value}), FIRST, key, shown)


@pytest.mark.parametrize(**REMEMBERING)
def test_a_missing_memory_is_refused(member: Member) -> None:
    key = memories(member)[0]
    refuses(member, lambda checkpoint: checkpoint["state"][0].pop(key), FIRST, key)


@pytest.mark.parametrize(**PLAIN)
def test_the_checkpoint_of_another_class_is_refused(member: Member) -> None:
    """Its groups have none of the settings of this class; entries alone may be somebody else's."""
    optimizer = member.build(network(torch.float32))
    own = set(optimizer.rule_settings(optimizer.param_groups[0])) - set(COMMON)

    def corrupt(checkpoint: dict[str, Any]) -> None:
        for name in own:
            del checkpoint["param_groups"][0][name]

    if own:  # a class without settings remembers nothing
        refuses(member, corrupt, FIRST, "another optimizer")


@pytest.mark.parametrize(**REMEMBERING)
def test_states_in_exchange_are_refused(member: Member) -> None:
    """Weight and bias of a layer changed places: the shapes of the memories tell."""

    def corrupt(checkpoint: dict[str, Any]) -> None:
        states = checkpoint["state"]
        states[0], states[1] = states[1], states[0]

    refuses(member, corrupt, FIRST)


@pytest.mark.parametrize(**PLAIN)
def test_another_number_of_parameters_is_refused(member: Member) -> None:
    refuses(member, lambda checkpoint: checkpoint["param_groups"][0]["params"].pop(), "size")


@pytest.mark.parametrize(**PLAIN)
def test_a_bad_setting_in_a_checkpoint_is_refused(member: Member) -> None:
    refuses(member, lambda checkpoint: checkpoint["param_groups"][0].update(period=0), "period")


@pytest.mark.parametrize("missing", ["state", "param_groups"])
@pytest.mark.parametrize(**PLAIN)
def test_a_checkpoint_without_its_parts_is_refused(member: Member, missing: str) -> None:
    refuses(member, lambda checkpoint: checkpoint.pop(missing), missing)


@pytest.mark.parametrize(**PLAIN)
def test_nan_in_a_checkpoint_is_loaded_as_it_is(member: Member) -> None:
    """Loading judges the layout, not the values: a run that ended in NaN can be inspected."""
    _, optimizer = trained(member)
    checkpoint = copy.deepcopy(optimizer.state_dict())
    for value in checkpoint["state"][0].values():
        if value.is_floating_point() and value.ndim > 0:
            value.fill_(float("nan"))
    optimizer.load_state_dict(checkpoint)
    memories = [value for value in flat_state(optimizer)[0].values() if value.is_floating_point() and value.ndim > 0]
    assert all(value.isnan().all() for value in memories)


def test_a_memory_of_another_width_is_refused() -> None:
    """Also where the settings in the checkpoint have been edited to agree."""
    narrow = Member("DeepMomentum", {"hidden": 4})
    _, wide = trained(narrow, hidden=7)
    checkpoint = copy.deepcopy(wide.state_dict())
    checkpoint["param_groups"][0]["hidden"] = 4
    refuses(narrow, lambda given: (given.clear(), given.update(checkpoint)), FIRST)
