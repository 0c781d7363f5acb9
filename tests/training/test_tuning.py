import dataclasses
import math
from itertools import pairwise

import pytest

from nestlearn.training.config import PRESETS, resolve
from nestlearn.training.contenders import CONTENDERS, find_contenders
from nestlearn.training.spec import RunResult, RunSpec, Variant
from nestlearn.training.summary import summarise
from nestlearn.training.tuning import Search, grid, lr_grid, plan

SETTINGS = dataclasses.replace(
    PRESETS["demo"],
    tasks=("digits",),
    steps={"digits": 40},
    seeds=(0, 1),
    lr_points=5,
    retentions=(0.8, 0.9, 0.95),
    keep=2,
    trial_fraction=0.25,
)


def outcome(spec: RunSpec, validation: float, test: float = 1.0) -> RunResult:
    diverged = math.isinf(validation)
    figures = {"accuracy": 90.0}
    return RunResult(
        key=spec.key,
        task=spec.task,
        variant=spec.variant.name,
        settings=dict(spec.settings),
        seed=spec.seed,
        steps=spec.steps,
        full=spec.full,
        status="diverged" if diverged else "finished",
        validation={} if diverged else {"loss": validation, **figures},
        test={"loss": test, **figures} if spec.full and not diverged else {},
        parameters=10,
    )


def run(search: Search, validation, test=lambda spec: 1.0) -> list[list[RunSpec]]:
    """Feed a search with made-up results; returns the stages it asked for."""
    stages = []
    while fresh := search.next():
        stages.append(fresh)
        for spec in fresh:
            search.record(outcome(spec, validation(spec), test(spec)))
    return stages


def test_the_choice_follows_validation_even_where_test_says_the_opposite() -> None:
    search = Search("digits", CONTENDERS["Momentum"], False, SETTINGS)
    rates = search.axes["lr"]
    best = rates[2]
    run(
        search,
        lambda s: abs(math.log(dict(s.settings)["lr"] / best)),
        lambda s: -abs(math.log(dict(s.settings)["lr"] / best)),
    )
    chosen = search.chosen()
    assert {r.settings["lr"] for r in chosen} == {best}
    assert [r.seed for r in chosen] == [0, 1] and all(r.full for r in chosen)


def test_the_two_stages_have_the_planned_sizes_lengths_and_seeds() -> None:
    search = Search("digits", CONTENDERS["Momentum"], False, SETTINGS)
    trials, shortlist = run(search, lambda s: dict(s.settings)["lr"])
    assert [len(trials), len(shortlist)] == [15, 4]
    assert {s.steps for s in trials} == {10} and {s.steps for s in shortlist} == {40}
    assert {s.seed for s in trials} == {0} and {s.seed for s in shortlist} == {0, 1}
    assert search.planned == 19 and search.next() == []


def test_the_shortlist_can_overturn_the_trials_and_counts_every_seed() -> None:
    search = Search("digits", CONTENDERS["GradientDescent"], False, SETTINGS)
    low, second = search.axes["lr"][:2]
    run(search, lambda s: dict(s.settings)["lr"] * (-1 if s.full else 1))
    assert {r.settings["lr"] for r in search.chosen()} == {second}
    unstable = Search("digits", CONTENDERS["GradientDescent"], False, SETTINGS)
    values = {(low, 0): 1.0, (low, 1): 3.0, (second, 0): 1.5, (second, 1): 1.5}  # the first seed alone would say low
    run(unstable, lambda s: values.get((dict(s.settings)["lr"], s.seed), 9.0))
    assert {r.settings["lr"] for r in unstable.chosen()} == {second}


def test_diverged_runs_lose_and_all_diverged_is_still_a_result() -> None:
    search = Search("digits", CONTENDERS["GradientDescent"], False, SETTINGS)
    only = search.axes["lr"][1]
    run(search, lambda s: 3.0 if dict(s.settings)["lr"] == only else math.inf)
    assert {r.settings["lr"] for r in search.chosen()} == {only}
    lost = Search("digits", CONTENDERS["GradientDescent"], False, SETTINGS)
    run(lost, lambda s: math.inf)
    (row,) = summarise([lost])["tasks"]["digits"]
    assert row["status"] == "diverged" and row["test"] == {} and row["diverged_trials"] == 5


