"""Lanes: parameters written together are written as if each were alone, and ``state`` stays the truth."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import nestlearn as nl
from nestlearn.optim import lanes
from nestlearn.optim.lanes import matrix_shape, memory_dtype
from nestlearn.optim.stacks import Stack

SHAPES = [(4, 6), (6, 4), (4, 6), (5,), (), (4, 6), (3, 2, 2), (1, 7), (0,), (2, 3, 2, 2)]
MAKERS: dict[str, Callable[[Iterable[Tensor]], torch.optim.Optimizer]] = {
    "Adam": lambda params: nl.optim.Adam(params, lr=0.01),
    "Momentum": lambda params: nl.optim.Momentum(params, lr=0.01),
    "DeltaMomentum": lambda params: nl.optim.DeltaMomentum(params, lr=0.01),
    "DeepMomentum": lambda params: nl.optim.DeepMomentum(params, lr=0.01, hidden=3, levels=2),
    "DeepAdam": lambda params: nl.optim.DeepAdam(params, lr=0.01, hidden=3),
    "Muon": lambda params: nl.optim.Muon(params, lr=0.01),
    "M3": lambda params: nl.optim.M3(params, lr=0.01, slow_period=3),
    "SecantMomentum": lambda params: nl.optim.SecantMomentum(params, lr=0.01),
    "kronecker": lambda params: nl.optim.PreconditionedMomentum(params, target="kronecker", target_period=2),
}


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def parameters(shapes: list[tuple[int, ...]]) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(7)
    return [nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64)) for shape in shapes]


# ---------------------------------------------------------------------------------- together and alone


@pytest.mark.parametrize("name", MAKERS)
def test_together_is_as_if_alone_even_when_steps_are_missed(name: str) -> None:
    """Some parameters have no gradient in some steps: lanes split and join, memories count their own steps."""
    together, alone = parameters(SHAPES), parameters(SHAPES)
    one, many = MAKERS[name](together), [MAKERS[name]([parameter]) for parameter in alone]
    for step in range(9):
        for place, (a, b) in enumerate(zip(together, alone, strict=True)):
            a.grad = b.grad = None if (step + place) % 4 == 1 and 2 < step < 5 else torch.randn_like(a)
        one.step()
        for optimizer in many:
            optimizer.step()
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
        own = next(optimizer.state[b] for optimizer in many if b in optimizer.state)
        assert one.state[a].keys() == own.keys()
        for key, tensor in one.state[a].items():
            torch.testing.assert_close(tensor, own[key], rtol=1e-8, atol=1e-8)
    assert len({int(one.state[parameter]["step"]) for parameter in together}) > 1


@pytest.mark.parametrize("name", ["Muon", "DeepMomentum", "SecantMomentum"])
def test_walking_matrices_in_blocks_changes_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for block in (1 << 20, 50):  # two matrices of 24 entries fit in 50
        monkeypatch.setattr(lanes, "MATRIX_BLOCK", block)
        torch.manual_seed(1)
        weights = parameters([(4, 6)] * 5)
        optimizer = MAKERS[name](weights)
        for _ in range(5):
            for weight in weights:
                weight.grad = torch.randn_like(weight)
            optimizer.step()
        results.append(torch.stack([weight.detach() for weight in weights]))
    torch.testing.assert_close(*results, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("transposed", [False, True], ids=["contiguous", "transposed"])
def test_a_large_parameter_walked_in_blocks_is_adamws(transposed: bool) -> None:
    size = (lanes.BLOCK // 256 + 3, 257)  # a little more than a block, and no multiple of it
    start = torch.randn(size).mT if transposed else torch.randn(size)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    assert ours.is_contiguous() is not transposed
    one, two = nl.optim.Adam([ours], lr=0.01), torch.optim.AdamW([theirs], lr=0.01, weight_decay=0.0)
    for _ in range(3):
        ours.grad = theirs.grad = torch.randn_like(start)
        one.step()
        two.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert one.state[ours]["momentum.model.value"].shape == ours.shape


# --------------------------------------------------------------------------------------- state is the truth


@pytest.mark.parametrize("name", ["Adam", "Muon", "DeepMomentum"])
def test_state_put_in_its_place_by_somebody_else_is_noticed(name: str) -> None:
    """A distributed checkpoint, say, replaces tensors of ``state`` without asking."""
    weights = parameters([(4, 6), (4, 6), (5,)])
    optimizer = MAKERS[name](weights)
    gradients = [[torch.randn_like(weight) for weight in weights] for _ in range(4)]

    def step(number: int) -> list[Tensor]:
        before = [weight.detach().clone() for weight in weights]
        for weight, gradient in zip(weights, gradients[number], strict=True):
            weight.grad = gradient
        optimizer.step()
        return [old - weight.detach() for old, weight in zip(before, weights, strict=True)]

    step(0)
    saved = {weight: {key: t.clone() for key, t in optimizer.state[weight].items()} for weight in weights}
    expected = step(1)
    step(2)
    for weight in weights:  # one tensor after the other, as new objects
        for key, tensor in saved[weight].items():
            optimizer.state[weight][key] = tensor.clone()
    torch.testing.assert_close(step(1), expected, rtol=1e-12, atol=1e-12)


def test_state_written_in_place_by_somebody_else_is_noticed() -> None:
    weight = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    optimizer = nl.optim.Momentum([weight], lr=1.0, retention=0.5)
    weight.grad = torch.ones(3, dtype=torch.float64)
    optimizer.step()
    optimizer.state[weight]["momentum.model.value"].fill_(10.0)
    weight.detach().zero_()
    optimizer.step()
    torch.testing.assert_close(weight.detach(), torch.full((3,), -6.0, dtype=torch.float64))


# ------------------------------------------------------------------------------------------------ one stack


def bound_stack(flat: bool, shapes: list[tuple[int, ...]]) -> tuple[Stack, dict[Tensor, dict[str, Any]]]:
    weights = parameters(shapes)
    states = {w: {"step": torch.tensor(1.0), "a.value": draw(*w.shape), "mine": draw(3)} for w in weights}
    stack = Stack(list(weights), {"a.value": torch.float64}, flat=flat)
    stack.bind(states)
    return stack, states


@pytest.mark.parametrize(
    ("flat", "shapes", "shape"),
    [
        (True, [(4,), (), (2, 3)], (11,)),
        (False, [(2, 3), (2, 3)], (2, 2, 3)),
        (True, [(7,)], (7,)),
        (False, [(2, 3)], (1, 2, 3)),
    ],
)
def test_binding_stacks_memories_and_leaves_views_of_the_stack(
    flat: bool, shapes: list[tuple[int, ...]], shape: tuple[int, ...]
) -> None:
    weights = parameters(shapes)
    states: dict[Tensor, dict[str, Any]] = {
        w: {"step": torch.tensor(1.0), "a.value": draw(*w.shape), "mine": draw(3)} for w in weights
    }
    before = {weight: {name: t.clone() for name, t in values.items()} for weight, values in states.items()}
    untouched = [(values["step"], values["mine"]) for values in states.values()]
    stack = Stack(list(weights), {"a.value": torch.float64}, flat=flat)
    stack.bind(states)
    assert all(stack.holds(place, states) for place in range(len(weights)))
    assert list(stack.buffers) == ["a.value"]  # the step count is the adapter's, other entries are other people's
    assert stack.buffers["a.value"].shape == shape
    for weight, values in states.items():
        assert all(torch.equal(values[name], tensor) for name, tensor in before[weight].items())
    assert all(
        values["step"] is old[0] and values["mine"] is old[1]
        for values, old in zip(states.values(), untouched, strict=True)
    )
    stack.buffers["a.value"].fill_(3.0)
    assert all(bool((values["a.value"] == 3).all()) for values in states.values())


@pytest.mark.parametrize("change", ["replaced", "removed", "other storage", "state gone"])
def test_a_stack_knows_whose_state_is_no_longer_its_own(change: str) -> None:
    stack, states = bound_stack(True, [(4,), (2, 3)])
    last = stack.parameters[1]
    if change == "replaced":
        states[last]["a.value"] = states[last]["a.value"].clone()
    elif change == "removed":
        del states[last]["a.value"]
    elif change == "other storage":
        states[last]["a.value"].data = states[last]["a.value"].clone()
    else:
        del states[last]
    assert [stack.holds(place, states) for place in (0, 1)] == [True, False]


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("places", [[0, 1, 2, 3, 4], [1, 2], [4], [0, 2, 3], [0, 2, 4]])
def test_some_members_are_taken_and_put_back(flat: bool, places: list[int]) -> None:
    stack, states = bound_stack(flat, [(2, 3)] * 5)
    expected = [states[stack.parameters[place]]["a.value"].clone() for place in range(5)]
    taken = stack.take(places)
    pieces = taken["a.value"].view(len(places), 2, 3)
    for piece, place in zip(pieces, places, strict=True):
        assert torch.equal(piece, expected[place])
    neighbours = len(places) == places[-1] - places[0] + 1
    whole = stack.buffers["a.value"].untyped_storage().data_ptr()
    assert (taken["a.value"].untyped_storage().data_ptr() == whole) == neighbours, "neighbours are not copied"
    taken["a.value"] += 1
    stack.put(places, taken)
    for place, parameter in enumerate(stack.parameters):
        assert torch.equal(states[parameter]["a.value"], expected[place] + (place in places))


def test_who_leaves_a_stack_does_not_keep_it_alive() -> None:
    stack, states = bound_stack(False, [(2, 3)] * 3)
    stays, leaves, foreign = stack.parameters
    own = states[foreign]["a.value"] = draw(2, 3)
    held = states[leaves]["a.value"].clone()
    stack.release(states, {id(stays)})
    assert states[leaves]["a.value"].untyped_storage().nbytes() == held.nbytes
    assert torch.equal(states[leaves]["a.value"], held)
    assert states[foreign]["a.value"] is own


# ------------------------------------------------------------------------------------------------ many lanes


def lanes_of(optimizer: nl.optim.Optimizer, weights: list[nn.Parameter]) -> list[list[int]]:
    """The lanes of the latest step, as places in ``weights``."""
    places = {id(weight): place for place, weight in enumerate(weights)}
    lanes = optimizer._plan._lanes
    return sorted([places[id(parameter)] for parameter in lane.parameters] for lane in lanes)


def step(optimizer: torch.optim.Optimizer, weights: list[nn.Parameter], absent: set[int] = frozenset()) -> None:
    for place, weight in enumerate(weights):
        weight.grad = None if place in absent else torch.ones_like(weight)
    optimizer.step()


def test_lanes_hold_what_is_alike() -> None:
    weights = parameters([(4, 6), (4, 6), (6, 4), (5,), (3, 1), (2, 2)])
    weights.append(nn.Parameter(torch.zeros(lanes.SMALL, dtype=torch.float64)))
    weights.append(nn.Parameter(torch.zeros(5, dtype=torch.bfloat16)))
    optimizer = nl.optim.Muon(weights, elementwise=[weights[5]])
    step(optimizer, weights)
    assert lanes_of(optimizer, weights) == [[0, 1], [2], [3, 4, 5, 6], [7]], "a kernel of torch's writes 3 to 6"
    composed = nl.optim.DeltaMomentum(weights, elementwise=[weights[5]])
    step(composed, weights)
    assert lanes_of(composed, weights) == [[0, 1], [2], [3, 5], [4], [6], [7]]


def test_unequal_step_counts_share_a_lane_where_the_rule_does_the_same() -> None:
    weights = parameters([(4, 6)] * 4)
    plain, paced = nl.optim.Muon(weights), nl.optim.M3(weights, slow_period=3)
    for absent in ({1}, {1, 2}, set()):
        step(plain, weights, absent)
        step(paced, weights, absent)
    assert lanes_of(plain, weights) == [[0, 1, 2, 3]]
    assert lanes_of(paced, weights) == [[0, 3], [1, 2]], "the slow memory is written at the third step of 0 and 3 alone"


@pytest.mark.parametrize("name", MAKERS)
def test_a_step_over_a_subset_makes_no_new_stacks(name: str) -> None:
    weights = parameters([(4, 6)] * 6)
    optimizer = MAKERS[name](weights)
    step(optimizer, weights)
    places = [tensor.data_ptr() for tensor in stored(optimizer)]
    for absent in ({0}, {1, 3}, {0, 1, 2, 3, 4}, set()):
        step(optimizer, weights, absent)
    assert places
    assert [tensor.data_ptr() for tensor in stored(optimizer)] == places


@pytest.mark.parametrize("name", ["Adam", "DeltaMomentum", "Muon", "DeepMomentum"])
def test_groups_that_agree_share_a_lane_and_others_do_not(name: str) -> None:
    """Stacks hold what is remembered alike: whatever becomes of rates, memories stay where they are."""
    weights = parameters([(4, 6)] * 4)
    optimizer = MAKERS[name]([{"params": [weight]} for weight in weights])  # type: ignore[list-item]
    step(optimizer, weights)
    assert lanes_of(optimizer, weights) == [[0, 1, 2, 3]]
    places = [tensor.data_ptr() for tensor in stored(optimizer)]
    one, two = optimizer.param_groups[1], optimizer.param_groups[2]
    for changes, expected in (
        ({"lr": 0.5}, [[0, 2, 3], [1]]),
        ({"lr": 0.01, "weight_decay": 0.1}, [[0, 2, 3], [1]]),
        ({"weight_decay": 0.0, "maximize": True}, [[0, 2, 3], [1]]),
        ({"maximize": False}, [[0, 1, 2, 3]]),
    ):
        one.update(changes)
        step(optimizer, weights)
        assert lanes_of(optimizer, weights) == expected
        assert [tensor.data_ptr() for tensor in stored(optimizer)] == places
    two["betas" if name == "Adam" else "retention"] = (0.5, 0.7) if name == "Adam" else 0.5
    step(optimizer, weights)
    assert lanes_of(optimizer, weights) == [[0, 1, 3], [2]]
    assert [tensor.data_ptr() for tensor in stored(optimizer)] == places


def test_a_group_that_is_taken_away_takes_its_memories_along() -> None:
    weights = parameters([(4, 6)] * 3)
    optimizer = nl.optim.Muon([{"params": [weight]} for weight in weights])
    step(optimizer, weights)
    gone = optimizer.param_groups.pop(1)["params"][0]
    kept = optimizer.state[gone]["momentum.model.value"].clone()
    step(optimizer, weights)
    assert lanes_of(optimizer, weights) == [[0, 2]]
    memory = optimizer.state[gone]["momentum.model.value"]
    assert torch.equal(memory, kept)
    shared = optimizer._plan._stacks
    assert all(id(gone) not in stack.places for stack in shared.values())


def stored(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """What is remembered, in order."""
    return [tensor for state in optimizer.state.values() for name, tensor in sorted(state.items()) if name != "step"]


def test_a_memory_has_its_own_precision_whatever_is_put_there() -> None:
    """Somebody halves one state, and the model becomes a double: neither changes what is remembered of the others."""
    weights = [nn.Parameter(torch.ones(2, 3)) for _ in range(3)]
    optimizer = nl.optim.Muon(weights)
    step(optimizer, weights)
    optimizer.state[weights[1]]["momentum.model.value"] = optimizer.state[weights[1]]["momentum.model.value"].double()
    step(optimizer, weights)
    assert {tensor.dtype for tensor in stored(optimizer)} == {torch.float32}
    for weight in weights:
        weight.data = weight.data.double()
        weight.grad = None
    step(optimizer, weights)
    assert {tensor.dtype for tensor in stored(optimizer)} == {torch.float64}
    assert [int(optimizer.state[weight]["step"]) for weight in weights] == [3, 3, 3]


def test_a_state_that_was_put_away_stays_there_until_it_is_needed() -> None:
    """What belongs to a frozen layer may lie elsewhere; others are not kept from training by it."""
    weights = [nn.Parameter(torch.ones(2, 3)) for _ in range(3)]
    optimizer = nl.optim.Muon(weights)
    step(optimizer, weights)
    away = optimizer.state[weights[1]]["momentum.model.value"] = torch.empty(2, 3, device="meta")
    step(optimizer, weights, {1})
    optimizer.state[weights[0]]["momentum.model.value"] = torch.zeros(2, 3)  # the stack has to be made anew
    step(optimizer, weights, {1})
    assert optimizer.state[weights[1]]["momentum.model.value"] is away


def test_what_a_rule_needs_and_the_state_lacks_is_an_error() -> None:
    weight = nn.Parameter(torch.ones(2, 3))
    optimizer = nl.optim.Adam([weight])
    step(optimizer, [weight])
    del optimizer.state[weight]["momentum.model.value"]
    with pytest.raises(RuntimeError, match=r"momentum\.model\.value.*missing.*clear\(\)"):
        step(optimizer, [weight])
    optimizer.state[weight].clear()
    step(optimizer, [weight])
    assert int(optimizer.state[weight]["step"]) == 1


# ------------------------------------------------------------------------------------------- plain helpers


@pytest.mark.parametrize(
    ("shape", "matrix"), [((4, 6), (4, 6)), ((8, 3, 5, 2), (8, 30)), ((7,), (7, 1)), ((0, 3), (0, 0))]
)
def test_matrix_shape(shape: tuple[int, ...], matrix: tuple[int, int]) -> None:
    assert matrix_shape(torch.zeros(shape)) == matrix


@pytest.mark.parametrize(
    ("given_dtype", "expected"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_memories_have_at_least_single_precision(given_dtype: torch.dtype, expected: torch.dtype) -> None:
    assert memory_dtype(torch.zeros(2, dtype=given_dtype)) == expected
