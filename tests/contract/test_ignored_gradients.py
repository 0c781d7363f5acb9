"""`nonfinite="ignore"` lets NaN and infinity in and says so once, at the step in which they enter a memory."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from nestlearn.optim.nonfinite import TURNS, LetIn

from .members import MEMBERS, Member, over
from .problems import Bag, network, regression
from .test_safety import poison

REMEMBERING = over(
    member
    for member in MEMBERS
    if member.name not in {"GradientDescent", "DeltaGradientDescent", "LayerMomentum"}
    and not member.closure
    and member.settings.get("target") != "kronecker"
    and not (member.name == "Nested" and member.settings.get("memory", True))
)
"""Members with a memory, whose read-outs factor no matrix: a factorisation may refuse NaN by itself."""


def step(module: nn.Module, optimizer: torch.optim.Optimizer, index: int, value: float | None = None) -> list[str]:
    """One step, with `value` in a gradient; returns what was said by RuntimeWarnings."""
    optimizer.zero_grad()
    regression(module, [index])[0]().backward()
    if value is not None:
        poison(module, value)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        optimizer.step()
    assert all(each.category is RuntimeWarning for each in caught)
    return [str(each.message) for each in caught]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(**REMEMBERING)
def test_it_is_said_once(member: Member, value: float) -> None:
    """Weights that are NaN make NaN of all later gradients: nothing new is learned from that."""
    module = network()
    optimizer = member.build(module, nonfinite="ignore")
    said = [step(module, optimizer, index, value if index == 2 else None) for index in range(5)]
    assert [len(messages) for messages in said] == [0, 0, 1, 0, 0]
    assert "finite" in said[2][0]
    assert module[2].weight.isnan().any()


@pytest.mark.parametrize(**REMEMBERING)
def test_finite_training_says_nothing(member: Member) -> None:
    module = network()
    optimizer = member.build(module, nonfinite="ignore")
    assert [step(module, optimizer, index) for index in range(5)] == [[]] * 5


@pytest.mark.parametrize(**REMEMBERING)
def test_raise_still_raises_and_says_nothing(member: Member) -> None:
    module = network()
    optimizer = member.build(module)
    step(module, optimizer, 0)
    with pytest.raises(FloatingPointError, match=r"NaN or infinite"):
        step(module, optimizer, 1, float("nan"))
    assert step(module, optimizer, 2) == []


@pytest.mark.parametrize(**over(member for member in MEMBERS if member.name in {"Adam", "Muon"}))
def test_finite_gradients_after_it_are_silent_too(member: Member) -> None:
    """The memory stays what it is; that was said."""
    module = Bag([torch.ones(4, 3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)])
    optimizer = member.build(module, nonfinite="ignore")
    for index in range(4):
        for parameter in module.parameters():
            parameter.grad = torch.ones_like(parameter)
        if index == 1:
            module.p1.grad[0] = float("nan")
            with pytest.warns(RuntimeWarning, match="finite"):
                optimizer.step()
        else:
            optimizer.step()  # a warning is an error in this suite
    assert module.p1.isnan().sum() == 1
    assert module.p0.isfinite().all()


@pytest.mark.parametrize(**over(member for member in MEMBERS if member.name in {"Adam", "Muon"}))
def test_one_group_may_ignore_what_another_refuses(member: Member) -> None:
    module = network()
    groups = [{"params": module[0].parameters()}, {"params": module[2].parameters(), "nonfinite": "ignore"}]
    optimizer = member.build(module, groups)
    assert "finite" in step(module, optimizer, 0, float("nan"))[0]
    assert module[0].weight.isfinite().all()
    with pytest.raises(FloatingPointError, match=r"8\D+6"):
        step(module, optimizer, 1)


@pytest.mark.parametrize(**over(member for member in MEMBERS if member.name == "Adam"))
def test_many_gradients_are_looked_at_in_turns(member: Member) -> None:
    """Each of them in one of so many steps; it is said once."""
    module = Bag([torch.ones(3) for _ in range(TURNS + 1)])
    optimizer = member.build(module, nonfinite="ignore")
    for place in (0, TURNS // 2, TURNS):
        said = []
        optimizer._let_in = LetIn()
        for parameter in module.parameters():
            parameter.grad = torch.ones_like(parameter)
        list(module.parameters())[place].grad[0] = float("nan")
        for _ in range(2 * TURNS):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                optimizer.step()
            said.append(len(caught))
        assert sum(said[:TURNS]) == 1
        assert sum(said[TURNS:]) == 0
