"""Axes, places and labels of the small plots."""

import json
import math
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestlearn.report.plot import Panel, Scale, apart, number, path, text
from nestlearn.report.thinning import Line

limits = st.tuples(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6)).map(lambda pair: (pair[0], pair[0] + pair[1]))


def test_a_scale_maps_its_ends_to_its_ends() -> None:
    even, log = Scale(2, 4, 100, 0), Scale(0.01, 1, 0, 200, log=True)
    assert [even(2), even(3), even(4)] == [100, 50, 0]
    assert [log(0.01), log(0.1), log(1)] == pytest.approx([0, 100, 200])


def test_far_outside_stays_a_finite_number() -> None:
    assert abs(Scale(0, 1, 0, 100)(1e300)) < 1e4 and abs(Scale(0.1, 1, 0, 100, log=True)(0.0)) < 1e4


@given(limits, st.integers(2, 8))
def test_even_ticks_are_few_round_and_inside(ends: tuple[float, float], most: int) -> None:
    low, high = ends
    ticks = Scale(low, high, 0, 1).ticks(most)
    slack = 1e-6 * (high - low)
    assert len(ticks) <= most + 1 and all(low - slack <= tick <= high + slack for tick in ticks)
    steps = [b - a for a, b in pairwise(ticks)]
    assert steps == pytest.approx([steps[0]] * len(steps), rel=1e-5) if steps else True


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.004, 1.5, [0.01, 0.1, 1.0]),
        (0.15, 0.9, [0.2, 0.5]),
        (0.41, 0.47, [0.42, 0.44, 0.46]),  # no power of ten near: even ticks
        (1e-9, 1e9, [1e-9, 1e-4, 1e1, 1e6]),
    ],
)
def test_ticks_of_a_log_scale(low: float, high: float, expected: list[float]) -> None:
    assert Scale(low, high, 0, 1, log=True).ticks(4) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("value", "words"), [(0.5, "0.5"), (1500, "1500"), (20_000, "20k"), (2_500_000, "2.5M"), (0.0001, "0.0001")]
)
def test_numbers_on_axes_are_short(value: float, words: str) -> None:
    assert number(value) == words


def test_labels_are_kept_apart_inside_the_picture() -> None:
    places = apart([0.0, 0.01, 0.02, 0.9, 1.0], gap=0.1, low=0.0, high=1.0)
    assert all(b - a >= 0.1 - 1e-9 for a, b in pairwise(places))
    assert min(places) >= 0 and max(places) <= 1 + 1e-9
    assert apart([0.2, 0.8], gap=0.1, low=0, high=1) == pytest.approx([0.2, 0.8])


def test_words_of_others_cannot_break_the_picture() -> None:
    assert "&lt;b&gt;" in text(0, 0, "<b>") and "<b>" not in text(0, 0, "<b>")


def test_a_panel_draws_lines_where_its_scales_say() -> None:
    panel = Panel.of((100, 100), (0, 10), (0, 1), margins=(0, 0, 0, 0))
    panel.line(Line([0, 10], [0.0, 1.0], [0.0, 0.5], [0.5, 1.0]), "red")
    drawn = panel.done("a line")
    assert 'd="M0.0 100.0L100.0 0.0"' in drawn and 'class="b"' in drawn and 'aria-label="a line"' in drawn
    assert path([], "red") == ""


def test_a_named_line_says_its_points_to_four_digits() -> None:
    panel = Panel.of((100, 100), (0, 10), (0.1, 1), margins=(0, 0, 0, 0), log_y=True)
    panel.line(Line([0, 2.5], [0.123456, math.inf], [0, 0], [1, 1]), "red", name='<"mine">')
    panel.line(Line([0, 2.5], [1.0, 0.5], [0, 0], [1, 1]), "blue", dash="6 3", name="other")
    panel.line(Line([1, 9], [1.0, 0.5], [0, 0], [1, 1]), "grey")
    root = ElementTree.fromstring(panel.done("lines", of="<me>"))
    assert root.get("data-of") == "<me>" and json.loads(root.get("data-read", "")) == [
        [0, 100, 0, 10, 0], [100, 0, 0.1, 1, 1],
        [['<"mine">', "red", "", [0, 2.5], [0.1235, None]], ["other", "blue", "6 3", 0, [1, 0.5]]],
    ]  # fmt: skip


def test_limits_of_one_value_still_make_a_panel() -> None:
    assert Panel.of((100, 100), (5, 5), (0, 0)).y(0.0) == 78.0
