import pytest

from nestlearn.comparison import sweep as sweep_module
from nestlearn.comparison.compare_settings import PRESETS
from nestlearn.comparison.executors import open_pool
from nestlearn.comparison.search import plan
from nestlearn.comparison.sweep import SweepError, run_courses
from nestlearn.contenders import find_contenders
from nestlearn.training import merge
from nestlearn.training.run_folder import RunFolder

SETTINGS = merge(
    PRESETS["demo"],
    {"tasks": ["digits"], "steps": 8, "seeds": [0, 1], "lr_points": 2, "retentions": [0.9], "keep": 1, "grow": 0},
)


def searches():
    return plan(find_contenders(["AdamW", "Momentum"]), SETTINGS)


def run(courses, folder, **options_) -> None:
    with open_pool("serial", 1) as pool:
        run_courses(courses, folder, pool, **options_)


def test_all_runs_are_kept_and_a_second_attempt_trains_nothing(tmp_path, monkeypatch) -> None:
    folder, first, seen = RunFolder.create(tmp_path), searches(), []
    run(first, folder, progress=lambda result, reused, total: seen.append((reused, total)))
    assert seen == [(False, 12)] * 12 and sum(search.planned for search in first) == 12
    runs = folder.compact()
    assert len(runs) == 12
    monkeypatch.setattr(sweep_module, "train", lambda spec, should_stop: pytest.fail(f"trained {spec.key} again"))
    again, seen = searches(), []
    run(again, folder, known=runs, progress=lambda result, reused, total: seen.append(reused))
    assert seen == [True] * 12
    assert [s.chosen() for s in again] == [s.chosen() for s in first]


def test_an_interrupted_sweep_continues_to_the_same_numbers(tmp_path, monkeypatch) -> None:
    whole = searches()
    run(whole, RunFolder.create(tmp_path / "whole"))
    real, count = sweep_module.train, 0

    def until_five(spec, should_stop):
        nonlocal count
        count += 1
        if count > 5:
            raise KeyboardInterrupt
        return real(spec, should_stop)

    folder = RunFolder.create(tmp_path / "cut")
    monkeypatch.setattr(sweep_module, "train", until_five)
    with pytest.raises(KeyboardInterrupt):
        run(searches(), folder)
    kept = folder.compact()
    assert len(kept) == 5
    monkeypatch.setattr(sweep_module, "train", real)
    rest, reused = searches(), []
    run(rest, folder, known=kept, progress=lambda result, old, total: reused.append(old))
    assert sum(reused) == 5
    for one, other in zip(whole, rest, strict=True):
        assert [one.results[s.key].test for s in one.chosen()] == [other.results[s.key].test for s in other.chosen()]


def test_a_run_that_fails_names_itself_and_the_others_are_kept(tmp_path, monkeypatch) -> None:
    real = sweep_module.train

    def no_momentum(spec, should_stop):
        if spec.variant.name == "Momentum":
            raise RuntimeError("no such operator")
        return real(spec, should_stop)

    monkeypatch.setattr(sweep_module, "train", no_momentum)
    folder = RunFolder.create(tmp_path)
    with pytest.raises(SweepError, match=r"digits/Momentum/lr=\S+ failed: RuntimeError: no such operator.*--resume"):
        run(searches(), folder)
    assert {result.variant for result in folder.compact().values()} == {"AdamW"}
