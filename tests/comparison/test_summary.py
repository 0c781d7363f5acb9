"""The table of made-up searches: pairs, tests, targets and warnings."""

import json
import math
from dataclasses import replace

import pytest
from made_up_runs import SETTINGS, bowl, outcome, run, search

from nestlearn.comparison.compare_settings import PRESETS
from nestlearn.comparison.search import plan
from nestlearn.comparison.summary import reach, summarise
from nestlearn.contenders import CONTENDERS, find_contenders
from nestlearn.training import Point, Results, Row, RunSpec, merge
from nestlearn.training.results import Reached

FOUR = merge(SETTINGS, {"seeds": [0, 1, 2, 3]})
LEVEL = {"AdamW": 2.0, "Muon": 1.0, "Muon (control)": 1.5, "Adam": 2.0, "Adam (control)": 3.0}
SCATTER = {
    "AdamW": (0.0, 0.1, 0.2, 0.1),
    "Muon": (0.01, 0.1, 0.22, 0.11),
    "Muon (control)": (0.0, 0.13, 0.2, 0.11),
}


def table(settings=FOUR, names=("AdamW", "Muon"), level=LEVEL) -> Results:
    searches = plan(find_contenders(names), settings)
    for one in searches:
        scatter = SCATTER.get(one.variant.name, (0.0, 0.3, 0.1, 0.2))
        run(one, bowl(), lambda s, scatter=scatter: level[s.variant.name] + scatter[s.seed])
    return summarise(searches, settings)


def rows(*arguments, **changes) -> dict[str, Row]:
    return {row.name: row for row in table(*arguments, **changes).tasks["digits"]}


def test_a_row_is_paired_with_its_control_the_baseline_and_muon_seed_by_seed() -> None:
    found = rows()
    assert list(found) == ["Muon", "Muon (control)", "AdamW"]  # the loser is there, and last
    assert found["Muon"].against_control.values == pytest.approx([-0.49, -0.53, -0.48, -0.5])
    assert found["Muon"].against_baseline.values == pytest.approx([-0.99, -1.0, -0.98, -0.99])
    assert found["AdamW"].against_muon.mean == pytest.approx(0.99)
    assert found["AdamW"].against_baseline is None and found["Muon"].against_muon is None
    assert found["Muon"].test["loss"].values == pytest.approx([1.01, 1.1, 1.22, 1.11])
    low, high = found["Muon"].interval
    assert low < 1.11 < high and high - 1.11 == pytest.approx(1.11 - low, abs=0.01)


def test_p_values_are_corrected_over_the_contenders_and_controls_make_no_claim() -> None:
    found = rows(names=("AdamW", "Adam", "Muon"))
    alone = found["Muon"].against_baseline
    assert alone.p == pytest.approx(2 * alone.p_alone) and alone.significant is True  # Adam and Muon
    assert found["Muon (control)"].against_baseline.p is None
    assert found["Muon (control)"].against_baseline.significant is None
    assert found["Adam"].against_baseline.significant is False


@pytest.mark.parametrize("seeds", [2, 3])
def test_fewer_than_four_seeds_claim_nothing_however_close_their_differences_lie(seeds) -> None:
    found = rows(merge(FOUR, {"seeds": list(range(seeds))}))["Muon"]
    for one in (found.against_control, found.against_baseline):
        assert one.p < 0.05 and len(one.values) == seeds  # which would have been believed
        assert one.significant is None


def test_one_seed_has_no_interval_and_no_p() -> None:
    found = rows(merge(FOUR, {"seeds": [0]}))
    assert found["Muon"].interval is None and found["Muon"].against_baseline.interval is None
    assert found["Muon"].against_baseline.p is None and found["Muon"].against_baseline.significant is None


def test_the_table_is_json_and_says_what_was_done() -> None:
    results = table()
    assert Results.from_plain(json.loads(json.dumps(results.to_plain(), allow_nan=False))) == results
    assert (results.baseline, results.muon, results.budget) == ("AdamW", "Muon", 15)
    row = results.tasks["digits"][0]
    assert row.trials_count == len(row.trials) == 15 and row.equal_time is None
    spec = RunSpec.from_plain(row.spec)
    assert spec.key == row.runs[0] and spec.full and dict(spec.settings) == row.settings


