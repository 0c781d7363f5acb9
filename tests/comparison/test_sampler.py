"""Trials by optuna's sampler: as many for all, the same ones every time, and better than chance."""

import math
import random
from statistics import mean

import pytest
from made_up_runs import SETTINGS, bowl, outcome, run, search

from nestlearn.comparison.grid import budget
from nestlearn.comparison.sampler import BATCH, near_ends, ranges
from nestlearn.training import merge

TPE = merge(
    SETTINGS,
    {
        "search": "tpe",
        "lr_points": 3,
        "retentions": [0.8, 0.95],
        "weight_decays": [0, 0.1],
        "inner_factors": [0.3, 1, 3],
    },
)
LOSS = bowl(lr=0.1, retention=0.9, inner_lr=0.2)


def test_every_search_has_the_trials_of_the_grids_in_batches_of_one_size() -> None:
    for name in ("DeepMomentum", "GradientDescent"):
        one = search(name, settings=TPE)
        *batches, shortlist = run(one, LOSS)
        assert len(one.trials()) == budget(TPE) == 16 and {len(batch) for batch in batches} == {BATCH}
        assert len(shortlist) == TPE.keep * len(TPE.seeds)
        assert {name for name, _ in batches[0][0].settings} == {"lr", *one.contender.tuned}


def test_the_trials_do_not_depend_on_the_order_of_results_and_can_be_resumed() -> None:
    one, shuffled, resumed = (search("DeepMomentum", settings=TPE) for _ in range(3))
    stages = run(one, LOSS)
    assert run(shuffled, LOSS, order=lambda specs: random.Random(1).sample(specs, len(specs))) == stages
    known = dict(list(one.results.items())[:10])
    while fresh := resumed.next():
        for spec in fresh:
            resumed.record(known.get(spec.key) or outcome(spec, LOSS(spec)))
    assert resumed.results.keys() == one.results.keys() and resumed.chosen() == one.chosen()
    assert search("Muon", settings=TPE).next()[0].settings != one.trials()[0].settings


def test_it_learns_from_results() -> None:
    long = merge(TPE, {"lr_points": 15})
    one = search("GradientDescent", settings=long)
    run(one, bowl(lr=0.5))
    distance = [abs(math.log(trial.settings["lr"] / 0.5)) for trial in one.trials()]
    assert mean(distance[-20:]) < 0.7 * mean(distance[:10])  # the first ten are drawn at random


def test_diverged_trials_are_told_too() -> None:
    one = search("GradientDescent", settings=TPE)
    run(one, lambda s: math.inf if dict(s.settings)["lr"] > 0.3 else LOSS(s))
    assert all(dict(spec.settings)["lr"] <= 0.3 for spec in one.chosen())
    lost = search("GradientDescent", settings=TPE)
    run(lost, lambda s: math.inf)
    assert len(lost.trials()) == 16


def test_a_setting_with_one_value_stays_there() -> None:
    fixed = merge(TPE, {"retentions": [0.9], "weight_decays": [0.0], "inner_factors": [1.0]})
    one = search("DeepMomentum", settings=fixed)
    assert set(ranges(one.space, fixed)) == {"lr"}
    trial = dict(one.next()[0].settings)
    assert (trial["retention"], trial["weight_decay"], trial["inner_lr"]) == (0.9, 0.0, 0.1)


def test_ends_of_the_ranges_are_edges_unless_they_are_natural() -> None:
    limits = ranges(search("DeepMomentum", settings=TPE).space, TPE)
    middle = {"lr": 0.052, "retention": 0.9, "weight_decay": 0.03, "inner_lr": 0.1}
    assert near_ends(middle, limits) == {}
    low, high = limits["lr"]
    assert near_ends({**middle, "lr": low}, limits) == {"lr": "low"}
    assert near_ends({**middle, "lr": high}, limits) == {"lr": "high"}
    assert near_ends({**middle, "retention": 0.0, "weight_decay": limits["weight_decay"][0]}, limits) == {}
    top = 1 - limits["retention"][0]
    assert near_ends({**middle, "retention": top}, limits) == {"retention": "high"}
    assert limits["inner_lr"] == pytest.approx((0.01, 0.9))
