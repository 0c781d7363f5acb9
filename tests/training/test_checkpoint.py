import os
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from sameness import differences

from nestlearn.training.checkpoint import CheckpointError, Checkpoints, load_checkpoint

CONTENT = {"step": 3, "weights": {"a": torch.randn(3, 4), "b": [None, torch.arange(3)]}, "name": "x", "loss": 0.1}


def test_a_checkpoint_comes_back_as_it_was_and_needs_no_trust(tmp_path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints", "seed0")
    path = checkpoints.save(3, CONTENT)
    content, notes = checkpoints.newest()
    assert differences(content, CONTENT) == [] and notes == []
    assert differences(torch.load(path, weights_only=True)["content"], CONTENT) == []


def test_the_newest_two_are_kept_for_each_run(tmp_path) -> None:
    for run in ("seed0", "seed1", "seed10"):
        checkpoints = Checkpoints(tmp_path, run)
        for step in (2, 9, 10):
            checkpoints.save(step, {"step": step})
        assert checkpoints.newest()[0] == {"step": 10}
    names = sorted(path.name.rpartition("-")[0] for path in tmp_path.iterdir())
    assert names == [f"{run}-step{step:08d}" for run in ("seed0", "seed1", "seed10") for step in (9, 10)]


def test_no_checkpoint_is_no_error(tmp_path) -> None:
    assert Checkpoints(tmp_path / "none", "seed0").newest() == (None, [])


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("spoil", [cut, empty, flip])
def test_a_broken_newest_is_passed_over_and_that_is_said(tmp_path, spoil) -> None:
    checkpoints = Checkpoints(tmp_path, "seed0")
    older, newer = checkpoints.save(4, {"step": 4}), checkpoints.save(8, {"step": 8})
    spoil(newer)
    content, (note,) = checkpoints.newest()
    assert content == {"step": 4}
    assert newer.name in note and "cut short or changed" in note and f"Going on from {older.name} instead" in note
    checkpoints.save(8, {"step": 8, "again": True})  # the continued run has come there again
    assert checkpoints.newest() == ({"step": 8, "again": True}, []) and not newer.exists()
    for path in checkpoints.paths():
        spoil(path)
    with pytest.raises(CheckpointError, match="No whole checkpoint of seed0 is left: remove these files"):
        checkpoints.newest()


def named_by_content(path: Path) -> Path:
    """Rename a file so that its name has the sha256 of what it holds: only its content is wrong then."""
    import hashlib

    found = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return path.rename(path.with_name(f"seed0-step00000001-{found}.pt"))


def test_foreign_files_are_refused_by_what_they_hold(tmp_path) -> None:
    torch.save({"model": {}, "epoch": 3}, tmp_path / "foreign")
    with pytest.raises(
        CheckpointError, match=r"is not a checkpoint of a training run, it holds model, epoch\. Expected"
    ):
        load_checkpoint(named_by_content(tmp_path / "foreign"))
    torch.save([1, 2], tmp_path / "list")
    with pytest.raises(CheckpointError, match=r"it holds a list\. Expected"):
        load_checkpoint(named_by_content(tmp_path / "list"))
    (tmp_path / "text").write_text("no pickle")
    with pytest.raises(CheckpointError, match=r"cannot be loaded \(.*\)\. Expected a checkpoint"):
        load_checkpoint(named_by_content(tmp_path / "text"))
    torch.save({"format": "nestlearn checkpoint", "version": 99, "content": {}}, tmp_path / "future")
    with pytest.raises(CheckpointError, match="has version 99, this nestlearn reads 1"):
        load_checkpoint(named_by_content(tmp_path / "future"))
    with pytest.raises(CheckpointError, match=r"cannot read the checkpoint .*: No such file"):
        load_checkpoint(tmp_path / "none.pt")


class Evil:
    def __reduce__(self):
        return (os.system, ("true",))


def test_code_in_a_checkpoint_is_not_run(tmp_path) -> None:
    torch.save(Evil(), tmp_path / "evil")
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load_checkpoint(named_by_content(tmp_path / "evil"))


def test_a_failed_write_leaves_the_old_checkpoints_alone(tmp_path, monkeypatch) -> None:
    checkpoints = Checkpoints(tmp_path, "seed0")
    checkpoints.save(1, {"step": 1})

    def fail(*_: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", fail)
        with pytest.raises(OSError, match="disk full"):
            checkpoints.save(2, {"step": 2})
    assert checkpoints.newest() == ({"step": 1}, [])
    checkpoints.save(3, {"step": 3})
    assert not list(tmp_path.glob(".*")), "the unfinished file of the failed write is still there"


def test_those_that_are_kept_besides_the_newest_two_are_spread_over_the_run(tmp_path) -> None:
    checkpoints = Checkpoints(tmp_path, "seed0", most=5)
    for step in range(0, 101, 10):
        checkpoints.save(step, {})
        assert len(checkpoints.steps()) <= 5
    kept = checkpoints.steps()
    assert kept[0] == 0 and kept[-2:] == [90, 100]
    assert max(late - early for early, late in pairwise(kept)) <= 50
    file = checkpoints.at(90)
    assert file is not None and "step00000090" in file.name and checkpoints.at(55) is None
