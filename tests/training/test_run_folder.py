import hashlib
import os
from pathlib import Path

import pytest

from nestlearn.files import AppendedFile
from nestlearn.training.results import Point, RunResult
from nestlearn.training.run_folder import RunFolder, RunFolderError, write_atomic


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


def test_a_broken_line_inside_is_passed_over_and_said_with_file_and_line(tmp_path) -> None:
    folder = RunFolder.create(tmp_path)
    folder.add(result("a"))
    folder.add(result("b"))
    lines = folder.metrics.read_bytes().split(b"\n")
    for spoilt in (
        b'{"a": ',
        b"\xff\xfe",
        b"[" * 5000,
        b"7",
        b'{"kind": "train"}',
        b'{"kind": "run", "key": []}',
        b"null",
    ):
        folder.metrics.write_bytes(b"\n".join([*lines[:3], spoilt, *lines[3:]]))
        runs, (note,) = folder.runs()
        assert runs == {"a": result("a"), "b": result("b")}
        assert "metrics.jsonl, line 4: not a record of a run" in note


@pytest.mark.parametrize(
    ("old", "new"), [(b"3.0}", b"3.1}"), (b'"loss": 2.0}, "step_ms"', b'"loss": 2.5}, "step_ms"'), (b"Muon", b"Mvon")]
)
def test_a_changed_digit_is_found_out_and_the_run_done_again(tmp_path, old, new) -> None:
    folder = RunFolder.create(tmp_path)
    for key in ("a", "b"):
        folder.add(result(key))
    assert old in folder.metrics.read_bytes()
    folder.metrics.write_bytes(folder.metrics.read_bytes().replace(old, new, 1))
    runs, (note,) = folder.runs()
    assert list(runs) == ["a", "b"] and "rows of the run a were lost or changed" in note
    notes = []
    assert list(folder.compact(notes.append)) == list(folder.runs()[0]) == ["b"]
    assert notes == [note, "the run a is done again"]


def test_a_row_that_is_there_twice_or_not_at_all_is_found_out(tmp_path) -> None:
    folder = RunFolder.create(tmp_path)
    folder.add(result("a"))
    for file in (folder.metrics, folder.events):
        first, rest = file.read_bytes().split(b"\n", 1)
        for text in (rest, b"\n".join([first, first, rest])):
            kept = file.read_bytes()
            file.write_bytes(text)
            assert folder.rows().damaged == {"a"}
            file.write_bytes(kept)
    assert folder.rows().damaged == set()


def test_one_process_writes_a_folder_and_the_other_is_told_which(tmp_path) -> None:
    folder = RunFolder.create(tmp_path)
    (tmp_path / ".config.yaml.x.partial").write_text("left by one that was killed")
    held = folder.hold(new=True)
    assert os.listdir(tmp_path).count(".lock") == 1 and not list(tmp_path.glob("*.partial"))
    with pytest.raises(RunFolderError, match=rf"being written by another process \(process {os.getpid()} on .*since"):
        RunFolder(tmp_path).hold()
    held.release()
    assert ".lock" not in os.listdir(tmp_path)
    with RunFolder(tmp_path).hold():
        pass
    (tmp_path / ".lock").write_text("process 1, which was killed")
    with RunFolder(tmp_path).hold():
        pass
    folder.config.write_text("kind: train")
    with pytest.raises(RunFolderError, match="already holds a run"):
        folder.hold(new=True)


def remove(path: Path) -> None:
    path.unlink()


def replace(path: Path) -> None:
    write_atomic(path, path.read_text())


def lengthen(path: Path) -> None:
    path.write_text(path.read_text() + "x\n")


def empty(path: Path) -> None:
    path.write_text("")


@pytest.mark.parametrize(
    ("act", "words"),
    [(remove, "was removed"), (replace, "was replaced by another"), (lengthen, "was changed"), (empty, "was changed")],
)
def test_a_file_that_others_touch_is_noticed_at_the_next_row(tmp_path, act, words) -> None:
    folder = RunFolder.create(tmp_path)
    with folder.appended() as files:
        folder.add(result("a"), files)
        act(folder.metrics)
        with pytest.raises(RunFolderError, match=rf"metrics.jsonl {words}.* while it was being written"):
            folder.add(result("b"), files)


def test_a_line_that_the_disk_does_not_take_whole_is_not_there_at_all(tmp_path, monkeypatch) -> None:
    path, write = tmp_path / "rows", os.write
    path.write_text("one\n")

    def full(handle: int, data: bytes) -> int:
        if len(data) < 5:
            raise OSError(28, "No space left on device")
        return write(handle, data[:3])  # a disk that is nearly full takes a part, and says nothing

    with AppendedFile(path) as file:
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space left"):
            file.append("two three\n")
        monkeypatch.undo()
        assert path.read_text() == "one\n"
        file.append("four\n")
        assert path.read_text() == "one\nfour\n"
        expected = {"length": 9, "sha256": hashlib.sha256(b"one\nfour\n").hexdigest()}
        assert file.sync() == expected
        file.cut(4)
        file.append("four\n")
        assert file.sync() == expected


def test_compacting_keeps_finished_runs_and_drops_the_traces_of_others(tmp_path) -> None:
    folder = RunFolder.create(tmp_path)
    folder.add(result("a"))
    clean = folder.metrics.read_text(), folder.events.read_text()
    with folder.metrics.open("a") as file:
        file.write('{"kind": "train", "run": "b", "step": 1, "seconds": 1, "loss": 2}\n{"kind": "tra')
    with folder.events.open("a") as file:
        file.write('{"run": "b", "step": 1, "memory": "m", "surprise": 2}\n')
    notes = []
    assert folder.compact(notes.append) == {"a": result("a")} and "cut short" in notes[0]
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
