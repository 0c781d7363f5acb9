"""nestlearn chat: lines in, lines out, and a memory of them."""

import errno
import io
import os
import shlex

import torch
from trained_hope import nestlearn

from nestlearn.cli import chat_job
from nestlearn.cli.ending import Output
from nestlearn.models import load_state, read
from nestlearn.training.trained import load_trained


def test_lines_are_answered_and_remembered_until_they_are_to_be_forgotten(run, tmp_path):
    file = tmp_path / "chat.st"
    common = ("chat", "--run", run, "--state", file, "--tokens", 8, "--temperature", 0)
    first = nestlearn(*common, input="Good morning\n/state\n/surprise\n/nonsense\n")
    assert first.exit_code == 0, first.output
    trained = load_trained(run).model
    answer = trained.generate(torch.tensor([list(b"Good morning\n")]), 8, return_state=True)
    torch.testing.assert_close(load_state(file, trained), answer[1])
    assert "21 tokens were read; the memory has" in first.output
    assert "expected one of /forget, /state, /surprise, /quit, got /nonsense" in first.output
    with torch.no_grad():
        likely = trained(torch.tensor([list(b"Good morning\n")]))[0, :-1].double().log_softmax(-1)
    told = -likely.gather(-1, torch.tensor(list(b"ood morning\n")).unsqueeze(-1)).mean()
    assert f"{told:.2f} nats a token of the last line" in first.output
    # Another day it goes on from there.
    second = nestlearn(*common, input="And you?\n/quit\nnever read\n")
    assert f"it goes on from {file}" in second.output and "never read" not in second.output
    expected = trained.generate(torch.tensor([list(b"And you?\n")]), 8, state=answer[1], return_state=True)
    torch.testing.assert_close(load_state(file, trained), expected[1])
    assert "nothing was read" in nestlearn(*common, input="/forget\n/state\n").output and not file.exists()


def test_a_conversation_that_is_interrupted_keeps_what_was_said(run, tmp_path, monkeypatch):
    from nestlearn.cli import chat_job

    def lines():
        yield "Hello"
        raise KeyboardInterrupt

    monkeypatch.setattr(chat_job, "_lines", lines)
    file = tmp_path / "chat.st"
    how = ("--tokens", "2", "--temperature", "0.5", "--stop", "\\n")
    done = nestlearn("chat", "--run", run, "--state", file, *how)
    assert done.exit_code == 130
    again = shlex.join(["nestlearn", "chat", "--run", str(run), "--state", str(file), *how])
    assert f"what was said is in {file}; go on with: {again}" in done.output
    trained = load_trained(run).model
    assert read(trained, torch.tensor([[72]]), load_state(file, trained))


def test_an_output_that_takes_nothing_ends_the_talk_with_an_error_and_keeps_what_was_said(run, tmp_path, monkeypatch):
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(chat_job, "Output", lambda file: Output(Full()))
    file = tmp_path / "chat.st"
    done = nestlearn("chat", "--run", run, "--state", file, "--tokens", 4, input="Good morning\nnever read\n")
    assert done.exit_code == 2 and f"No space left on device; what was said is in {file}" in done.output
    assert load_state(file, load_trained(run).model)
    done = nestlearn("chat", "--run", run, "--state", tmp_path / "none.st", input="/state\n")
    assert done.exit_code == 2 and "what was said" not in done.output
