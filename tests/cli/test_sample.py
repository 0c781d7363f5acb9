"""What ``nestlearn train`` says of the time that it takes, and what its model says at the end."""

import re
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from nestlearn.cli import sample
from nestlearn.cli.main import build_entry
from nestlearn.cli.sample import expected_time, readable_time

SMALL = ("task.dim=16", "task.heads=2", "task.depth=1", "task.context=8", "task.batch=2", "points=1")
SMALL = (*SMALL, "task.validation_windows=2", "task.test_windows=2", "rows=1")


class Clock:
    """Steps of two seconds, the first of nine; what it has not collected is not known."""

    def __init__(self):
        self.marks, self.seconds = [], 0.0

    def collect(self):
        self.seconds += sum(self.marks)
        self.marks.clear()


@pytest.mark.parametrize(("step", "told_at"), [(0.01, 4), (2.5, 2)])
def test_the_expected_time_is_that_of_the_first_steps_but_the_very_first(step, told_at):
    training = SimpleNamespace(spec=SimpleNamespace(steps=100), clock=Clock(), steps_taken=0, done=False)
    told = []
    after = expected_time(training, 3, lambda words: told.append((training.steps_taken, words)))
    for number in range(1, 11):
        training.steps_taken, training.done = number, number == 10
        training.clock.marks.append(9.0 if number == 1 else step)
        after()
    ((when, words),) = told
    assert when == told_at
    assert words.startswith(f"about {readable_time(step * (300 - told_at))} to go: {1e3 * step:.3g} ms a step")


def test_a_run_that_is_over_before_it_is_known_says_nothing():
    training = SimpleNamespace(spec=SimpleNamespace(steps=2), clock=Clock(), steps_taken=2, done=True)
    expected_time(training, 1, pytest.fail)()


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.1, "1 s"), (99, "99 s"), (100, "2 min"), (5900, "98 min"), (7800, "2 h 10 min")]
)
def test_seconds_are_said_as_people_do(seconds, words):
    assert readable_time(seconds) == words


@pytest.mark.parametrize("network", ["transformer", "hope"])
def test_a_language_model_continues_the_held_out_text_at_the_end(tmp_path, monkeypatch, network):
    monkeypatch.setattr(sample, "PATIENCE", 1000.0)
    monkeypatch.setattr(sample, "TOKENS", 30)
    text = tmp_path / "text"
    text.write_bytes(b"".join(b"%03d " % number for number in range(400)))
    given = [*SMALL, f"task.files={text}", f"task.network={network}", "steps=2"]
    command = ["train", "--task", "text", "--out", str(tmp_path / "run"), "--optimizer", "torch.optim.SGD"]
    done = CliRunner().invoke(build_entry(), [*command, *(word for each in given for word in ("--set", each))])
    assert done.exit_code == 0, done.output
    (said,) = re.findall(r"after '(.*?)' it goes on:\n\n(.+?)\nmore of it: nestlearn generate --run", done.output, re.S)
    assert said[0] == "090 091 092 093 094 095 096 097 "[: len(said[0])] and len(said[0]) == 9
    assert len(said[1]) >= 30 and all(c.isprintable() or c in "\n\t" for c in said[1])
