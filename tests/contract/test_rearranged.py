"""What people do to an optimizer between steps: drop parameters, move groups, change the pace, convert the model."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import nestlearn as nl

from .members import COLLECTING, Member, over
from .problems import advance, assert_equal, network, regression, snapshot
from .selections import CLASSES

OPEN_CLASSES = over(member for member in CLASSES if not member.closure and not member.model)


def layers(count: int = 8) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(8, 8, bias=False) for _ in range(count)))


def train(module: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 2) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        module(torch.ones(4, 8)).square().mean().backward()
        optimizer.step()


def held(optimizer: torch.optim.Optimizer) -> tuple[int, int]:
    """Bytes of all storages behind the state, and of its tensors."""
    tensors = [leaf for state in optimizer.state.values() for leaf in state.values() if isinstance(leaf, Tensor)]
    storages = {leaf.untyped_storage().data_ptr(): leaf.untyped_storage().nbytes() for leaf in tensors}
    return sum(storages.values()), sum(leaf.nbytes for leaf in tensors)


@pytest.fixture(scope="module")
def few_to_collect() -> None:
    """Everything that is there already is left out of garbage collections, which take a fraction of the time then."""
    gc.freeze()


@pytest.mark.usefixtures("few_to_collect")
@pytest.mark.parametrize("how", ["state deleted", "group shortened", "group popped"])
@pytest.mark.parametrize(**OPEN_CLASSES)
def test_what_is_dropped_is_freed(member: Member, how: str) -> None:
    module = layers()
    weights = list(module.parameters())
    split = [{"params": weights[:1]}, {"params": weights[1:]}] if how == "group popped" else None
    optimizer = member.build(module, split)
    train(module, optimizer)
    for weight in weights[1:]:
        weight.requires_grad_(False)
        weight.grad = None
        del optimizer.state[weight]
    if how == "group shortened":
        optimizer.param_groups[0]["params"] = weights[:1]
    elif how == "group popped":
        optimizer.param_groups.pop()
    train(module, optimizer)
    storages, tensors = held(optimizer)
    assert storages <= 1.1 * tensors
    if how != "state deleted":
        gone = weakref.ref(weights[3])
        del weights, weight, split, module[3:]
        gc.collect()
        assert gone() is None


@pytest.mark.parametrize(**OPEN_CLASSES)
def test_a_plain_pickle_is_as_large_as_the_state(member: Member) -> None:
    module = layers(16)
    optimizer = member.build(module)
    train(module, optimizer)
    many = len(pickle.dumps(optimizer))
    few = layers(4)
    small = member.build(few)
    train(few, small)
    assert many <= 4.4 * len(pickle.dumps(small))
    for twin in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        storages, tensors = held(twin)
        assert storages <= 1.1 * tensors


@pytest.mark.parametrize(**COLLECTING)
def test_a_shorter_period_takes_what_waits_along(member: Member) -> None:
    """Two gradients wait when the period ends for good: they are written with the next, and nothing is left of them."""
    module = network(torch.float64)
    optimizer = member.build(module, period=3)
    advance(member, optimizer, regression(module, range(5)))
    before = [parameter.detach().clone() for parameter in module.parameters()]
    optimizer.param_groups[0]["period"] = 1
    advance(member, optimizer, regression(module, range(5, 6)))
    assert all(not torch.equal(p, old) for p, old in zip(module.parameters(), before, strict=True))
    assert not [name for state in optimizer.state.values() for name in state if name.startswith("pending")]
    fresh = network(torch.float64, seed=9)
    fresh.load_state_dict(module.state_dict())
    other = member.build(fresh)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    advance(member, optimizer, regression(module, range(6, 8)))
    advance(member, other, regression(fresh, range(6, 8)))
    assert_equal(snapshot(other), snapshot(optimizer))


def test_gradients_that_waited_are_added_to_the_next() -> None:
    weight = torch.nn.Parameter(torch.zeros(3))
    optimizer = nl.optim.GradientDescent([weight], lr=0.5, period=3)
    for gradient in torch.eye(3):
        if gradient[2]:
            optimizer.param_groups[0]["period"] = 1
        weight.grad = gradient
        optimizer.step()
    assert weight.tolist() == [-0.5, -0.5, -0.5]


@pytest.mark.parametrize(
    "change", [{"memory": False}, {"levels": 1}, {"skip_retention": 0.0}], ids=lambda change: next(iter(change))
)
def test_what_other_settings_left_behind_is_loaded(change: dict[str, Any]) -> None:
    module = layers(2)
    optimizer = nl.optim.DeepMomentum(module.parameters(), hidden=4, levels=2)
    train(module, optimizer)
    optimizer.param_groups[0].update(change)
    train(module, optimizer)
    optimizer.load_state_dict(optimizer.state_dict())
    train(module, optimizer)


def test_the_choice_follows_parameters_from_group_to_group() -> None:
    table, weight, other = (nn.Parameter(torch.ones(4, 3)) for _ in range(3))
    optimizer = nl.optim.Muon([{"params": [table]}, {"params": [weight]}, {"params": [other]}], elementwise=[table])

    def step() -> None:
        for parameter in (table, weight, other):
            parameter.grad = torch.ones(4, 3)
        optimizer.step()

    def chosen() -> list[bool]:
        return [optimizer.is_elementwise(parameter) for parameter in (table, weight, other)]

    step()
    optimizer.param_groups.reverse()
    step()
    assert chosen() == [True, False, False]
    optimizer.param_groups[0]["params"] += optimizer.param_groups.pop()["params"]  # the table joins the first group
    step()
    assert chosen() == [True, False, False]
    optimizer.param_groups[0]["params"] = [p for p in optimizer.param_groups[0]["params"] if p is not table]
    step()
    assert chosen() == [False, False, False]


@pytest.mark.parametrize("way", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))], ids=["copy", "pickle"])
def test_a_copy_goes_on_choosing_by_name(way: Any) -> None:
    first, second = nn.Parameter(torch.ones(4, 3)), nn.Parameter(torch.ones(4, 3))
    twin = way(nl.optim.Muon([("0.table", first)], elementwise=["0.*"]))
    twin.add_param_group({"params": [("0.more", second)]})
    assert twin.is_elementwise(second)


@pytest.mark.parametrize(**OPEN_CLASSES)
def test_a_model_may_swap_its_parameters(member: Member) -> None:
    """torch swaps tensors that nobody has weak references to."""
    module = layers(2)
    optimizer = member.build(module)
    train(module, optimizer)
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        module.double()
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
    assert next(module.parameters()).dtype == torch.float64


@pytest.mark.parametrize("change", ["replaced", "loaded", "plain group"])
def test_layers_are_recorded_whatever_changes_after_a_backward_pass_without_a_step(change: str) -> None:
    module = nn.Sequential(nn.Linear(6, 5, bias=False))
    optimizer = nl.optim.LayerMomentum(module.parameters(), model=module, refresh=3)
    inputs = torch.ones(4, 6)

    def backward() -> None:
        optimizer.zero_grad()
        module(inputs).square().mean().backward()

    for _ in range(2):
        backward()
        optimizer.step()
    backward()
    if change == "replaced":
        module[0].weight = optimizer.param_groups[0]["params"][0] = nn.Parameter(torch.ones(5, 6))
    elif change == "loaded":
        saved = optimizer.state_dict()
        saved["param_groups"][0]["refresh"] = 1
        optimizer.load_state_dict(saved)
    else:
        optimizer.param_groups[0] = {**optimizer.param_groups[0], "refresh": 1}
    backward()
    optimizer.step()


def test_betas_in_a_list_may_be_changed_in_place() -> None:
    weights = [nn.Parameter(torch.ones(3)) for _ in range(2)]
    pair = [nl.optim.Adam([weight], lr=0.1, betas=[0.9, 0.999]) for weight in weights]  # type: ignore[arg-type]
    for number in range(3):
        for optimizer, weight in zip(pair, weights, strict=True):
            weight.grad = torch.full((3,), 1.0 + number)
            optimizer.step()
        pair[0].param_groups[0]["betas"][0] = 0.2
        pair[1].param_groups[0]["betas"] = [0.2, 0.999]
    assert torch.equal(*(weight.detach() for weight in weights))


def test_a_group_that_is_appended_by_hand_has_the_settings_of_the_optimizer() -> None:
    one, two = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    optimizer = nl.optim.Adam([one], lr=0.3, betas=(0.5, 0.7), weight_decay=0.1)
    optimizer.param_groups.append({"params": [two]})
    one.grad = two.grad = torch.ones(3)
    optimizer.step()
    assert torch.equal(one, two)
    assert optimizer.param_groups[1]["betas"] == (0.5, 0.7)


def test_every_way_to_write_a_momentum_reaches_the_retention() -> None:
    group = nl.optim.Muon([nn.Parameter(torch.ones(2, 2))]).param_groups[0]
    group |= {"momentum": 0.5}
    assert group["retention"] == group["momentum"] == 0.5
    assert dict.keys(group) >= {"retention"}
    assert "momentum" not in list(group)
    assert group.pop("momentum") == 0.5
    assert "retention" not in group


@pytest.mark.parametrize("change", ["popped", "appended", "refused"])
@pytest.mark.parametrize("chosen", [False, True])
def test_a_copy_knows_of_changed_groups(change: str, chosen: bool) -> None:
    one, two, three = (nn.Parameter(torch.ones(4, 3)) for _ in range(3))
    optimizer = nl.optim.Muon([{"params": [one]}, {"params": [two]}], elementwise=[one] if chosen else None)
    if change == "popped":
        optimizer.param_groups.pop(0)
    elif change == "appended":
        optimizer.param_groups.append({**optimizer.param_groups[0], "params": [three]})
    else:
        with pytest.raises(ValueError, match="period"):
            optimizer.add_param_group({"params": [three], "period": 0})
    twin = pickle.loads(pickle.dumps(copy.deepcopy(optimizer)))
    for group in twin.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.ones(4, 3)
    twin.step()
    assert [len(group["params"]) for group in twin.param_groups] == [len(g["params"]) for g in optimizer.param_groups]


@pytest.mark.parametrize(**OPEN_CLASSES)
def test_hooks_after_a_load_see_what_was_loaded(member: Member) -> None:
    module = layers(2).bfloat16()
    optimizer = member.build(module)
    train(module.float(), optimizer, 0)
    module.bfloat16()
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    saved = copy.deepcopy(optimizer.state_dict())

    def clear(loaded: torch.optim.Optimizer) -> None:
        for state in loaded.state.values():
            for leaf in state.values():
                assert leaf.dtype == torch.float32
                leaf.zero_()

    optimizer.register_load_state_dict_post_hook(clear)
    optimizer.load_state_dict(saved)
    assert all(not leaf.any() for state in optimizer.state.values() for leaf in state.values())


@pytest.mark.parametrize(**OPEN_CLASSES)
def test_one_tensor_of_a_state_takes_no_other_along(member: Member) -> None:
    """Into a file, a copy, a plain pickle of the state dictionary."""
    sizes = []
    for count in (2, 16):
        module = layers(count)
        optimizer = member.build(module)
        train(module, optimizer)
        state = optimizer.state[module[0].weight]
        assert all(leaf.untyped_storage().nbytes() == leaf.nbytes for leaf in state.values())
        sizes.append(len(pickle.dumps(optimizer.state_dict())))
    assert sizes[1] <= 8.5 * sizes[0]


def test_small_parameters_that_change_their_shapes_are_noticed() -> None:
    one, two = nn.Parameter(torch.zeros(4)), nn.Parameter(torch.zeros(6))
    optimizer = nl.optim.Adam([("one", one), ("two", two)], lr=0.1)
    one.grad, two.grad = torch.ones(4), torch.ones(6)
    optimizer.step()
    one.data, two.data = torch.zeros(6), torch.zeros(4)
    one.grad, two.grad = torch.ones(6), torch.ones(4)
    with pytest.raises(RuntimeError, match=r"parameter one with shape \(6,\).*has shape \(4,\)"):
        optimizer.step()


def test_a_rate_that_begins_at_zero_is_followed_from_the_first_other_one() -> None:
    matrix, vector = nn.Parameter(torch.ones(4, 3)), nn.Parameter(torch.ones(3))
    optimizer = nl.optim.Muon([matrix, vector], lr=0.0, elementwise_lr=0.003)
    moved = []
    for lr in (0.0, 0.01, 0.005, 0.0):
        optimizer.param_groups[0]["lr"] = lr
        before = vector.detach().clone()
        matrix.grad, vector.grad = torch.ones(4, 3), torch.ones(3)
        optimizer.step()
        moved.append(float((before - vector.detach()).abs().max()))
    torch.testing.assert_close(torch.tensor(moved), torch.tensor([0.0, 0.003, 0.0015, 0.0]), rtol=1e-4, atol=1e-7)


def test_settings_in_tensors_may_be_changed_in_place() -> None:
    weights = [nn.Parameter(torch.ones(3)) for _ in range(2)]
    beta = torch.tensor(0.9, dtype=torch.float64)
    pair = [nl.optim.Adam([weights[0]], betas=(beta, 0.999)), nl.optim.Adam([weights[1]], betas=(0.9, 0.999))]
    for number in range(3):
        for optimizer, weight in zip(pair, weights, strict=True):
            weight.grad = torch.full((3,), 1.0 + number)
            optimizer.step()
        beta.fill_(0.2)
        pair[1].param_groups[0]["betas"] = (0.2, 0.999)
    assert torch.equal(*(weight.detach() for weight in weights))


def test_a_longer_period_may_be_saved_before_it_begins() -> None:
    module = layers(2)
    optimizer = nl.optim.Adam(module.parameters())
    train(module, optimizer)
    optimizer.param_groups[0]["period"] = 2
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(module, optimizer)


def test_a_layer_may_join_by_hand() -> None:
    module = nn.Sequential(nn.Linear(6, 5, bias=False), nn.Linear(5, 4, bias=False))
    optimizer = nl.optim.LayerMomentum(module[0].parameters(), model=module)
    optimizer.param_groups[0]["params"].append(module[1].weight)
    module(torch.ones(3, 6)).square().mean().backward()
    optimizer.step()
    assert "inputs.model.value" in optimizer.state[module[1].weight]
