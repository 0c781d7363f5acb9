"""What ever failed when files were spoilt, by ``python -m benchmarks.faults`` or by hand: a corpus; and a few more."""

import os
import random
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.faults.loaders import LOADERS
from nestlearn.cli.main import build_entry
from nestlearn.errors import CheckpointError, RunFolderError
from nestlearn.training import RunFolder
from nestlearn.training.checkpoint import load_checkpoint

# Inputs that were no documented error once, by their numbers; and how many others are tried here.
FAILED = {
    "config": (1220, 2267),
    "set": (13, 33, 48, 113, 135),
    "events": (260, 310, 436, 544),
    "checkpoint": (57, 61, 74, 124, 210, 5308, 6820, 8033),
    "resumed-config": (7820,),
    "state": (215, 293, 333, 491),
    "continuum": (258, 313, 1169),
    "stacked": (543, 574, 1669),
}
OTHERS = 12


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name.startswith("resumed") else ()) for name in LOADERS]
)
def test_spoilt_files_are_the_documented_error_or_what_they_were(name, tmp_path) -> None:
    loader = LOADERS[name]
    once = loader.prepare(tmp_path)
    for number in (*FAILED.get(name, ()), *range(10_000, 10_000 + OTHERS)):
        try:
            once(random.Random(f"0/{name}/{number}"))
        except loader.errors as error:
            assert len(str(error)) <= 2000, number


BOMB = "seeds:\n - &a [0,1,2,3,4,5,6,7,8]\n" + "".join(
    f" - &{new} [{','.join([f'*{old}'] * 8)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BOMB, "stands for more than 5,000 values"),
        ("".join(f"k{i}: 1\n" for i in range(20_000)), "holds more than 5,000 values"),
        ("[" * 100_000, "nested deeper than 40 levels"),
        ("a: &x [*x]", "a value holds itself"),
        ("{? [a] : b}", "is no key"),
        ("steps: !!bool maybe", "a value does not fit its tag"),
        ("steps: " + "9" * 5000, "a value does not fit its tag"),
        ("steps: 2001-99-99", "a value does not fit its tag"),
        ("a\0b", "are not YAML"),
        ("a: " + "x" * 300_000, "expected at most 262,144 bytes"),
    ],
)
def test_settings_that_are_none_are_one_line(tmp_path, text, words) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    _one_line(["--config", str(path)], words, tmp_path)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--lr", "inf"], "optimizer.lr: expected a finite number"),
        (["--lr", "1e308"], "optimizer.lr: expected a number that float32 can hold"),
        (["--optimizer", "Muon", "--set", "optimizer.weight_decay=.inf"], "weight_decay: expected a finite number"),
        (["--optimizer", "torch.optim.Adam", "--set", "optimizer.eps=.inf"], "eps: expected a finite number"),
        (["--seeds", "0..99999999999"], "expected at most 10,000 seeds"),
        (["--seeds", "9" * 20], "each below 2**63"),
        (["--set", "threads=100000000"], "threads: expected less than or equal to 1024"),
        (["--set", "steps=1" + "0" * 400], "steps: expected a number below 2**63"),
        (["--device", "meta"], "none to train on"),
        (["--set", "task.hidden=100000000000"], "GB of memory: make it smaller"),
        (["--set", "optimizer.hidden=10000000000"], "the state of DeepMomentum needs"),
        (["--task", "..x:y"], "cannot import the module of the task '..x:y'"),
        (["--task", ":y"], "cannot import the module of the task ':y'"),
        (["--config", "/dev/zero"], "no regular file"),
        (["--set", "\x1b[2J=1"], r"unknown setting"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_training(tmp_path, arguments, words) -> None:
    _one_line(arguments, words, tmp_path)


def _one_line(arguments: list[str], words: str, place: Path) -> None:
    result = CliRunner().invoke(build_entry(), ["train", "--out", str(place / "run"), *arguments])
    assert result.exit_code == 2 and words in result.stderr, result.output
    assert result.output.count("\n") == 1 and len(result.output) < 2100 and "\x1b" not in result.output
    assert not (place / "run").exists()


def test_a_pipe_in_the_place_of_a_file_does_not_block(tmp_path) -> None:
    os.mkfifo(tmp_path / "seed0-step00000001-0123456789abcdef.pt")
    with pytest.raises(CheckpointError, match="it is no regular file"):
        load_checkpoint(tmp_path / "seed0-step00000001-0123456789abcdef.pt")
    folder = RunFolder.create(tmp_path / "run")
    folder.metrics.unlink()
    os.mkfifo(folder.metrics)
    with pytest.raises(RunFolderError, match="it is no regular file"):
        folder.runs()
