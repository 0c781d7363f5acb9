"""Runs in a folder: what lies there, and that stopping them anywhere changes none of it."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from sameness import TIMES, differences, left_behind

from nestlearn.contenders import Variant
from nestlearn.training import read_settings
from nestlearn.training.checkpoint import CheckpointError, Checkpoints
from nestlearn.training.loop import Interrupted, train
from nestlearn.training.run_folder import RunFolder, RunFolderError
from nestlearn.training.spec import RunSpec
from nestlearn.training.train_run import TrainRun
from nestlearn.training.train_settings import TrainSettings, resolve_training

SETTINGS = [
    "task=tiny_task:lines",
    "optimizer=DeepMomentum",
    "optimizer.hidden=4",
    "steps=24",
    "seeds=0..1",
    "rows=12",
    "points=6",
]


def settings(*changes: str) -> TrainSettings:
    return resolve_training(TrainSettings(), *SETTINGS, "checkpoint_every=7", *changes)


def started(path: Path, *changes: str) -> TrainRun:
    run = TrainRun(RunFolder(path), settings(*changes))
    run.begin()
    return run


def resumed(path: Path) -> TrainRun:
    folder = RunFolder(path)
    run = TrainRun(folder, TrainRun.settings_of(folder))
    run.begin(resume=True)
    return run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "whole"
    started(path).run()
    return path


def test_the_folder_holds_what_the_documentation_says(whole) -> None:
    assert {path.name for path in whole.iterdir()} == {
        "config.yaml", "environment.json", "metrics.jsonl", "events.jsonl", "results.json", "checkpoints",
    }  # fmt: skip
    config = read_settings(whole / "config.yaml")
    assert next(iter(config)) == "kind" and config["kind"] == "train"
    assert config["optimizer"] == {"name": "DeepMomentum", "lr": 0.052, "elementwise_lr": 0.01, "hidden": 4}
    names = sorted(path.name.rpartition("-")[0] for path in (whole / "checkpoints").iterdir())
    assert names == [f"seed{seed}-step{step:08d}" for seed in (0, 1) for step in (21, 24)]
    metrics = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in metrics if record["kind"] == "train"] == [*range(2, 25, 2)] * 2
    assert [record["step"] for record in metrics if record["kind"] == "validation"] == [*range(4, 25, 4)] * 2
    assert [record["seed"] for record in metrics if record["kind"] == "run"] == [0, 1]
    facts = json.loads((whole / "environment.json").read_text())
    assert facts["threads_per_worker"] == 1 and facts["reused_runs"] == 0 and facts["seconds"] > 0
    assert facts["products"] in ("float32", "bfloat16")


def test_the_row_of_the_results_has_the_figures_of_the_runs(whole) -> None:
    (row,) = json.loads((whole / "results.json").read_text())["tasks"]["tiny_task:lines"]
    runs = list(RunFolder(whole).runs()[0].values())
    assert row["name"] == "DeepMomentum" and row["runs"] == [run.key for run in runs]
    losses = [run.test["loss"] for run in runs]
    assert row["test"]["loss"]["values"] == losses and row["test"]["loss"]["mean"] == pytest.approx(sum(losses) / 2)
    assert row["interval"][0] < row["test"]["loss"]["mean"] < row["interval"][1]
    assert row["state_bytes"] == runs[0].state_bytes > 0 and row["spec"]["seed"] == 0
    assert row["against_control"] is row["against_baseline"] is row["against_muon"] is row["to_target"] is None


class Once:
    """Says stop after so many questions, once."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self) -> bool:
        self.left -= 1
        return self.left == 0


@pytest.mark.parametrize("after", [13, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 7, 24, 30, 47))])
def test_an_interrupted_run_goes_on_to_the_same_bits(whole, tmp_path, after: int) -> None:
    path = tmp_path / "run"
    run = started(path)
    if after == 24:  # the end of a seed is no moment to stop: it is finished, and the next one stops
        run.run(should_stop=lambda: False)
    else:
        with pytest.raises(Interrupted):
            run.run(should_stop=Once(after))
        resumed(path).run()
    assert differences(left_behind(whole), left_behind(path), ignore=TIMES) == []


class Killed(Exception):
    pass


@pytest.mark.parametrize(
    "after", [pytest.param(after, marks=pytest.mark.slow) for after in (1, 4, 11, 12, 20, 24)] + [13]
)
def test_rows_after_the_last_checkpoint_are_not_there_twice(whole, tmp_path, after: int) -> None:
    """Die while rows are written: after them on the disk, before any checkpoint knows of them."""
    path, count = tmp_path / "run", 0

    def die(training) -> None:
        nonlocal count
        count += 1
        if count == after:
            with (path / "metrics.jsonl").open("a") as file:
                file.write('{"kind": "tra')  # the last line is cut short
            raise Killed

    with pytest.raises(Killed):
        started(path).run(progress=die)
    run = resumed(path)
    assert len(run.notes) == 1 and "cut short" in run.notes[0]
    run.run()
    assert differences(left_behind(whole), left_behind(path), ignore=TIMES) == []


