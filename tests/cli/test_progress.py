"""Progress on terminals of any width: steps and the time that is left are whole, what is said has room or is not."""

import io
import re
from types import SimpleNamespace as Held

import pytest
from rich.console import Console

from nestlearn.cli.ending import begun
from nestlearn.cli.progress import show_progress, show_training
from nestlearn.cli.width import message


def terminal(width: int) -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(file=file, force_terminal=True, width=width, color_system=None, legacy_windows=False), file


def last_line(file: io.StringIO) -> str:
    lines = re.sub(r"\x1b\[[?\d;]*[A-Za-z]|\r", "\n", file.getvalue()).split("\n")
    return [line for line in lines if "left" in line][-1].rstrip()


@pytest.mark.parametrize(
    ("width", "said"), [(60, ""), (80, "validation 2.3457"), (140, "training loss 1.2346, validation")]
)
def test_the_time_left_of_a_training_is_whole(width, said):
    console, file = terminal(width)
    training = Held(
        spec=Held(seed=0), steps_taken=1000, train=[Held(loss=1.23456)], curve=[Held(loss=2.34567)], done=False
    )
    with show_training(console, Held(steps=20_000, seeds=(0, 1))) as show:
        assert "step     0 of 20000" in file.getvalue(), "the bar is there before the first row is"
        for _ in range(2):
            training.steps_taken += 1000
            show(training)
    line = last_line(file)
    assert len(line) <= width and line.startswith("seed 0 step  3000 of 20000")
    assert re.search(r"\d:\d\d:\d\d left (\d:\d\d:\d\d|-:--:--)", line) and said in line


def test_the_time_left_of_a_comparison_is_whole():
    result = Held(
        status="finished", score=1.23456, task="delayed-gradients", variant="PreconditionedMomentum (control)"
    )
    for width, said in [
        (80, "1.2346"),
        (120, "PreconditionedMomentum (control): 1.2346"),
        (200, "validation loss 1.2346"),
    ]:
        console, file = terminal(width)
        with show_progress(console) as show:
            for _ in range(3):
                show(result, False, 65)
        line = last_line(file)
        assert len(line) <= width and "   3 of 65 runs" in line and line.endswith(said)
        assert re.search(r"\d:\d\d:\d\d left (\d:\d\d:\d\d|-:--:--)", line)


def test_a_message_is_in_whole_words_and_its_command_in_one_line(monkeypatch, capsys):
    text = (
        "interrupted, nothing is lost; continue with: nestlearn train --resume runs/a-rather-long-name-of-a-folder-2026"
    )
    lines = message(text, 60).splitlines()
    assert lines == [text.partition(": ")[0] + ":", "  " + text.partition(": ")[2]]
    assert message("word " * 30, 40).splitlines()[0] == ("word " * 8).rstrip()
    begun("train")
    assert capsys.readouterr().err == "", "no terminal, no line"
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    begun("train")
    assert capsys.readouterr().err == "nestlearn train: getting ready\n"
