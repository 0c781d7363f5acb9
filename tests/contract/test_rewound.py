"""State by torch's rules: it may be loaded as often as one likes, and what is written into it is what counts.

Whatever is done to `optimizer.state` between two steps, the optimizer goes on as a fresh one would into which that very
state was loaded: nothing that it keeps beside the state has a say.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

from .members import MEMBERS, Member, over
from .problems import advance, assert_equal, network, regression, snapshot
from .selections import CLASSES, MANY_KINDS, fast_for

EACH = fast_for(MANY_KINDS, MEMBERS)

Pair = tuple[nn.Module, torch.optim.Optimizer]
SavedState = dict[str, object]


def twice(pair: Pair, saved: SavedState) -> Pair:
    for _ in range(2):
        pair[1].load_state_dict(saved)
    return pair


def three_times(pair: Pair, saved: SavedState) -> Pair:
    pair[1].load_state_dict(saved)
    return twice(pair, saved)


def after_a_copy(pair: Pair, saved: SavedState) -> Pair:
    pair = copy.deepcopy(pair)
    pair[1].load_state_dict(saved)
    return copy.deepcopy(pair)


def after_a_pickle(pair: Pair, saved: SavedState) -> Pair:
    pair = pickle.loads(pickle.dumps(pair))
    pair[1].load_state_dict(saved)
    return pickle.loads(pickle.dumps(pair))


def after_a_refused_one(pair: Pair, saved: SavedState) -> Pair:
    for part in ("state", "param_groups"):
        with pytest.raises(ValueError, match=part):
            pair[1].load_state_dict({key: value for key, value in saved.items() if key != part})
    pair[1].load_state_dict(saved)
    return pair


def by_keyword(pair: Pair, saved: SavedState) -> Pair:
    pair[1].load_state_dict(state_dict=saved)
    pair[1].load_state_dict(state_dict=saved)
    return pair


def as_a_distributed_one(pair: Pair, saved: SavedState) -> Pair:
    """Saved and loaded by parameter names, as `torch.distributed.checkpoint` does it."""
    pair[1].load_state_dict(saved)
    named = copy.deepcopy(get_optimizer_state_dict(*pair))
    for _ in range(2):
        set_optimizer_state_dict(*pair, named)
    return pair


LOADS = [twice, three_times, after_a_copy, after_a_pickle, after_a_refused_one, by_keyword, as_a_distributed_one]


def started(member: Member, steps: int = 3, **settings: object) -> Pair:
    module = network()
    optimizer = member.build(module, **settings)
    advance(member, optimizer, regression(module, range(steps)))
    return module, optimizer


def continued(member: Member, pair: Pair, steps: range) -> dict[str, Tensor]:
    advance(member, pair[1], regression(pair[0], steps))
    return snapshot(pair[1])


@pytest.mark.parametrize(**EACH)
def test_a_state_may_be_loaded_again(member: Member) -> None:
    """In every way, one after the other, each time into an optimizer that has gone on since."""
    pair = started(member)
    weights, saved = copy.deepcopy(pair[0].state_dict()), copy.deepcopy(pair[1].state_dict())
    expected = continued(member, pair, range(3, 5))
    for load in LOADS:
        print("loaded:", load.__name__)  # shown by pytest when the test fails: its last line names the way
        pair = load(pair, saved)
        pair[0].load_state_dict(weights)
        assert_equal(continued(member, pair, range(3, 5)), expected)


State = dict[str, Tensor]


def clones(state: State) -> None:
    for key, value in state.items():
        state[key] = value.clone()


def halves(state: State) -> None:
    for key, value in memories(state).items():
        state[key] = value * 0.5


def one_half(state: State) -> None:
    """One memory of several."""
    for key, value in list(memories(state).items())[:1]:
        state[key] = value * 0.5


def swapped_storage(state: State) -> None:
    for value in state.values():
        value.data = value.data.clone()


def other_values_in_swapped_storage(state: State) -> None:
    for value in memories(state).values():
        value.data = value.data * 0.5


def set_storage(state: State) -> None:
    for value in state.values():
        value.set_(value.clone())


def other_values_in_set_storage(state: State) -> None:
    for value in memories(state).values():
        value.set_(value * 0.5)


def halved_in_place(state: State) -> None:
    for value in memories(state).values():
        value.mul_(0.5)


def reset_in_place(state: State) -> None:
    for value in state.values():
        value.zero_()


def an_earlier_step(state: State) -> None:
    state["step"].fill_(1)


def a_later_step(state: State) -> None:
    state["step"] = state["step"] + 4


TAMPERINGS = [
    clones,
    halves,
    one_half,
    swapped_storage,
    other_values_in_swapped_storage,
    set_storage,
    other_values_in_set_storage,
    halved_in_place,
    an_earlier_step,
    a_later_step,
    reset_in_place,
]
"""In an order in which each finds something to change: what makes the clocks of parameters differ comes late."""


def memories(state: State) -> State:
    """What is no clock."""
    return {key: value for key, value in state.items() if value.is_floating_point() and value.ndim > 0}


def loaded_twin(member: Member, pair: Pair, **settings: object) -> Pair:
    """A fresh network and optimizer with the weights and the state of the given ones."""
    twin = network(seed=99)
    twin.load_state_dict(pair[0].state_dict())
    other = member.build(twin, **settings)
    other.load_state_dict(copy.deepcopy(pair[1].state_dict()))
    return twin, other


def assert_as_if_loaded(
    member: Member, pair: Pair, changes: Iterable[Callable[[], None]], start: int, steps: int, **settings: object
) -> None:
    """After each change in turn, training goes on for some steps as that of a fresh optimizer with that state."""
    for place, change in enumerate(changes):
        print("changed:", change)  # shown by pytest when the test fails: its last line names the change
        with torch.no_grad():
            change()
        expected = loaded_twin(member, pair, **settings)
        span = range(start + place * steps, start + (place + 1) * steps)
        assert_equal(continued(member, pair, span), continued(member, expected, span))
    assert all(value.isfinite().all() for value in snapshot(pair[1]).values()), "nothing is compared"


def tamperings(pair: Pair, name: str) -> list[Callable[[], None]]:
    """What is done to the state of the parameter of this name."""
    parameter = pair[0].get_parameter(name)
    return [partial(lambda tamper: tamper(pair[1].state[parameter]), tamper) for tamper in TAMPERINGS]


@pytest.mark.parametrize(**EACH)
def test_what_is_written_into_the_state_of_a_matrix_counts(member: Member) -> None:
    pair = started(member)
    assert_as_if_loaded(member, pair, tamperings(pair, "0.weight"), start=3, steps=2)


@pytest.mark.parametrize(**fast_for(MANY_KINDS, CLASSES))
def test_what_is_written_into_the_state_of_a_vector_counts(member: Member) -> None:
    """One of several that are written together."""
    pair = started(member)
    assert_as_if_loaded(member, pair, tamperings(pair, "0.bias"), start=3, steps=2)


@pytest.mark.slow
@pytest.mark.parametrize(**over(member for member in CLASSES if member.collects))
def test_what_is_written_into_a_state_counts_in_the_middle_of_a_period(member: Member) -> None:
    """One gradient of three waits at each of the changes."""
    pair = started(member, 4, period=3)
    assert_as_if_loaded(member, pair, tamperings(pair, "0.weight"), start=4, steps=3, period=3)


def cleared(pair: Pair) -> None:
    pair[1].state.clear()


def one_deleted(pair: Pair) -> None:
    del pair[1].state[pair[0].get_parameter("0.weight")]


def one_emptied(pair: Pair) -> None:
    pair[1].state[pair[0].get_parameter("2.bias")].clear()


def one_replaced(pair: Pair) -> None:
    """Another dictionary, with the tensors in another order."""
    parameter = pair[0].get_parameter("0.weight")
    state = pair[1].state[parameter]
    pair[1].state[parameter] = {key: state[key].clone() for key in reversed(state)}


def reset_like_torch(pair: Pair) -> None:
    """Everything forgotten, as `optimizer.state = defaultdict(dict)` does it."""
    pair[1].state = type(pair[1].state)(dict)


@pytest.mark.parametrize(**EACH)
def test_a_state_may_be_taken_away(member: Member) -> None:
    pair = started(member)
    changes = [cleared, one_deleted, one_emptied, one_replaced, reset_like_torch]
    assert_as_if_loaded(member, pair, [partial(change, pair) for change in changes], start=3, steps=2)


@pytest.mark.parametrize(**EACH)
def test_a_cleared_optimizer_is_a_fresh_one(member: Member) -> None:
    pair = started(member)
    pair[1].state.clear()
    fresh = network(seed=99)
    fresh.load_state_dict(pair[0].state_dict())
    other = fresh, member.build(fresh)
    assert_equal(continued(member, pair, range(3, 5)), continued(member, other, range(3, 5)))