def test_every_contender_and_control_has_an_lr_grid_of_the_same_size_and_ratio() -> None:
    for search in plan(find_contenders(CONTENDERS), SETTINGS):
        rates = search.axes["lr"]
        assert len(rates) == SETTINGS.lr_points
        ratios = [b / a for a, b in pairwise(rates)]
        assert ratios == pytest.approx([SETTINGS.lr_ratio] * len(ratios), rel=0.06)
        assert search.axes.get("retention", SETTINGS.retentions) == SETTINGS.retentions


def test_lr_grid_is_centred() -> None:
    assert lr_grid(0.01, 3, 10.0) == (0.001, 0.01, 0.1)
    low, high = lr_grid(0.01, 2, 4.0)
    assert low * high == pytest.approx(1e-4) and high / low == pytest.approx(4)


def test_a_control_has_a_retention_to_tune_only_where_one_still_acts() -> None:
    assert "retention" in grid(CONTENDERS["SecantMomentum"], True, SETTINGS)
    assert "retention" in grid(CONTENDERS["Muon"], False, SETTINGS)
    assert "retention" not in grid(CONTENDERS["Muon"], True, SETTINGS)


def test_the_plan_brings_the_control_of_each_contender_once() -> None:
    searches = plan(find_contenders(["Momentum", "DeltaGradientDescent", "Muon"]), SETTINGS)
    names = [search.variant.name for search in searches]
    assert sorted(names) == sorted(["Momentum", "GradientDescent", "DeltaGradientDescent", "Muon", "Muon (control)"])


def test_edges_are_marked_and_the_middle_is_not() -> None:
    for index, expected in ((0, ["lr at the low edge"]), (2, []), (4, ["lr at the high edge"])):
        search = Search("digits", CONTENDERS["GradientDescent"], False, SETTINGS)
        best = search.axes["lr"][index]
        run(search, lambda s, best=best: abs(math.log(dict(s.settings)["lr"] / best)))
        assert summarise([search])["tasks"]["digits"][0]["edges"] == expected


def test_the_table_pairs_a_memory_with_its_control_and_the_baseline_seed_by_seed() -> None:
    searches = plan(find_contenders(["AdamW", "Muon"]), SETTINGS)
    level = {"AdamW": 2.0, "Muon": 1.0, "Muon (control)": 1.5}
    for search in searches:
        run(search, lambda s: 1.0, lambda s: level[s.variant.name] + 0.1 * s.seed)
    rows = {row["name"]: row for row in summarise(searches)["tasks"]["digits"]}
    assert list(rows) == ["Muon", "Muon (control)", "AdamW"]  # the loser is there, and last
    assert rows["Muon"]["against_control"]["values"] == pytest.approx([-0.5, -0.5])
    assert rows["Muon"]["against_baseline"]["mean"] == pytest.approx(-1.0)
    assert rows["AdamW"]["against_baseline"] is None and rows["Muon"]["test"]["loss"]["values"] == pytest.approx(
        [1.0, 1.1]
    )


def test_the_key_of_a_run_changes_with_all_that_the_result_depends_on() -> None:
    spec = RunSpec("digits", Variant("Muon"), (("lr", 0.1),), seed=0, steps=10)
    others = [
        dataclasses.replace(spec, **change)
        for change in (
            {"task": "speeches"}, {"variant": Variant("Muon", True)}, {"settings": (("lr", 0.2),)}, {"seed": 1},
            {"steps": 11},
            {"fixed": (("levels", 2),)}, {"size": (("batch", 8),)}, {"elementwise_lr": 1e-3}, {"full": False},
            {"dtype": "float64"}, {"device": "cuda"}, {"points": 9},
        )
    ]  # fmt: skip
    assert len({spec.key, *(other.key for other in others)}) == 1 + len(others)
    assert spec.key == dataclasses.replace(spec).key


def test_resolve_always_has_the_baseline() -> None:
    assert resolve(SETTINGS, optimizers=("muon",)).optimizers == ("AdamW", "Muon")