def test_a_finished_folder_trains_nothing_again(whole, tmp_path) -> None:
    before = left_behind(whole)
    run = TrainRun(RunFolder(whole), TrainRun.settings_of(RunFolder(whole)))
    assert run.begin(resume=True) is None
    run.run(progress=lambda training: pytest.fail("trained again"))
    assert differences(before, left_behind(whole)) == []
    assert json.loads((whole / "environment.json").read_text())["reused_runs"] == 2


def stopped(path: Path, after: int = 17) -> Path:
    with pytest.raises(Interrupted):
        started(path).run(should_stop=Once(after))
    return path


def test_a_broken_newest_checkpoint_costs_steps_and_is_said(whole, tmp_path) -> None:
    path = stopped(tmp_path / "run")
    newest, older = Checkpoints(path / "checkpoints", "seed0").paths()
    newest.write_bytes(newest.read_bytes()[:1000])
    run = resumed(path)
    run.run()
    (note,) = run.notes
    assert newest.name in note and f"Going on from {older.name} instead" in note
    assert differences(left_behind(whole), left_behind(path), ignore=TIMES) == []


def test_without_a_whole_checkpoint_the_run_is_not_begun_anew(tmp_path) -> None:
    path = stopped(tmp_path / "run")
    for file in (path / "checkpoints").iterdir():
        file.write_bytes(b"no checkpoint")
    before = (path / "metrics.jsonl").read_bytes()
    with pytest.raises(CheckpointError, match="No whole checkpoint of seed0 is left"):
        resumed(path).run()
    for file in (path / "checkpoints").iterdir():
        file.unlink()
    with pytest.raises(CheckpointError, match=r"no checkpoint of seed0 .* but rows of its run"):
        resumed(path).run()
    assert (path / "metrics.jsonl").read_bytes() == before


def test_the_checkpoint_of_another_run_is_refused(tmp_path) -> None:
    path, other = stopped(tmp_path / "run"), tmp_path / "other"
    with pytest.raises(Interrupted):
        started(other, "optimizer=Adam").run(should_stop=Once(5))
    for file in (path / "checkpoints").iterdir():
        file.unlink()
    for file in (other / "checkpoints").iterdir():
        file.rename(path / "checkpoints" / file.name)
    with pytest.raises(CheckpointError, match=r"does not fit its run: expected .*DeepMomentum.*, got .*Adam"):
        resumed(path).run()


def gone(path: Path) -> None:
    path.unlink()


def emptied(path: Path) -> None:
    path.write_text("")


def digit(path: Path) -> None:
    """Another digit in a row of long before the checkpoint, which stays valid JSON."""
    first, rest = path.read_text().split("\n", 1)
    path.write_text(first.replace('"step": ', '"step": 1') + "\n" + rest)


def broken(path: Path) -> None:
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([*lines[:2], b"\xff{", *lines[2:]]))


@pytest.mark.parametrize(
    ("spoil", "after", "name"),
    [
        (digit, 17, "metrics.jsonl"),
        (emptied, 40, "events.jsonl"),
        pytest.param(gone, 17, "metrics.jsonl", marks=pytest.mark.slow),
        pytest.param(broken, 17, "metrics.jsonl", marks=pytest.mark.slow),
        pytest.param(broken, 40, "events.jsonl", marks=pytest.mark.slow),
    ],
)
def test_rows_are_written_again_from_the_checkpoints(whole, tmp_path, spoil, after, name) -> None:
    """In the first seed, and in the second, when the first is finished."""
    path = stopped(tmp_path / "run", after)
    spoil(path / name)
    run = resumed(path)
    run.run()
    (note,) = run.notes
    assert name in note and "written again from the checkpoints" in note
    assert (path / f"{name}.broken").exists() == (spoil in (digit, broken))
    assert differences(left_behind(whole), left_behind(path), ignore=TIMES) == []


