"""nestlearn generate: from a run folder to text, and a memory that outlives the process."""

import io
import os
import re
import shlex
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from trained_hope import SMALL, nestlearn

from nestlearn.cli.ending import Output
from nestlearn.cli.going_on import Prompt
from nestlearn.cli.shown import visible
from nestlearn.memory.state import mapped
from nestlearn.models import MODELS, ByteTokenizer, load_state, read, save_state
from nestlearn.training.train_settings import find_settings, shipped_settings
from nestlearn.training.trained import load_trained


def test_a_shipped_configuration_trains_what_it_says(run):
    trained = load_trained(run)
    assert trained.steps == 2 and trained.settings.task.others()["network"] == "hope"
    assert [part for part, _ in trained.model.config["blocks"][0]] == ["self_modifying", "continuum"]


def test_text_is_continued_the_same_for_one_seed(run):
    first, again, other = (
        nestlearn("generate", "--run", run, "--prompt", "Fellow", "--tokens", 30, "--seed", seed) for seed in (1, 1, 2)
    )
    assert first.exit_code == 0, first.output
    assert first.output == again.output != other.output
    greedy = nestlearn("generate", "--run", run, "--prompt", "Fellow", "--tokens", 30, "--temperature", 0).output
    model = load_trained(run).model
    expected = model.generate(torch.tensor([list(b"Fellow")]), 30)[0, 6:].tolist()
    assert greedy == visible(bytes(expected).decode(errors="replace")) + "\n"


def test_a_memory_goes_on_after_a_restart_and_takes_in_what_the_user_pipes_in(run, tmp_path, monkeypatch):
    memory = tmp_path / "memory.safetensors"
    common = ("generate", "--run", run, "--state", memory, "--temperature", 0)
    done = nestlearn(*common, "--prompt", "-", "--tokens", 0, input="My fellow citizens of the ")
    assert done.exit_code == 0 and memory.is_file(), done.output
    answer = nestlearn(*common, "--prompt", "Senate", "--tokens", 20).output
    at_once = nestlearn(
        *("generate", "--run", run, "--temperature", 0, "--tokens", 20),
        *("--prompt", "My fellow citizens of the Senate"),
    ).output
    assert answer == at_once


def test_a_long_standard_input_is_read_in_pieces(run, monkeypatch, tmp_path):
    from nestlearn.cli import going_on

    monkeypatch.setattr(going_on, "PIECE", 7)
    memory = tmp_path / "memory.safetensors"
    text = b"It is a great honor to report to you."
    done = nestlearn("generate", "--run", run, "--prompt", "-", "--tokens", 0, "--state", memory, input=text)
    assert done.exit_code == 0, done.output
    trained = load_trained(run).model
    _, state = read(trained, torch.tensor([list(text)]))
    found = load_state(memory, trained)["parts"]["0"]["banks"]
    for name, bank in state["parts"]["0"]["banks"].items():
        for key, tensor in bank["model"].items():
            torch.testing.assert_close(found[name]["model"][key], tensor)


def test_an_interrupted_text_leaves_its_memory(run, tmp_path, monkeypatch):
    from nestlearn.cli import generate_job

    class Impatient(generate_job.TextStream):
        def push(self, token: int) -> str:
            self.count = getattr(self, "count", 0) + 1
            if self.count == 5:
                raise KeyboardInterrupt
            return super().push(token)

    monkeypatch.setattr(generate_job, "TextStream", Impatient)
    memory = tmp_path / "memory.safetensors"
    done = nestlearn("generate", "--run", run, "--prompt", "We", "--tokens", 50, "--state", memory)
    assert done.exit_code == 130 and memory.is_file()


TEXT = bytes(range(33, 127)) * 2 + bytes(range(1, 13))


def stopped_at(monkeypatch: pytest.MonkeyPatch, call: int, ending: str) -> None:
    """Let reading be ended at its so manieth piece of 16 tokens: by a signal, or because the memory has no room."""
    from nestlearn.cli import memory as module

    reads = []

    def read_until(*given: Any, **named: Any) -> Any:
        reads.append(given)
        if len(reads) == call:
            signal.raise_signal(getattr(signal, ending if ending != "full" else "SIGINT"))
        return read(*given, **named)

    def full(*given: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "PIECE", 16)
    monkeypatch.setattr(module, "read", read_until)
    if ending == "full":
        monkeypatch.setattr(module, "save_state", full)