def test_what_stays_at_an_edge_is_a_warning_in_the_row_and_of_the_whole() -> None:
    one = search("GradientDescent", settings=merge(SETTINGS, {"grow": 2}))
    run(one, lambda s: -dict(s.settings)["lr"])
    results = summarise([one], SETTINGS)
    (row,) = results.tasks["digits"]
    assert row.edges == ("lr at the high edge",) and row.settings["lr"] == max(row.grid["lr"])
    assert row.warnings == (f"the best lr ({row.settings['lr']:g}) is at the high edge of what was tried",)
    assert results.warnings == (f"digits, GradientDescent: {row.warnings[0]}",)


@pytest.mark.parametrize(
    ("trial", "full", "warned"),
    [
        (0.0357, (0.2465, 0.24), True),  # seven times
        (0.0357, (0.08, 0.06), True),
        (0.0357, (0.05, 0.05), False),  # not half as much again
        (0.0357, (0.4, 0.02), False),  # the seeds are further apart than from the trial
        (0.5, (0.1, 0.1), False),
        (0.0, (0.1, 0.11), True),
        (-1.0, (-0.1, -0.2), False),  # no loss of which there are multiples
    ],
)
def test_a_full_run_that_ends_far_above_its_own_trial_is_a_warning(trial, full, warned) -> None:
    one = search("GradientDescent")
    run(one, lambda s: full[s.seed] if s.full else trial)
    (row,) = summarise([one], SETTINGS).tasks["digits"]
    found = [words for words in row.warnings if "far above" in words]
    assert bool(found) == warned
    if warned:
        assert f"of {sum(full) / 2:.3g}, far above the {trial:.3g} of the trial that chose" in found[0]
        assert "(10 of 40 steps)" in found[0]


def test_all_diverged_is_still_a_row() -> None:
    lost = search("GradientDescent")
    run(lost, lambda s: math.inf)
    (row,) = summarise([lost], SETTINGS).tasks["digits"]
    assert row.status == "diverged" and row.test == {} and row.diverged_trials == 15
    assert row.interval is None and row.against_baseline is None and row.to_target is None


def test_the_target_is_reached_between_two_looks() -> None:
    result = outcome(search().spec((("lr", 0.1),), 0, full=True), 1.0)
    result = replace(result, curve=[Point(10, 1.0, 3.0), Point(20, 2.0, 2.0), Point(30, 4.0, 1.0), Point(40, 5.0, 2.5)])
    assert reach(result, 1.25) == (27.5, 3.5)
    assert reach(result, 2.0) == (20, 2.0) and reach(result, 3.5) == (10, 1.0) and reach(result, 0.9) is None
    assert reach(replace(result, curve=[Point(10, 1.0, None), Point(20, 2.0, 2.0)]), 2.5) == (20, 2.0)


def test_steps_to_the_target_are_means_over_the_seeds_that_reached_it() -> None:
    searches = plan(find_contenders(["AdamW", "Muon"]), SETTINGS)
    for one in searches:
        run(one, lambda s: 1.0)
        for key, result in one.results.items():
            last = 1.0 if one.variant.name == "AdamW" else 0.5 + result.seed  # Muon reaches 1.0 with seed 0 only
            one.results[key] = replace(result, curve=[Point(20, 2.0, 2.0), Point(40, 4.0, last)])
    found = {row.name: row.to_target for row in summarise(searches, SETTINGS).tasks["digits"]}
    assert found["AdamW"] == Reached(target=1.0, steps=40, seconds=4.0, reached=2, of=2)
    share = (2.0 - 1.0) / (2.0 - 0.5)
    steps, seconds = pytest.approx(20 + 20 * share), pytest.approx(2 + 2 * share)
    assert found["Muon"] == Reached(target=1.0, steps=steps, seconds=seconds, reached=1, of=2)


def test_every_contender_has_a_control_or_is_plain() -> None:
    without = [name for name in PRESETS["full"].optimizers if CONTENDERS[name].control is None]
    assert without == ["AdamW", "GradientDescent"]
