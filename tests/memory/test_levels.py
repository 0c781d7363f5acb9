"""Levels sort memories by frequency and need (M4, [NL] Definitions 2-4)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestlearn.memory import frequency, levels


@pytest.mark.parametrize(
    ("name", "periods", "needs", "expected"),
    [
        ("sgd", {"weights": 1}, {}, [["weights"]]),
        ("momentum", {"weights": 1, "m": 1}, {"weights": ["m"]}, [["weights"], ["m"]]),
        ("adam", {"weights": 1, "m": 1, "v": 1}, {"weights": ["m", "v"]}, [["weights"], ["m", "v"]]),
        (
            "two deep memories",
            {"weights": 1, "m1": 1, "m2": 1},
            {"weights": ["m1"], "m1": ["m2"]},
            [["weights"], ["m1"], ["m2"]],
        ),
        (
            "a slow momentum",
            {"weights": 1, "fast": 1, "slow": 10},
            {"weights": ["fast", "slow"]},
            [["slow"], ["weights"], ["fast"]],
        ),
        (
            "a need with a short cut counts its longest way",
            {"weights": 1, "m": 1, "v": 1},
            {"weights": ["m", "v"], "m": ["v"]},
            [["weights"], ["m"], ["v"]],
        ),
        ("strangers", {"a": 4, "b": 2, "c": 4, "d": 1}, {}, [["a", "c"], ["b"], ["d"]]),
        ("frequencies come before needs", {"a": 2, "b": 1}, {"b": ["a"]}, [["a"], ["b"]]),
        ("nothing", {}, {}, []),
    ],
)
def test_known_systems(name: str, periods: dict[str, int], needs: dict[str, list[str]], expected: list) -> None:
    assert levels(periods, needs) == expected


@st.composite
def systems(draw: st.DrawFn) -> tuple[dict[str, int], dict[str, set[str]]]:
    names = [f"memory {number}" for number in range(draw(st.integers(1, 7)))]
    periods = {name: draw(st.sampled_from([1, 2, 8])) for name in names}
    # Only earlier memories need later ones, so there is no circle.
    needs = {name: draw(st.sets(st.sampled_from(names[place + 1 :] or names))) for place, name in enumerate(names[:-1])}
    return periods, needs


@given(systems())
def test_levels_keep_the_order_of_the_definition(system: tuple[dict[str, int], dict[str, set[str]]]) -> None:
    periods, needs = system
    found = levels(periods, needs)
    place = {name: number for number, level in enumerate(found) for name in level}
    assert sorted(place) == sorted(periods)
    assert sum(len(level) for level in found) == len(periods)
    for level in found:
        assert len({periods[name] for name in level}) == 1
    for one in periods:
        for other in periods:
            if frequency(periods[one]) > frequency(periods[other]):
                assert place[one] > place[other]
    for user, needed in needs.items():
        for name in needed:
            if periods[name] == periods[user]:
                assert place[name] > place[user]


def test_frequency_is_one_over_the_period() -> None:
    assert frequency(1) == 1.0
    assert frequency(4) == 0.25
    with pytest.raises(ValueError, match="at least 1, got 0"):
        frequency(0)


@pytest.mark.parametrize("needs", [{"a": ["b"], "b": ["a"]}, {"a": ["a"]}, {"a": ["b"], "b": ["c"], "c": ["a"]}])
def test_a_circle_of_needs_is_an_error_that_shows_it(needs: dict[str, list[str]]) -> None:
    with pytest.raises(ValueError, match=r"need each other: .*a.* -> ") as caught:
        levels(dict.fromkeys("abc", 1), needs)
    assert all(name in str(caught.value) for name in needs)


def test_a_circle_across_frequencies_is_none() -> None:
    """A slow memory may need a fast one that reads it: they are never written in one order only."""
    assert levels({"slow": 10, "fast": 1}, {"slow": ["fast"], "fast": ["slow"]}) == [["slow"], ["fast"]]


@pytest.mark.parametrize("needs", [{"a": ["z"]}, {"z": ["a"]}])
def test_an_unknown_name_is_an_error_that_lists_the_known(needs: dict[str, list[str]]) -> None:
    with pytest.raises(ValueError, match=r"unknown memories \['z'\]; known are \['a', 'b'\]"):
        levels({"a": 1, "b": 1}, needs)
