"""Against scipy's own tests, closed forms, and made-up comparisons in which nothing differs."""

import math

import numpy as np
import pytest
from scipy import stats

from nestlearn.training.statistics import LEVEL, correct, holm, interval, paired, spread

MINE, OTHERS = [1.21, 1.35, 1.18, 1.40, 1.27], [1.30, 1.38, 1.29, 1.39, 1.41]


def test_the_interval_is_that_of_student() -> None:
    low, high = stats.t.interval(0.95, len(MINE) - 1, np.mean(MINE), stats.sem(MINE))
    assert interval(MINE) == pytest.approx([low, high], rel=1e-12)
    # Two values a, b: one degree of freedom, whose 97.5% quantile is tan(0.475 pi).
    half = math.tan(0.475 * math.pi) * 0.1 / 2
    assert interval([1.0, 1.1]) == pytest.approx([1.05 - half, 1.05 + half], rel=1e-9)


def test_differences_are_tested_as_scipy_tests_them() -> None:
    found, truth = paired(MINE, OTHERS), stats.ttest_rel(MINE, OTHERS)
    assert found.p_alone == pytest.approx(truth.pvalue, rel=1e-9)
    assert found.interval == pytest.approx(list(truth.confidence_interval(0.95)), rel=1e-9)
    assert found.mean == pytest.approx(np.mean(MINE) - np.mean(OTHERS)) and found.values[0] == 1.21 - 1.30
    assert found.p is None and found.significant is None


def test_one_seed_says_nothing_about_scatter() -> None:
    found = paired([1.0], [2.0])
    assert (found.mean, found.spread, found.interval, found.p_alone) == (-1.0, None, None, None)
    assert interval([1.0]) is None and spread([1.0]) is None


def test_differences_without_scatter_are_no_proof_and_equal_runs_do_not_differ() -> None:
    assert paired([1.0, 2.0], [1.0, 2.0]).p_alone == 1.0
    assert paired([1.0, 1.1, 1.2], [1.5, 1.6, 1.7]).p_alone is None  # the same but for rounding
    assert paired([1.0, 1.0], [2.0, 2.0]).p_alone is None and interval([2.0, 2.0]) == (2.0, 2.0)


def test_runs_of_different_numbers_of_seeds_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        paired([1.0], [1.0, 2.0])


def test_holm_by_hand() -> None:
    # Holm (1979): the smallest times 4, the next times 3, ...; never below one before it, never above 1.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([0.02]) == [0.02] and holm([]) == []


def test_correcting_leaves_out_what_has_no_p() -> None:
    rows = [paired(MINE, OTHERS), paired([1.0], [2.0]), paired(OTHERS, [2 * x for x in OTHERS])]
    rows = correct(rows)
    assert [row.significant for row in rows] == [rows[0].p < LEVEL, None, True]
    assert rows[0].p == rows[0].p_alone and rows[2].p == 2 * rows[2].p_alone


def test_few_seeds_are_significant_neither_way() -> None:
    rows = correct([paired(MINE[:n], OTHERS[:n]) for n in (1, 2, 3, 4)])
    assert [row.significant for row in rows] == [None, None, None, False]
    assert [row.p is None for row in rows] == [True, False, False, False]


def simulate(tables: int, contenders: int, seeds: int, corrected: bool) -> float:
    """The share of made-up tables, in which nothing differs, with at least one difference called significant."""
    generator, false = np.random.default_rng(0), 0
    for _ in range(tables):
        seed_effect = generator.normal(size=seeds)
        baseline = seed_effect + 0.3 * generator.normal(size=seeds)
        rows = [
            paired(list(seed_effect + 0.3 * generator.normal(size=seeds)), list(baseline)) for _ in range(contenders)
        ]
        if corrected:
            rows = correct(rows)
        false += any(row.significant if corrected else row.p_alone < LEVEL for row in rows)
    return false / tables


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [4, 5])
def test_one_comparison_is_called_significant_by_chance_in_one_of_twenty(seeds: int) -> None:
    assert simulate(4000, 1, seeds, corrected=True) == pytest.approx(LEVEL, abs=4 * math.sqrt(0.05 * 0.95 / 4000))


@pytest.mark.slow
def test_a_table_has_a_false_claim_in_at_most_one_of_twenty_but_only_with_the_correction() -> None:
    assert simulate(1000, 12, 5, corrected=True) <= LEVEL + 3 * math.sqrt(0.05 * 0.95 / 1000)
    assert simulate(300, 12, 5, corrected=False) > 4 * LEVEL