@pytest.mark.usefixtures("in_front")
@pytest.mark.parametrize(("ending", "piped"), [("SIGINT", True), ("SIGTERM", False), ("SIGHUP", True), ("full", False)])
def test_reading_that_was_ended_goes_on_with_the_command_that_is_named(run, tmp_path, monkeypatch, ending, piped):
    """Whatever ends it: what was read is kept or said to be lost, and the named command leads to the same memory."""
    text, file = TEXT if piped else TEXT[:150], tmp_path / "m.st"
    given = {"input": text} if piped else {}
    common = ("generate", "--run", run, "--state", file, "--prompt", "-" if piped else text.decode(), "--tokens", 0)
    stopped_at(monkeypatch, 4, ending)
    done = nestlearn(*common, "--seed", 3, **given)
    monkeypatch.undo()
    kept = ending != "full"
    assert done.exit_code == (130 if kept else 2), done.output
    assert "read 48 bytes of the prompt" in done.output and file.exists() == kept
    before, _, how = done.output.partition("go on with: ")[2].strip().rpartition(" | ")
    words = shlex.split(how)
    begun = 48 if kept else 0
    if piped:
        assert before == f"tail -c +{begun + 1} FILE" and words[words.index("--prompt") + 1] == "-"
    else:
        assert before == "" and words[words.index("--prompt") + 1] == text[begun:].decode()
    assert words[:7] == ["nestlearn", "generate", "--run", str(run), "--state", str(file), "--prompt"]
    assert words[8:] == ["--tokens", "0", "--seed", "3"]
    assert nestlearn(*words[1:], **({"input": text[begun:]} if piped else {})).exit_code == 0
    trained = load_trained(run).model
    _, expected = read(trained, torch.tensor([list(text)]))
    torch.testing.assert_close(load_state(file, trained), expected)


