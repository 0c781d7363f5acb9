"""State: tensors only, stable names, full precision, and a clock that ticks with the gradient of its own parameter."""

from __future__ import annotations

import io

import pytest
import torch
from torch import nn

from .members import COLLECTING, EVERY, MEMBERS, OPEN, Member
from .problems import (
    Bag,
    advance,
    assert_equal,
    flat_state,
    network,
    quadratic,
    regression,
    snapshot,
    tensors_of,
)

HALVES = [torch.bfloat16, torch.float16]


def memories(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """All floating state except clocks, by dotted name."""
    return {
        f"{index}.{key}": value
        for index, state in enumerate(flat_state(optimizer))
        for key, value in state.items()
        if value.is_floating_point() and key.rpartition(".")[2] != "step"
    }


@pytest.mark.parametrize(**EVERY)
def test_state_is_a_dict_of_tensors(member: Member) -> None:
    module = network()
    optimizer = member.build(module)
    advance(member, optimizer, regression(module, range(3)))
    for parameter in module.parameters():
        state = optimizer.state[parameter]
        assert isinstance(state, dict)
        for key, leaf in tensors_of(state):
            assert type(leaf) is torch.Tensor, f"{key} is {type(leaf)}"
            assert not leaf.requires_grad
            assert leaf.grad_fn is None
            assert leaf.device == parameter.device


@pytest.mark.parametrize(**EVERY)
def test_state_keys_are_the_parameters_alone(member: Member) -> None:
    module = network()
    optimizer = member.build(module)
    advance(member, optimizer, regression(module, range(2)))
    assert set(optimizer.state) <= set(module.parameters())
    assert set(optimizer.state_dict()) == {"state", "param_groups"}


@pytest.mark.parametrize(**COLLECTING)
def test_names_and_shapes_never_change(member: Member) -> None:
    module = network()
    optimizer = member.build(module, period=2)
    layouts = []
    for index in range(7):
        advance(member, optimizer, regression(module, [index]))
        layouts.append([{key: (v.shape, v.dtype) for key, v in state.items()} for state in flat_state(optimizer)])
    assert all(layout == layouts[0] for layout in layouts)


@pytest.mark.parametrize(**EVERY)
def test_equal_parameters_have_equal_names_and_shapes(member: Member) -> None:
    module = network(widths=(4, 4, 4, 4))
    optimizer = member.build(module)
    advance(member, optimizer, regression(module, range(2)))
    shapes: dict[torch.Size, set[frozenset[tuple[str, torch.Size]]]] = {}
    for parameter, state in zip(module.parameters(), flat_state(optimizer), strict=True):
        layout = frozenset((key, value.shape) for key, value in state.items())
        shapes.setdefault(parameter.shape, set()).add(layout)
    assert {shape: len(layouts) for shape, layouts in shapes.items()} == dict.fromkeys(shapes, 1)


@pytest.mark.parametrize(**EVERY)
def test_the_step_counts_own_gradients(member: Member) -> None:
    module = network()
    optimizer = member.build(module)
    advance(member, optimizer, regression(module, range(3)))
    assert [int(state["step"]) for state in flat_state(optimizer)] == [3] * 4


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize(**EVERY)
def test_memories_of_half_precision_weights_are_float32(member: Member, dtype: torch.dtype) -> None:
    module = network(dtype)
    optimizer = member.build(module)
    advance(member, optimizer, regression(module, range(3)))
    assert {key: value.dtype for key, value in memories(optimizer).items() if value.dtype != torch.float32} == {}
    assert all(parameter.dtype == dtype for parameter in module.parameters())
    assert all(parameter.isfinite().all() for parameter in module.parameters())


@pytest.mark.parametrize(**EVERY)
def test_memories_of_double_weights_are_double(member: Member) -> None:
    module = network(torch.float64)
    optimizer = member.build(module)
    advance(member, optimizer, regression(module, range(2)))
    assert {key: value.dtype for key, value in memories(optimizer).items() if value.dtype != torch.float64} == {}


@pytest.mark.parametrize(**EVERY)
def test_a_checkpoint_holds_no_more_than_the_state(member: Member) -> None:
    module = network(widths=(64, 64, 64, 64))
    optimizer = member.build(module)
    advance(member, optimizer, regression(module, range(2)))
    size = sum(value.nbytes for state in flat_state(optimizer) for value in state.values())
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    assert file.tell() < 1.05 * size + 40_000


@pytest.mark.parametrize(**EVERY)
def test_parameters_without_gradient_are_left_alone(member: Member) -> None:
    module = network()
    frozen = module[0].weight
    frozen.requires_grad_(False)
    before = frozen.clone()
    optimizer = member.build(module)
    advance(member, optimizer, regression(module, range(3)))
    assert torch.equal(frozen, before)
    assert len(optimizer.state.get(frozen, {})) == 0


@pytest.mark.parametrize(**EVERY)
def test_a_step_without_any_gradient_does_nothing(member: Member) -> None:
    module = network()
    optimizer = member.build(module)
    advance(member, optimizer, regression(module, range(2)))
    optimizer.zero_grad()
    before = snapshot(optimizer)
    if member.closure:
        optimizer.step(lambda: torch.zeros((), requires_grad=True))
    else:
        optimizer.step()
    assert_equal(snapshot(optimizer), before)


@pytest.mark.parametrize(**OPEN)
def test_a_missing_gradient_does_not_tick(member: Member) -> None:
    """Layer b sees gradients 0 and 2 only; it ends where a run over 0 and 2 alone ends."""

    def run(indices: list[int], seen: set[int]) -> tuple[nn.ModuleDict, torch.optim.Optimizer]:
        module = nn.ModuleDict({"a": network(seed=1), "b": network(seed=2)})
        optimizer = member.build(module)
        for index in indices:
            optimizer.zero_grad()
            regression(module["a"], [index])[0]().backward()
            if index in seen:
                regression(module["b"], [index])[0]().backward()
            optimizer.step()
        return module, optimizer

    skipping, first = run([0, 1, 2], {0, 2})
    plain, second = run([0, 2], {0, 2})
    for one, two in zip(skipping["b"].parameters(), plain["b"].parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-12)
    clocks = [int(state["step"]) for state in flat_state(first)]
    assert clocks == [3] * 4 + [2] * 4
    assert [int(state["step"]) for state in flat_state(second)] == [2] * 8


@pytest.mark.parametrize(**EVERY)
def test_free_parameters_have_state_too(member: Member) -> None:
    module = Bag([torch.ones((), dtype=torch.float64), torch.ones(5, dtype=torch.float64)])
    optimizer = member.build(module)
    advance(member, optimizer, quadratic(module, 2))
    assert [int(state["step"]) for state in flat_state(optimizer)] == [2, 2]


def test_the_control_of_a_memory_keeps_less_state() -> None:
    """`memory=False` remembers nothing: its state is smaller than that of the memory it controls."""
    for member in MEMBERS:
        if member.settings.get("memory", True):
            continue
        sizes = []
        for memory in (False, True):
            module = network()
            optimizer = member.build(module, memory=memory)
            advance(member, optimizer, regression(module, range(2)))
            sizes.append(sum(v.nbytes for state in flat_state(optimizer) for v in state.values()))
        assert sizes[0] < sizes[1], member
