"""Walks through nested dictionaries of tensors: flat and back, in step with others, and what they hold together."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nestlearn.memory.state import count_entries, flatten, leaves, mapped, state_bytes, unflatten

names = st.text("abcxyz_", min_size=1, max_size=4)
nested = st.recursive(
    st.builds(lambda: torch.zeros(())),
    lambda inner: st.dictionaries(names, inner, min_size=1, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(names, nested, max_size=4))
def test_flatten_and_unflatten_are_inverse(state: dict[str, Any]) -> None:
    flat = flatten(state)
    assert all(isinstance(tensor, Tensor) for tensor in flat.values())
    assert same(unflatten(flat), state)


def same(one: Any, two: Any) -> bool:
    if isinstance(one, Tensor):
        return one is two
    return one.keys() == two.keys() and all(same(one[name], two[name]) for name in one)


def test_flat_names_are_dotted_paths() -> None:
    leaf, other = torch.zeros(1), torch.ones(1)
    state = {"momentum": {"model": {"value": leaf}, "rule": {}}, "surprise": other}
    flat = flatten(state)
    assert flat == {"momentum.model.value": leaf, "surprise": other}
    assert unflatten(flat) == {"momentum": {"model": {"value": leaf}}, "surprise": other}  # what is empty is gone


def test_something_may_stand_for_what_is_empty() -> None:
    leaf, nothing = torch.zeros(1), torch.empty(0)
    state = {"rule": {}, "model": {"value": leaf, "more": {}}}
    flat = flatten(state, empty=nothing)
    assert flat == {"rule.": nothing, "model.value": leaf, "model.more.": nothing}
    assert unflatten(flat) == state
    assert flatten({}, empty=nothing) == {}


def test_states_are_walked_in_step() -> None:
    one = {"a": torch.tensor(1.0), "b": {"c": torch.tensor(2.0), "d": {}}}
    two = {"b": {"c": torch.tensor(20.0), "d": {}}, "a": torch.tensor(10.0)}
    assert mapped(torch.add, one, two) == {"a": torch.tensor(11.0), "b": {"c": torch.tensor(22.0), "d": {}}}
    assert mapped(torch.neg, one)["b"]["c"] == -2


def test_all_tensors_are_found_and_counted() -> None:
    held = {"a": torch.zeros(3, dtype=torch.float64), "b": [torch.zeros(2), ({"c": torch.zeros(())}, None, 5)]}
    assert [tensor.numel() for tensor in leaves(held)] == [3, 2, 1]
    assert (count_entries(held), state_bytes(held)) == (6, 24 + 8 + 4)