def test_the_rest_of_a_prompt_is_named_where_the_system_knows_it(tmp_path, monkeypatch):
    """A file behind the standard input by its name, a tokenizer's text by its bytes; else FILE and REST."""

    class Pairs:
        vocab_size = 10

        def encode(self, text: str) -> list[int]:
            return list(range(len(text) // 2))

        def decode(self, tokens: list[int]) -> str:
            return whole[: 2 * len(tokens)]

    file, whole = tmp_path / "my letters.txt", "Grüße aus Rom"
    file.write_text(f"Dear {whole}", encoding="utf-8")
    with file.open() as source:
        source.buffer.raw.seek(5)
        monkeypatch.setattr("sys.stdin", source)
        prompt = Prompt("-", ByteTokenizer())
        assert b"".join(map(bytes, prompt.pieces())).decode() == whole
        assert prompt.rest(4) == (f"tail -c +10 '{file}' | ", "-")
        source.buffer.seek(5)
        prompt = Prompt("-", Pairs())
        assert prompt.rest(0) == (f"tail -c +6 '{file}' | ", "-") and list(prompt.pieces()) == [list(range(6))]
        assert prompt.rest(2) == (f"tail -c +{6 + len('Grüß'.encode())} '{file}' | ", "-")
        whole = "another text"
        assert prompt.rest(2) == ("", "REST") and prompt.how_far(2) == "read 2 tokens of the prompt"
    prompt = Prompt("Grüße\n" + "x" * 2000, ByteTokenizer())
    assert prompt.rest(2) == ("tail -c +3 FILE | ", "-")  # no line
    prompt = Prompt("Grüße", ByteTokenizer())
    assert prompt.rest(3) == ("tail -c +4 FILE | ", "-")  # in the middle of a letter
    assert prompt.rest(4) == ("", "ße")
    assert Prompt("a-", ByteTokenizer()).rest(1) == ("tail -c +2 FILE | ", "-")  # which would be the standard input


@pytest.mark.slow
def test_a_memory_is_kept_whatever_happens_and_never_a_worse_one(run, tmp_path, monkeypatch):
    from nestlearn.cli import generate_job
    from nestlearn.cli import memory as module

    file = tmp_path / "m.st"
    common = ("generate", "--run", run, "--state", file, "--tokens", 5)
    assert nestlearn(*common, "--prompt", "We").exit_code == 0
    good = file.read_bytes()

    # Nobody reads what is said: silence, and a memory of what was read.
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(generate_job, "Output", lambda file: Output(Gone()))
    done = nestlearn(*common, "--prompt", "We")
    assert (done.exit_code, done.output) == (0, "") and file.read_bytes() != good
    monkeypatch.undo()
    # What is said has no room: an error, with the command that goes on.
    with open("/dev/full", "w") as full_disk:
        monkeypatch.setattr(generate_job, "Output", lambda file: Output(full_disk))
        done = nestlearn(*common, "--prompt", "We")
    monkeypatch.undo()
    assert done.exit_code == 2 and "No space left" in done.output and f"what was read is in {file}; " in done.output
    assert f"go on with: nestlearn generate --run {run} --state {file} --prompt TEXT --tokens 5" in done.output
    # A mistake while it generates.
    monkeypatch.setattr(generate_job.TextStream, "push", lambda self, token: 1 // 0)
    kept = file.read_bytes()
    assert isinstance(nestlearn(*common, "--prompt", "We").exception, ZeroDivisionError)
    assert file.read_bytes() != kept
    monkeypatch.undo()
    # What cannot be written, or should not be, leaves what was there.
    kept = file.read_bytes()

    def full(*given: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "save_state", full)
    done = nestlearn(*common, "--prompt", "We")
    assert done.exit_code == 2 and "No space left on device; what was there before is left" in done.output
    assert f"go on with: nestlearn generate --run {run} --state {file} --prompt We --tokens 5" in done.output
    monkeypatch.undo()

    def spoil(*given, **named):
        logits, state = read(*given, **named)
        return logits, mapped(lambda held: held * torch.nan if held.is_floating_point() else held, state)

    monkeypatch.setattr(module, "read", spoil)
    done = nestlearn("generate", "--run", run, "--state", file, "--prompt", "We", "--tokens", 0)
    assert done.exit_code == 2 and "not finite" in done.output and file.read_bytes() == kept


def test_a_place_that_cannot_be_written_is_said_before_anything_is_read(run, tmp_path):
    (tmp_path / "folder").mkdir()
    for place, message in [("none/m.st", "there is no folder"), ("folder", "it is a folder")]:
        done = nestlearn("generate", "--run", run, "--prompt", "-", "--state", tmp_path / place, input="never read")
        assert done.exit_code == 2 and message in " ".join(done.output.split())


def test_several_prompts_are_continued_side_by_side(run, tmp_path):
    common = ("generate", "--run", run, "--temperature", 0, "--tokens", 9)
    alone = [nestlearn(*common, "--prompt", prompt).output for prompt in ("We", "My fellow citizens")]
    file = tmp_path / "two.st"
    done = nestlearn(*common, "--prompt", "We", "--prompt", "My fellow citizens", "--state", file)
    assert done.output == "\n".join(f"[{number}] {text}" for number, text in enumerate(alone, 1))
    assert load_state(file, load_trained(run).model, batch_size=2)
    assert "one prompt" in nestlearn(*common, "--prompt", "-", "--prompt", "x").output


@pytest.mark.slow
def test_a_text_ends_before_its_stop(run):
    common = ("generate", "--run", run, "--prompt", "We", "--seed", 1, "--tokens", 40)
    whole = nestlearn(*common).output
    stop = whole[12:14]
    assert nestlearn(*common, "--stop", stop).output == whole[: whole.index(stop)] + "\n"
    for option, value, message in [
        ("stop", "", "a text, got an empty"),
        ("top-p", 0, "more than 0"),
        ("temperature", "inf", "a number of at least 0"),
    ]:
        done = nestlearn(*common, f"--{option}", value)
        assert done.exit_code == 2 and message in done.output


def test_a_prompt_in_any_encoding_is_the_bytes_that_it_is(run):
    common = ("generate", "--run", run, "--temperature", 0, "--tokens", 9)
    latin = os.fsdecode("Grüße".encode("latin-1"))
    piped = nestlearn(*common, "--prompt", "-", input="Grüße".encode("latin-1"))
    assert nestlearn(*common, "--prompt", latin).output == piped.output


def test_a_comparison_has_nobody_to_talk_to(tmp_path):
    (tmp_path / "config.yaml").write_text("kind: compare\n")
    done = nestlearn("generate", "--run", tmp_path, "--prompt", "x")
    assert done.exit_code == 2 and "keeps no network to talk to: expected a folder of `nestlearn train`" in done.output


def test_what_cannot_be_done_is_said(run, tmp_path):
    def failed(*arguments: object) -> str:
        done = nestlearn("generate", *arguments)
        assert done.exit_code == 2
        return " ".join(done.output.split())

    assert "is not a run folder" in failed("--run", tmp_path, "--prompt", "x")
    assert "expected a prompt of at least one token" in failed("--run", run)
    assert "expected one of the seeds [0]" in failed("--run", run, "--prompt", "x", "--run-seed", 3)
    (tmp_path / "broken").write_text("x")
    assert "cannot read the state" in failed("--run", run, "--prompt", "x", "--state", tmp_path / "broken")
    other = tmp_path / "digits"
    assert nestlearn("train", "--quiet", "--steps", 1, "--out", other, "--set", "points=1").exit_code == 0
    assert "is no language model: expected a run of the task speeches or text" in failed(
        "--run", other, "--prompt", "x"
    )


def test_a_checkpoint_or_a_memory_of_another_architecture_is_said(run, tmp_path):
    """With what was expected and what came."""
    wide, memory = tmp_path / "wide", tmp_path / "memory.safetensors"
    shutil.copytree(run, wide)
    kept = (wide / "model.json").read_text()
    assert '"dim": 16' in kept
    (wide / "model.json").write_text(kept.replace('"dim": 16', '"dim": 32'))
    done = nestlearn("generate", "--run", wide, "--prompt", "x")
    said = " ".join(done.output.split())
    assert done.exit_code == 2 and "does not fit its task" in said
    assert "embedding.weight: copying a param with shape torch.Size([256, 16])" in said
    assert "current model is torch.Size([256, 32])" in said
    other = MODELS["hope"](256, 32, 1, 2)
    save_state(other.initial_state(1), memory, other)
    done = nestlearn("generate", "--run", run, "--prompt", "x", "--state", memory)
    said = " ".join(done.output.split())
    assert done.exit_code == 2 and "dim: expected 16, got 32" in said


def test_a_file_of_the_user_comes_before_a_shipped_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_settings(Path("hope")) == shipped_settings()["hope"]
    Path("hope").write_text("steps: 1\n")
    assert find_settings(Path("hope")) == Path("hope")
    with pytest.raises(ValueError, match=re.escape("shipped settings hope, hope-tiny. Did you mean 'hope'?")):
        find_settings(Path("hop"))
    assert find_settings(Path("mine.yaml")) == Path("mine.yaml")


OWN = """
import torch
from torch.nn.functional import cross_entropy

import nestlearn as nl


def task():
    model = nl.models.transformer({size}, 16, 1, 2)
    model.tokenizer = {tokenizer!r}
    batches = [torch.randint({size}, (2, 9)) for _ in range(12)]
    return model, batches, lambda model, batch: cross_entropy(model(batch[:, :-1]).transpose(1, 2), batch[:, 1:])
"""


@pytest.mark.parametrize("tokenizer", [None, pytest.param("words.json", marks=pytest.mark.slow)])
def test_a_model_of_a_task_of_ones_own_generates_where_neither_task_nor_words_are(tmp_path, monkeypatch, tokenizer):
    """In its own words, and those that it has besides as replacement characters."""
    name = f"own_{tokenizer is None}".lower()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    library = Tokenizer(models.WordLevel({"hello": 0, "world": 5}, unk_token="hello"))
    library.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    library.save("words.json")
    Path(f"{name}.py").write_text(OWN.format(size=300 if tokenizer is None else 6, tokenizer=tokenizer))
    done = nestlearn("train", "--quiet", "--task", f"{name}:task", "--steps", 1, "--out", "run", "--set", "points=1")
    assert done.exit_code == 0, done.output
    Path(f"{name}.py").unlink()
    Path("words.json").unlink()
    Path("run").rename("moved")
    done = nestlearn("generate", "--run", "moved", "--prompt", "hello world", "--tokens", 60, "--temperature", 9)
    assert done.exit_code == 0, done.output
    if tokenizer is None:
        assert "knows 300 tokens, the tokenizer 256; others are shown as \ufffd" in done.stderr
    else:
        assert done.stderr == "" and set(done.output.replace("\ufffd", " ").split()) == {"hello", "world"}
    assert "\ufffd" in done.stdout  # numbers without a word


@pytest.mark.slow
def test_the_network_that_the_speeches_have_by_default_generates_and_remembers(tmp_path):
    folder, memory = tmp_path / "run", tmp_path / "memory.safetensors"
    assignments = [word for each in (*SMALL, "task.network=transformer") for word in ("--set", each)]
    done = nestlearn("train", "--task", "speeches", "--quiet", "--out", folder, *assignments)
    assert done.exit_code == 0, done.output
    common = ("generate", "--run", folder, "--temperature", 0)
    assert nestlearn(*common, "--prompt", "My fell", "--tokens", 0, "--state", memory).exit_code == 0
    on = nestlearn(*common, "--prompt", "ows", "--tokens", 20, "--state", memory)
    assert on.exit_code == 0, on.output
    assert on.output == nestlearn(*common, "--prompt", "My fellows", "--tokens", 20).output
