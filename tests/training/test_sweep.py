import dataclasses

import pytest

from nestlearn.training import sweep as sweep_module
from nestlearn.training.config import PRESETS
from nestlearn.training.contenders import find_contenders
from nestlearn.training.run_folder import RunFolder
from nestlearn.training.sweep import SweepError, run_searches
from nestlearn.training.tuning import plan

SETTINGS = dataclasses.replace(
    PRESETS["demo"], tasks=("digits",), steps={"digits": 8}, seeds=(0, 1), lr_points=2, retentions=(0.9,), keep=1
)


def searches():
    return plan(find_contenders(["AdamW", "Momentum"]), SETTINGS)


def test_all_runs_are_kept_and_a_second_attempt_trains_nothing(tmp_path, monkeypatch) -> None:
    folder, first, seen = RunFolder.create(tmp_path), searches(), []
    run_searches(first, folder, workers=1, progress=lambda result, reused: seen.append(reused))
    assert len(seen) == sum(search.planned for search in first) == 12 and not any(seen)
    runs = folder.compact()
    assert len(runs) == 12
    monkeypatch.setattr(sweep_module, "train", lambda spec: pytest.fail(f"trained {spec.key} again"))
    again, seen = searches(), []
    run_searches(again, folder, known=runs, workers=1, progress=lambda result, reused: seen.append(reused))
    assert len(seen) == 12 and all(seen)
    assert [s.chosen() for s in again] == [s.chosen() for s in first]


def test_an_interrupted_sweep_continues_to_the_same_numbers(tmp_path, monkeypatch) -> None:
    whole = searches()
    run_searches(whole, RunFolder.create(tmp_path / "whole"), workers=1)
    real, count = sweep_module.train, 0

    def until_five(spec):
        nonlocal count
        count += 1
        if count > 5:
            raise KeyboardInterrupt
        return real(spec)

    folder = RunFolder.create(tmp_path / "cut")
    monkeypatch.setattr(sweep_module, "train", until_five)
    with pytest.raises(KeyboardInterrupt):
        run_searches(searches(), folder, workers=1)
    kept = folder.compact()
    assert len(kept) == 5
    monkeypatch.setattr(sweep_module, "train", real)
    rest, reused = searches(), []
    run_searches(rest, folder, known=kept, workers=1, progress=lambda result, old: reused.append(old))
    assert sum(reused) == 5
    for one, other in zip(whole, rest, strict=True):
        assert [r.test for r in one.chosen()] == [r.test for r in other.chosen()]


def test_an_error_that_is_no_divergence_names_the_run_and_keeps_the_others(tmp_path, monkeypatch) -> None:
    real = sweep_module.train

    def broken(spec):
        if spec.variant.contender == "Momentum":
            raise TypeError("a bug")
        return real(spec)

    monkeypatch.setattr(sweep_module, "train", broken)
    folder = RunFolder.create(tmp_path)
    with pytest.raises(SweepError, match=r"digits/Momentum/lr=.* failed: TypeError: a bug"):
        run_searches(searches(), folder, workers=1)
    assert len(folder.runs()[0]) == 2


def test_two_workers_give_the_same_numbers_as_one(tmp_path) -> None:
    alone, together = searches(), searches()
    run_searches(alone, RunFolder.create(tmp_path / "one"), workers=1)
    run_searches(together, RunFolder.create(tmp_path / "two"), workers=2)
    for one, other in zip(alone, together, strict=True):
        assert [r.test for r in one.chosen()] == [r.test for r in other.chosen()]