def test_a_finished_run_whose_line_was_changed_is_judged_again_from_its_last_checkpoint(whole, tmp_path) -> None:
    path = tmp_path / "run"
    started(path).run()
    rows = (path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (path / "metrics.jsonl").write_text("".join([*rows[:-1], rows[-1].replace('"loss": 0.', '"loss": 1.')]))
    run = resumed(path)
    run.run(progress=lambda training: pytest.fail("trained again"))
    assert differences(left_behind(whole), left_behind(path), ignore=TIMES) == []


@pytest.mark.parametrize(
    "text",
    [
        None,
        *(pytest.param(text, marks=pytest.mark.slow) for text in ("", "kind: [", "kind: train\nrows: ten\n", "\xff")),
    ],
)
def test_settings_that_are_gone_or_broken_come_back_from_a_checkpoint(whole, tmp_path, text) -> None:
    path = stopped(tmp_path / "run")
    before = read_settings(path / "config.yaml")
    (path / "config.yaml").unlink()
    if text is not None:
        (path / "config.yaml").write_text(text, encoding="latin-1")
    run = resumed(path)
    run.run()
    (note,) = run.notes
    assert "config.yaml" in note and "written again from a checkpoint" in note
    assert read_settings(path / "config.yaml") == before | {"checkpoint_every": 100}
    assert differences(left_behind(whole), left_behind(path), ignore=TIMES) == []


@pytest.mark.parametrize("line", ["rows: 12\n", pytest.param("steps: 24\n", marks=pytest.mark.slow)])
def test_a_line_that_the_settings_have_lost_is_put_back(whole, tmp_path, line) -> None:
    """``rows`` is not part of a run's name, ``steps`` is."""
    path = stopped(tmp_path / "run")
    text = (path / "config.yaml").read_text()
    (path / "config.yaml").write_text(text.replace(line, ""))
    run = resumed(path)
    run.run()
    assert (path / "config.yaml").read_text() == text
    (note,) = run.notes
    assert "config.yaml is not what it was" in note and f"{line.split(':')[0]}: was {line.split()[1]}, now" in note
    assert differences(left_behind(whole), left_behind(path), ignore=TIMES) == []


def test_a_folder_is_written_by_one_run_at_a_time(tmp_path) -> None:
    path = stopped(tmp_path / "run")
    first = resumed(path)
    with pytest.raises(RunFolderError, match=r"run is being written by another process \(process \d+"):
        resumed(path)
    first.run()
    resumed(path)


@pytest.mark.parametrize("what", ["metrics.jsonl", "events.jsonl", "checkpoints", "."])
def test_what_vanishes_under_way_ends_the_run_at_once_and_is_said(tmp_path, what) -> None:
    path, seen = tmp_path / "run", []

    def vanish(training) -> None:
        seen.append(training.steps_taken)
        if len(seen) == 2:
            target = path / what
            shutil.rmtree(target) if target.is_dir() else target.unlink()

    run = started(path)
    if what == "checkpoints":  # it is made again, and nothing was lost
        return run.run(progress=vanish)
    with pytest.raises(RunFolderError, match=r"was removed while it was being written"):
        run.run(progress=vanish)
    assert seen == [2, 4] and path.exists() == (what != ".")
    return None


def test_changed_settings_are_refused_by_name_and_seeds_may_be_added(tmp_path) -> None:
    path = stopped(tmp_path / "run")
    before = (path / "config.yaml").read_bytes()
    for change, named in {
        "steps=30": r"steps: was 24, now 30",
        "optimizer.lr=0.1": r"optimizer\.lr: was 0\.052, now 0\.1",
        "optimizer.levels=2": r"optimizer\.levels: was None, now 2",
        "task.width=9": r"task\.width: was None, now 9",
        "dtype=float64": r"dtype: was float32, now float64",
        "seeds=[0]": r"seeds: was \[0, 1\], now \[0\]",
    }.items():
        with pytest.raises(ValueError, match=f"other settings, they would change its result: {named}"):
            TrainRun(RunFolder(path), settings(change)).begin(resume=True)
    assert (path / "config.yaml").read_bytes() == before
    more = TrainRun(RunFolder(path), settings("seeds=0..2", "checkpoint_every=3"))
    more.begin(resume=True)
    more.run()
    assert [run.seed for run in RunFolder(path).runs()[0].values()] == [0, 1, 2]


def test_a_comparison_is_not_continued_as_a_training_run(tmp_path) -> None:
    (tmp_path / "config.yaml").write_text("kind: compare\n")
    with pytest.raises(ValueError, match=r"written by `nestlearn compare`.*nestlearn compare --resume"):
        TrainRun.settings_of(RunFolder(tmp_path))


def test_a_diverged_seed_has_its_row_and_its_reason(tmp_path) -> None:
    run = started(tmp_path / "run", "optimizer=SGD", "optimizer.lr=1e20")
    run.run()
    (row,) = run.results().tasks["tiny_task:lines"]
    assert row.status == "diverged" and row.reason.startswith("seed 0, step ") and row.test == {}


def test_a_run_with_the_settings_of_a_comparison_is_its_run(tmp_path) -> None:
    spec = RunSpec("digits", Variant("Momentum"), (("lr", 0.1), ("retention", 0.8)), seed=1, steps=10, points=2)
    compared = train(spec)
    same = ["task=digits", "optimizer=Momentum", "optimizer.lr=0.1", "optimizer.retention=0.8"]
    run = TrainRun(RunFolder(tmp_path), resolve_training(TrainSettings(), *same, "seeds=1", "steps=10"))
    run.begin()
    run.run()
    (found,) = run.folder.runs()[0].values()
    assert (found.validation, found.test) == (compared.validation, compared.test)


def test_threads_are_those_of_the_settings_and_are_put_back(tmp_path) -> None:
    before, seen = torch.get_num_threads(), []
    torch.set_num_threads(2)
    try:
        started(tmp_path / "run").run(progress=lambda training: seen.append(torch.get_num_threads()))
        assert set(seen) == {1} and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
