"""Walks through nested dictionaries of tensors: flat and back, in step with others, and what they hold together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nestlearn.memory.state import (
    count_entries,
    cut_state,
    flatten,
    leaves,
    mapped,
    repeat_state,
    select_state,
    state_bytes,
    unflatten,
)

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


def held() -> dict[str, Any]:
    return {"model": {"weight": torch.arange(12.0).view(3, 4)}, "rule": {}, "time": torch.tensor(7)}


def test_sequences_are_selected_repeated_and_cut() -> None:
    assert select_state(held(), [2, 0, 2])["model"]["weight"][:, 0].tolist() == [8, 0, 8]
    assert select_state(held(), torch.tensor([1], dtype=torch.uint8))["model"]["weight"].tolist() == [[4, 5, 6, 7]]
    assert select_state(held(), [])["model"]["weight"].shape == (0, 4)
    assert repeat_state(held(), 2)["model"]["weight"][:, 0].tolist() == [0, 0, 4, 4, 8, 8]
    assert cut_state(held(), 1, 3)["model"]["weight"][:, 0].tolist() == [4, 8]
    for state in (select_state(held(), [0]), repeat_state(held(), 2), cut_state(held(), 0, 0)):
        assert state["time"] == 7 and state["rule"] == {}
    whole = held()
    assert cut_state(whole, 0, 2)["model"]["weight"].data_ptr() == whole["model"]["weight"].data_ptr()
    assert select_state({}, [5]) == repeat_state({}, 5) == cut_state({}, 0, 5) == {}


def test_slopes_flow_to_the_sequences_that_were_selected() -> None:
    weight = torch.ones(3, 2, requires_grad=True)
    select_state({"weight": weight}, [2, 2, 0])["weight"].sum().backward()
    assert weight.grad is not None and weight.grad.tolist() == [[1, 1], [0, 0], [2, 2]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: select_state(held(), [0, 3]), "index: expected numbers from 0 to 2, got 0 to 3"),
        (lambda: select_state(held(), [-1]), "got -1 to -1"),
        (lambda: select_state(held(), torch.tensor([True, False, True])), r"torch.bool; of a mask, .*nonzero"),
        (lambda: select_state(held(), [0.0]), r"expected whole numbers \[n\], got \[1\] of torch.float32"),
        (lambda: select_state(held(), torch.tensor(1)), r"got \[\] of torch.int64"),
        (lambda: repeat_state(held(), 0), "count: expected at least 1, got 0"),
        (lambda: cut_state(held(), 2, 1), "0 <= start <= stop <= 3 sequences, got start = 2, stop = 1"),
        (lambda: cut_state(held(), 0, 4), "stop = 4"),
        (lambda: cut_state(held(), -1, 2), "start = -1"),
        (
            lambda: repeat_state({**held(), "key": {"last": torch.zeros(2, 5)}}, 2),
            r"got state.model.weight \[3, 4\] and state.key.last \[2, 5\]",
        ),
    ],
)
def test_other_sequences_are_errors(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
