"""From points to lines: bins that keep mean and range, and what a row's seeds have in common."""

from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_runs import row

from nestlearn.report.series import Measured
from nestlearn.report.thinning import thin
from nestlearn.training import Point, RunResult

numbers = st.floats(-1e6, 1e6)


def run(seed: int, status: str = "finished", **series) -> RunResult:
    return RunResult(
        key=f"run{seed}", task="digits", variant="Muon", settings={}, seed=seed, steps=4, full=True, status=status,
        **series,
    )  # fmt: skip


def measured(*runs: RunResult) -> Measured:
    return Measured(row("Muon", *(one.key for one in runs)), {one.key: one for one in runs})


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=300), st.integers(1, 40))
def test_no_peak_is_lost_and_none_is_invented(pairs: list[tuple[float, float]], bins: int) -> None:
    first, second = zip(*pairs, strict=True)
    line = thin(range(len(pairs)), [first, second], bins)
    assert len(line.x) == len(line.mean) <= bins and line.x[-1] == len(pairs) - 1
    assert min(line.low) == min(*first, *second) and max(line.high) == max(*first, *second)
    slack = 1e-9 * (1 + max(map(abs, (*first, *second))))
    assert all(lo - slack <= m <= hi + slack for lo, m, hi in zip(line.low, line.mean, line.high, strict=True))


def test_bins_are_means_of_neighbours() -> None:
    values = [float(i % 7) for i in range(100)]
    line = thin(range(100), [values], bins=10)
    assert line.mean == pytest.approx([fmean(values[i : i + 10]) for i in range(0, 100, 10)])
    assert list(line.x)[:2] == [4.5, 14.5]


def test_few_points_stay_as_they_are() -> None:
    line = thin([1, 2], [[3.0, 5.0], [5.0, 9.0]])
    assert (list(line.x), line.mean, line.low, line.high) == ([1, 2], [4, 7], [3, 5], [5, 9])


def test_validation_against_steps_and_seconds() -> None:
    found = measured(
        run(0, curve=[Point(2, 1.0, 3.0), Point(4, 2.0, 1.0)]), run(1, curve=[Point(2, 3.0, 5.0), Point(4, 4.0, 2.0)])
    )
    assert (list(found.by_steps.x), found.by_steps.mean) == ([2, 4], [4.0, 1.5])
    assert found.by_seconds.x == [2.0, 3.0]


def test_a_mean_over_the_seeds_that_survived_is_not_drawn() -> None:
    good = run(0, curve=[Point(2, 1.0, 3.0)], train=[Point(1, 0.5, 9.0), Point(2, 1.0, 8.0)])
    bad = run(1, "diverged", train=[Point(1, 0.5, 7.0)])
    assert measured(good, bad).by_steps is None
    assert measured(good, bad).training.mean == [8.0]  # as far as both reach
    assert Measured(row("Muon", "run0", "run9"), {"run0": good}).by_steps is None


def test_a_loss_that_is_no_number_ends_the_line() -> None:
    points = [Point(1, 0.1, 2.0), Point(2, 0.2, None), Point(3, 0.3, 1.0)]
    assert list(measured(run(0, train=points)).training.mean) == [2.0]
    assert measured(run(0, train=[Point(1, 0.1, None)])).training is None


def test_surprises_over_the_steps_that_all_seeds_looked_at() -> None:
    first = run(0, surprises=[[1, "momentum", 2.0], [2, "momentum", 4.0], [1, "slow", None]])
    second = run(1, surprises=[[1, "momentum", 4.0], [3, "momentum", 1.0]])
    lines = measured(first, second).surprises
    assert list(lines) == ["momentum"] and (list(lines["momentum"].x), list(lines["momentum"].mean)) == ([1], [3.0])
    assert (lines["momentum"].line.low, lines["momentum"].line.high) == ([2.0], [4.0])
