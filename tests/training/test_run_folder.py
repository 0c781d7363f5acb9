import os

import pytest

from nestlearn.training.results import Point, RunResult
from nestlearn.training.run_folder import RunFolder, RunFolderError, read_json_lines, write_atomic


def result(key: str = "a", **changes) -> RunResult:
    fields = {
        "key": key, "task": "digits", "variant": "Muon", "settings": {"lr": 0.1}, "seed": 0, "steps": 4, "full": True,
        "status": "finished", "validation": {"loss": 1.0}, "test": {"loss": 2.0}, "train": [Point(1, 0.1, 3.0)],
        "curve": [Point(4, 0.4, 1.0)], "surprises": [[2, "momentum", 0.5]],
    }  # fmt: skip
    return RunResult(**{**fields, **changes})


def test_runs_come_back_as_they_were_written(tmp_path) -> None:
    folder = RunFolder.create(tmp_path / "run")
    both = [result("a"), result("b", seed=1, surprises=[])]
    for one in both:
        folder.add(one)
    runs, notes = folder.runs()
    assert list(runs.values()) == both and notes == []


def test_numbers_that_json_cannot_hold_become_null(tmp_path) -> None:
    folder = RunFolder.create(tmp_path)
    folder.add(result(curve=[Point(4, 0.4, float("inf"))], surprises=[[2, "m", float("nan")]]))
    (back,) = folder.runs()[0].values()
    assert back.curve == [Point(4, 0.4, None)] and back.surprises == [[2, "m", None]]


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch) -> None:
    path = tmp_path / "results.json"
    write_atomic(path, "old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, "new")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["results.json"]


def test_a_last_line_cut_short_is_dropped_and_said(tmp_path) -> None:
    folder = RunFolder.create(tmp_path)
    folder.add(result("a"))
    with folder.metrics.open("a") as file:
        file.write('{"kind": "run", "key": "b", "ta')
    runs, notes = folder.runs()
    assert list(runs) == ["a"] and len(notes) == 1 and "metrics.jsonl" in notes[0]


def test_a_broken_line_inside_is_an_error_that_names_file_and_line(tmp_path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"a": 1}\n{"a": \n{"a": 3}\n')
    with pytest.raises(RunFolderError, match=r"metrics\.jsonl, line 2"):
        read_json_lines(path)
    folder = RunFolder.create(tmp_path / "run")
    folder.metrics.write_text('{"kind": "train"}\n')
    with pytest.raises(RunFolderError, match=r"metrics\.jsonl, line 1: not a record of a run"):
        folder.runs()


def test_compacting_keeps_finished_runs_and_drops_the_traces_of_others(tmp_path) -> None:
    folder = RunFolder.create(tmp_path)
    folder.add(result("a"))
    clean = folder.metrics.read_text(), folder.events.read_text()
    with folder.metrics.open("a") as file:
        file.write('{"kind": "train", "run": "b", "step": 1, "seconds": 1, "loss": 2}\n{"kind": "tra')
    with folder.events.open("a") as file:
        file.write('{"run": "b", "step": 1, "memory": "m", "surprise": 2}\n')
    assert folder.compact() == {"a": result("a")}
    assert (folder.metrics.read_text(), folder.events.read_text()) == clean


def test_a_folder_that_cannot_be_written_or_is_taken_or_is_none(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="cannot write the run folder"):
        RunFolder.create(tmp_path / "file" / "run")  # below a regular file: nobody can make that, not even root
    folder = RunFolder.create(tmp_path / "run")
    with pytest.raises(RunFolderError, match=r"not a run folder: config\.yaml not found"):
        RunFolder.open(folder.path)
    folder.config.write_text("preset: demo\n")
    with pytest.raises(RunFolderError, match="--resume"):
        RunFolder.create(folder.path)
    assert RunFolder.open(folder.path).path == folder.path
