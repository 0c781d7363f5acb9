import dataclasses
import math
import random
from itertools import pairwise

import pytest
from made_up_runs import SETTINGS, bowl, outcome, run, search

from nestlearn.comparison.compare_settings import PRESETS, CompareSettings, preset, resolve
from nestlearn.comparison.grid import Space, axes_of, budget, edges, lr_grid
from nestlearn.comparison.search import plan
from nestlearn.contenders import CONTENDERS, Variant, find_contenders
from nestlearn.training import merge
from nestlearn.training.spec import RunSpec

THOROUGH = merge(SETTINGS, {"weight_decays": [0, 0.1], "inner_factors": [0.3, 1, 3], "grow": 3})


def rate(spec: RunSpec) -> float:
    return dict(spec.settings)["lr"]


def test_the_choice_follows_validation_even_where_test_says_the_opposite() -> None:
    one = search()
    run(one, bowl(lr=0.173), lambda s: -bowl(lr=0.173)(s))
    assert {rate(spec) for spec in one.chosen()} == {0.173}
    assert [spec.seed for spec in one.chosen()] == [0, 1] and all(spec.full for spec in one.chosen())


def test_the_stages_have_the_planned_sizes_lengths_and_seeds() -> None:
    one = search()
    trials, shortlist = run(one, rate)
    assert [len(trials), len(shortlist)] == [15, 4]
    assert {s.steps for s in trials} == {10} and {s.steps for s in shortlist} == {40}
    assert {s.seed for s in trials} == {0} and {s.seed for s in shortlist} == {0, 1}
    assert one.planned == 19 and one.next() == []


def test_the_shortlist_can_overturn_the_trials_and_counts_every_seed() -> None:
    one = search("GradientDescent")
    run(one, lambda s: rate(s) * (-1 if s.full else 1))
    low, second = one.axes["lr"][:2]
    assert {rate(spec) for spec in one.chosen()} == {second}
    unstable = search("GradientDescent")
    values = {(low, 0): 1.0, (low, 1): 3.0, (second, 0): 1.5, (second, 1): 1.5}  # the first seed alone would say low
    run(unstable, lambda s: values.get((rate(s), s.seed), 9.0))
    assert {rate(spec) for spec in unstable.chosen()} == {second}


def test_diverged_runs_lose() -> None:
    one = search("GradientDescent")
    only = lr_grid(CONTENDERS["GradientDescent"].lr, 15, 3 ** (1 / 3))[4]
    run(one, lambda s: 3.0 if rate(s) == only else math.inf)
    assert {rate(spec) for spec in one.chosen()} == {only}


@pytest.mark.parametrize("name", PRESETS)
def test_every_contender_and_every_control_has_the_same_number_of_trials(name: str) -> None:
    settings = merge(preset(name), {"grow": 0, "tasks": ["digits"]})
    searches = plan(find_contenders(CONTENDERS), settings)
    for one in searches:
        middle = one.space.lr
        run(one, lambda s, middle=middle: abs(math.log(rate(s) / middle)) + 0.01 * len(s.key))
        assert len(one.trials()) == len({t.key for t in one.trials()}) == budget(settings), one.variant


def test_a_missing_setting_is_spent_on_finer_learning_rates() -> None:
    settings = merge(THOROUGH, {"grow": 0})
    with_all, without = search("DeepMomentum", settings=settings), search("GradientDescent", settings=settings)
    coarse, fine, _ = run(with_all, bowl(lr=0.052, retention=0.9))
    axes = axes_of(spec.settings for spec in coarse)
    assert len(axes["lr"]) == 5 and axes["retention"] == (0.8, 0.9, 0.95)
    assert axes["weight_decay"] == (0,) and axes["inner_lr"] == (0.1,)
    assert len(fine) == 2 * 5  # two neighbours, three inner rates times two decays, without the coarse point itself
    around = axes_of(spec.settings for spec in fine)
    assert around["inner_lr"] == (0.03, 0.1, 0.3) and around["weight_decay"] == (0, pytest.approx(0.1 / 3, rel=0.01))
    coarse, fine, _ = run(without, bowl(lr=0.52))
    rates = axes_of(spec.settings for spec in coarse)["lr"]
    assert len(rates) == 15
    assert [b / a for a, b in pairwise(rates)] == pytest.approx([3 ** (1 / 3)] * 14, rel=0.02)
    assert len(fine) == 2 * 5 and len(axes_of(spec.settings for spec in fine)["lr"]) == 2 * 3


def test_a_control_tunes_what_still_acts_and_what_is_fixed_is_not_tuned() -> None:
    def names(name: str, control: bool, settings: CompareSettings = THOROUGH) -> set[str]:
        space = Space.of(CONTENDERS[name], control, settings)
        return {field for field in ("retention", "weight_decay", "inner_lr") if getattr(space, field)}

    assert names("SecantMomentum", True) == {"retention", "weight_decay"}
    assert names("Muon", False) == {"retention", "weight_decay"} and names("Muon", True) == {"weight_decay"}
    assert names("DeepAdam", False) == {"retention", "weight_decay", "inner_lr"}
    fixed = merge(THOROUGH, {"fixed": {"Muon": {"retention": 0.7, "nesterov": False}}})
    assert names("Muon", False, fixed) == {"weight_decay"}
    assert dict(search("Muon", settings=fixed).next()[0].fixed) == {"retention": 0.7, "nesterov": False}


def test_weight_decay_shrinks_at_a_like_pace_where_steps_are_longer() -> None:
    for name in ("AdamW", "Muon", "GradientDescent"):
        space = Space.of(CONTENDERS[name], False, THOROUGH)
        assert space.lr * space.weight_decay[1] == pytest.approx(0.1 * CONTENDERS["AdamW"].lr, rel=0.01)


