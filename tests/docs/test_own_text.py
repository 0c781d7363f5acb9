"""docs/own-text.md: its three commands go from a file to a continued sentence, without the file at the end."""

import shlex

import pytest
from page_code import run_page
from pages import blocks, text
from typer.testing import CliRunner

from nestlearn.cli import sample
from nestlearn.cli.main import build_entry

PAGE = text("docs/own-text.md")
QUICK = ("--steps", "2", "--set", "task.dim=16", "--set", "task.context=16", "--set", "points=1")
LETTER = "Dear friend,\nthank you for the letter.\n" * 60


def commands(number: int) -> list[list[str]]:
    """The words of the nestlearn commands in a block of the page."""
    lines = blocks(PAGE, "bash")[number].splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("nestlearn ")]


def call(*words: str) -> str:
    done = CliRunner().invoke(build_entry(), list(words))
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.slow
def test_three_commands_lead_to_a_sentence_and_the_folder_needs_no_text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sample, "TOKENS", 5)
    (tmp_path / "letters.txt").write_text(LETTER)
    train, generate = commands(0)
    said = call(*train, *QUICK)
    assert "it goes on:" in said and "note: the warm-up of 20 steps is left out, as the run has 2 steps" in said
    (tmp_path / "letters.txt").unlink()
    elsewhere = (tmp_path / "runs" / "letters").rename(tmp_path / "moved")
    generate[generate.index("runs/letters")] = str(elsewhere)
    assert len(call(*generate, "--tokens", "20")) >= 20
    continued = run_page(PAGE, "own-text.md")["continued"]
    assert continued(elsewhere, b"Dear ", 20).startswith(b"Dear ") and len(continued(elsewhere, b"Dear ", 20)) == 25


@pytest.mark.parametrize("command", commands(1) + commands(2), ids=lambda words: words[-1])
def test_every_other_command_inspects_what_it_would_train(command, tmp_path, monkeypatch):
    """The settings are taken, without the training."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    from nestlearn.training import TrainSettings, read_settings, resolve_training
    from nestlearn.training.train_settings import shipped_settings

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    library = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    library.pre_tokenizer = pre_tokenizers.ByteLevel()
    library.save("tokenizer.json")
    for name in ("letters.txt", "a.txt", "novels/one.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(LETTER * 10)
    assert command[0] == "train"
    options = dict(zip(command[1::2], command[2::2], strict=True))
    sets = [value for name, value in zip(command[1::2], command[2::2], strict=True) if name == "--set"]
    file = read_settings(shipped_settings()[options["--config"]])
    sets += ["task.files=a.txt"] if any("b/*" in each for each in sets) else []
    given = {"task": options["--task"], **({"steps": options["--steps"]} if "--steps" in options else {})}
    found = resolve_training(TrainSettings(), file, given, *sets)
    assert found.task.name == "text" and found.task.others()["batch"] == file["task"]["batch"]
