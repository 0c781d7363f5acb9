import math

import pytest

from nestlearn.training.schedule import SCHEDULES, make_schedule


def test_linear_falls_to_zero_in_equal_parts() -> None:
    factor = make_schedule("linear", 0, 5)
    assert [factor(t) for t in range(5)] == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2])


def test_constant_stays() -> None:
    assert {make_schedule("constant", 0, 9)(t) for t in range(9)} == {1.0}


def test_cosine_is_a_quarter_period_in_the_middle() -> None:
    factor = make_schedule("cosine", 0, 8)
    assert factor(0) == 1.0 and factor(4) == pytest.approx(0.5)
    assert factor(2) == pytest.approx(math.cos(math.pi / 8) ** 2)


@pytest.mark.parametrize("name", SCHEDULES)
def test_warmup_rises_in_equal_parts_and_the_shape_follows_on_what_is_left(name: str) -> None:
    factor, rest = make_schedule(name, 3, 10), make_schedule(name, 0, 7)
    assert [factor(t) for t in range(3)] == pytest.approx([0.25, 0.5, 0.75])
    assert [factor(t) for t in range(3, 10)] == [rest(t) for t in range(7)]


def test_bad_schedules_are_clear_errors() -> None:
    with pytest.raises(ValueError, match="Did you mean 'cosine'"):
        make_schedule("cosin", 0, 5)
    for warmup in (-1, 5):
        with pytest.raises(ValueError, match=f"less than the 5 steps, got {warmup}"):
            make_schedule("linear", warmup, 5)