@pytest.mark.parametrize("settings", [SETTINGS, THOROUGH], ids=["coarse", "thorough"])
def test_the_search_is_the_same_in_whatever_order_runs_end_and_when_resumed(settings: CompareSettings) -> None:
    loss = bowl(lr=3.0, retention=0.99, inner_lr=2.0, weight_decay=1.0)
    one, shuffled, resumed = (search("DeepMomentum", settings=settings) for _ in range(3))
    stages = run(one, loss)
    assert run(shuffled, loss, order=lambda specs: random.Random(1).sample(specs, len(specs))) == stages
    known = dict(list(one.results.items())[: len(one.results) // 2])
    asked = []
    while fresh := resumed.next():
        for spec in fresh:
            asked += [] if spec.key in known else [spec.key]
            resumed.record(known.get(spec.key) or outcome(spec, loss(spec)))
    assert resumed.chosen() == one.chosen() and asked == list(one.results)[len(known) :]


def test_the_grid_grows_where_the_best_value_is_at_an_edge() -> None:
    one = search(settings=THOROUGH)
    run(one, bowl(lr=2e-3, retention=0.8))
    rates = one.axes["lr"]
    assert rates[0] == pytest.approx(0.173 / 3**5, rel=0.02)  # five of the grid reach 0.173 / 9, three were added
    assert len(one.trials()) > budget(THOROUGH) and one.planned == len(one.results)


def test_growing_stops_when_the_best_lies_inside_and_after_the_agreed_rounds() -> None:
    inside = merge(SETTINGS, {"grow": 9})
    one = search(settings=inside)
    run(one, bowl(lr=0.173 / 3**3, retention=0.9))
    assert one.axes["lr"][:2] == pytest.approx((0.173 / 3**4, 0.173 / 3**3), rel=0.02) and one.edges() == {}
    never = search("GradientDescent", settings=merge(SETTINGS, {"grow": 4}))
    run(never, lambda s: -rate(s))
    assert len(never.trials()) == budget(SETTINGS) + 4 and never.edges() == {"lr": "high"}


def test_retention_grows_in_its_distance_from_one_and_ends_at_zero() -> None:
    high, low = (search(settings=merge(SETTINGS, {"grow": 3})) for _ in range(2))
    run(high, bowl(lr=0.173, retention=0.9999))
    assert high.axes["retention"] == (0.8, 0.9, 0.95, 0.975, 0.9875, 0.9938)
    assert high.edges() == {"retention": "high"}
    run(low, bowl(lr=0.173, retention=0.0))
    assert low.axes["retention"] == (0.0, 0.2, 0.6, 0.8, 0.9, 0.95) and low.edges() == {}


def test_natural_ends_and_single_values_are_no_edges() -> None:
    axes = {"lr": (1.0, 2.0, 3.0), "retention": (0.0, 0.9), "weight_decay": (0.0, 0.1), "inner_lr": (0.1,)}
    assert edges({"lr": 2.0, "retention": 0.0, "weight_decay": 0.0, "inner_lr": 0.1}, axes) == {}
    assert edges({"lr": 1.0, "retention": 0.9, "weight_decay": 0.1, "inner_lr": 0.1}, axes) == {
        "lr": "low", "retention": "high", "weight_decay": "high",
    }  # fmt: skip


def test_when_everything_diverged_only_smaller_rates_are_tried() -> None:
    one = search(settings=THOROUGH)
    run(one, lambda s: math.inf)
    rates = one.axes["lr"]
    assert rates[:4] == pytest.approx([0.173 / 3**k for k in (8, 7, 6, 5)], rel=0.02)  # both grids grew three times
    assert max(rates) < 0.173 * 3**2.5


def test_lr_grid_is_centred() -> None:
    assert lr_grid(0.01, 3, 10.0) == (0.001, 0.01, 0.1)
    low, high = lr_grid(0.01, 2, 4.0)
    assert low * high == pytest.approx(1e-4) and high / low == pytest.approx(4)


def test_the_plan_brings_the_control_of_each_contender_once() -> None:
    searches = plan(find_contenders(["Momentum", "DeltaGradientDescent", "Muon"]), SETTINGS)
    names = [one.variant.name for one in searches]
    assert sorted(names) == sorted(["Momentum", "GradientDescent", "DeltaGradientDescent", "Muon", "Muon (control)"])


def test_the_key_of_a_run_changes_with_all_that_the_result_depends_on() -> None:
    spec = RunSpec("digits", Variant("Muon"), (("lr", 0.1),), seed=0, steps=10)
    changes = {
        "task": "speeches", "variant": Variant("Muon", True), "settings": (("lr", 0.2),), "seed": 1, "steps": 11,
        "fixed": (("levels", 2),), "size": (("batch", 8),), "elementwise_lr": 1e-3, "full": False, "dtype": "float64",
        "device": "cuda", "points": 9, "schedule": "cosine", "warmup": 3,
    }  # fmt: skip
    assert set(changes) == {field.name for field in dataclasses.fields(RunSpec)}
    others = [dataclasses.replace(spec, **{name: value}) for name, value in changes.items()]
    assert len({spec.key, *(other.key for other in others)}) == 1 + len(others)
    assert spec.key == dataclasses.replace(spec).key


def test_resolve_always_has_the_baseline_and_muon() -> None:
    assert resolve(SETTINGS, optimizers=("adam",)).optimizers == ("AdamW", "Adam", "Muon")
