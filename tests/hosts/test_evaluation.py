"""``nestlearn eval`` with the real lm-eval: its scores are those that the models' own probabilities give."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from every_model import model
from needed import needs
from tiny_llama import tiny_llama
from trained_hope import nestlearn, train_hope

import nestlearn as nl
from nestlearn.errors import SettingsError
from nestlearn.training import load_trained

QUESTIONS = [("aaa then", [" a", " zz", " q!"], 0), ("one and", [" three", " two"], 1), ("Ü", ["b", "c", "d"], 2)]
CHOICES = """\
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
target_delimiter: ""
"""
KINDS = {
    "letters": "output_type: multiple_choice\ndoc_to_text: text\ndoc_to_choice: choices\ndoc_to_target: answer\n"
    "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n",
    "bits": "output_type: loglikelihood_rolling\ndoc_to_text: ''\ndoc_to_target: text\n"
    "metric_list: [{metric: bits_per_byte, aggregation: bits_per_byte, higher_is_better: false}]\n",
    "goes_on": "output_type: generate_until\ndoc_to_text: text\ndoc_to_target: text\n"
    "generation_kwargs: {until: ['\\n'], max_gen_toks: 3}\n"
    "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]\n",
}

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (datasets,) = needs("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    file = tmp_path / "letters.jsonl"
    rows = [{"text": said, "choices": choices, "answer": right} for said, choices, right in QUESTIONS]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    folder = tmp_path / "tasks"
    folder.mkdir()
    for name, kind in KINDS.items():
        text = CHOICES.format(name=name, file=file) + kind
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder


def log_likelihood(own: Any, before: str, said: str) -> float:
    first, rest = list(before.encode()), list(said.encode())
    with torch.no_grad():
        found = own(torch.tensor([first + rest]))[0].log_softmax(-1)
    return sum(found[len(first) + place - 1, token].item() for place, token in enumerate(rest))


def expected(own: Any) -> dict[str, float]:
    """The share of right answers, and the bits of a byte, one question after the other."""
    best = [
        max(range(len(choices)), key=lambda place: log_likelihood(own, said, choices[place]))
        for said, choices, _ in QUESTIONS
    ]
    nats = -sum(log_likelihood(own, "\n", said) for said, _, _ in QUESTIONS)
    return {
        "letters": sum(found == right for found, (_, _, right) in zip(best, QUESTIONS, strict=True)) / len(QUESTIONS),
        "bits": nats / math.log(2) / sum(len(said.encode()) for said, _, _ in QUESTIONS),
        "goes_on": 0.0,
    }


@pytest.mark.slow
def test_runs_and_folders_of_transformers_are_asked_beside_a_model_that_knows_nothing(
    tasks: Path, tmp_path: Path
) -> None:
    needs("transformers", "lm_eval")
    from nestlearn.models.huggingface import NestlearnForCausalLM, tokenizer_of

    run = train_hope(tmp_path / "run")
    other = model("transformer", torch.float32, vocab_size=256)
    NestlearnForCausalLM.of(other).save_pretrained(tmp_path / "other")
    tokenizer_of().save_pretrained(tmp_path / "other")
    (tmp_path / "text").write_text("a" * 20 + "then", encoding="utf-8")
    options = ("--tasks", "letters,bits,goes_on", "--include", tasks, "--out", tmp_path / "scores.json")
    options = (*options, "--text", tmp_path / "text")
    done = nestlearn("eval", run, tmp_path / "other", *options)
    assert done.exit_code == 0, done.output
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[0] == ["task", "metric", "better", "run", "other", "uniform", "unigrams"] and len(lines) == 4
    assert lines[1][:3] == ["bits", "bits_per_byte", "less"] and lines[1][-2] == "8"
    held = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    for name, own in (("run", load_trained(run).model), ("other", other)):
        found = {score["task"]: score["value"] for score in held["scores"][name]}
        assert found == pytest.approx(expected(own), abs=1e-4)
    # Of equally likely tokens the fewest are the likeliest answer.
    shortest = sum(min(choices, key=len) == choices[right] for _, choices, right in QUESTIONS) / len(QUESTIONS)
    found = {score["task"]: score["value"] for score in held["scores"]["uniform"]}
    assert found == {"letters": shortest, "bits": pytest.approx(8), "goes_on": 0}
    counts = Counter(b"a" * 20 + b"then")
    told = "".join(said for said, _, _ in QUESTIONS).encode()
    bits = -sum(math.log2((counts[letter] + 1) / (24 + 256)) for letter in told) / len(told)
    found = {score["task"]: score["value"] for score in held["scores"]["unigrams"]}
    assert found["bits"] == pytest.approx(bits, abs=1e-4)


LEARNS = {"periods": 2, "inner_lr": 300.0, "blocks": 2, "writer": nl.rules.gradient()}


def stacked_folder(folder: Path, **settings: Any) -> nl.models.Continuum:
    """A folder with a tiny random Llama that reads bytes, and its memory."""
    needs("transformers")
    from nestlearn.models.huggingface import tokenizer_of

    continuum = nl.models.add_continuum(tiny_llama(256), **{**LEARNS, **settings})
    continuum.save_pretrained(folder, tokenizer_of())
    return continuum


def scores(*arguments: object) -> dict[str, dict[str, float]]:
    """The values of each model, by task; the file is the last argument."""
    done = nestlearn("eval", *arguments)
    assert done.exit_code == 0, done.output
    held = json.loads(Path(str(arguments[-1])).read_text(encoding="utf-8"))
    assert held["models"].keys() == held["scores"].keys()
    return {name: {score["task"]: score["value"] for score in found} for name, found in held["scores"].items()}


@pytest.mark.slow
def test_a_stacked_model_learns_within_a_question_and_is_asked_frozen_too(tasks: Path, tmp_path: Path) -> None:
    needs("transformers", "lm_eval")
    from nestlearn.models.huggingface import tokenizer_of

    continuum = stacked_folder(tmp_path / "mine")
    stacked_folder(tmp_path / "still", inner_lr=0.0)

    def asked(tokens: Any) -> Any:
        continuum.reset()
        return continuum.model(tokens).logits

    def says(said: str) -> str:
        """What it answers to a question that it is asked alone."""
        tokens = torch.tensor([list(said.encode())])
        continuum.reset()
        made = continuum.model.generate(tokens, max_new_tokens=6, do_sample=False, pad_token_id=0)
        text: str = tokenizer_of().decode(made[0, tokens.shape[1] :], skip_special_tokens=True)
        return text.split("\n")[0]

    rows = [{"text": said, "answer": says(said)} for said, _, _ in QUESTIONS]
    (tmp_path / "says.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    task = CHOICES.format(name="says", file=tmp_path / "says.jsonl") + KINDS["goes_on"].replace(
        "text\ngen", "answer\ngen"
    )
    (tasks / "says.yaml").write_text(task.replace("gen_toks: 3", "gen_toks: 6"), encoding="utf-8")
    found = scores(
        *(tmp_path / "mine", tmp_path / "still", "--tasks", "letters,bits,says", "--include", tasks),
        *("--no-uniform", "--out", tmp_path / "scores.json"),
    )
    assert list(found) == ["mine", "mine, frozen", "still", "still, frozen"]
    wanted = expected(asked)
    assert found["mine"] == pytest.approx({"letters": wanted["letters"], "bits": wanted["bits"], "says": 1}, abs=1e-4)
    assert found["mine, frozen"] == found["still"] == found["still, frozen"]
    assert abs(found["mine"]["bits"] - found["still"]["bits"]) > 0.01 and found["still"]["says"] < 1
    continuum.reset()
    nats = 0.0
    for said, _, _ in QUESTIONS:
        nats += continuum.read(torch.tensor([list(f"\n{said}".encode())])).sum().item()
        continuum.reset()
    assert found["mine"]["bits"] == pytest.approx(
        nats / math.log(2) / sum(len(said.encode()) for said, _, _ in QUESTIONS), abs=1e-4
    )


@pytest.mark.slow
def test_what_a_stacked_model_has_read_is_asked_without_being_changed(tasks: Path, tmp_path: Path) -> None:
    needs("transformers", "lm_eval")
    from nestlearn.integrations.evaluation import evaluate
    from nestlearn.models.huggingface import tokenizer_of

    continuum = stacked_folder(tmp_path / "mine")
    continuum.read(torch.tensor([list(b"aaa then and three two one and")]))
    continuum.save(tmp_path / "state")
    arguments = (tmp_path / "mine", "--tasks", "letters,bits", "--include", tasks, "--no-uniform")
    found = scores(*arguments, "--state", tmp_path / "state", "--out", tmp_path / "scores.json")
    with continuum.paused():
        wanted = expected(lambda tokens: continuum.model(tokens).logits)
        assert found["mine"] == pytest.approx({task: wanted[task] for task in ("letters", "bits")}, abs=1e-4)
    assert abs(found["mine"]["bits"] - found["mine, frozen"]["bits"]) > 0.01
    with pytest.raises(ValueError, match="in the middle of a text"):
        evaluate(continuum.model, tokenizer_of(), ["letters"], include=tasks)
    continuum.reset()
    continuum.read(torch.tensor([list(b"two"), list(b"one")]))
    with continuum.paused(), pytest.raises(ValueError, match="expected the state of one, got 2"):
        evaluate(continuum.model, tokenizer_of(), ["letters"], include=tasks)
    continuum.save(tmp_path / "two")
    done = nestlearn("eval", *arguments, "--state", tmp_path / "two")
    assert done.exit_code == 2 and "2 were read side by side" in " ".join(done.output.split())


def test_a_state_is_for_one_stacked_model_with_a_tokenizer(tmp_path: Path) -> None:
    def refused(*arguments: object) -> str:
        done = nestlearn("eval", *arguments, "--tasks", "letters")
        assert done.exit_code == 2, done.output
        return " ".join(done.output.split())

    nl.models.add_continuum(tiny_llama(256), blocks=1).save_pretrained(tmp_path / "mine")
    assert "holds no tokenizer" in refused(tmp_path / "mine")
    (tmp_path / "mine" / "continuum.json").write_text('{"period": 3}')
    assert "unknown setting 'period'" in refused(tmp_path / "mine")
    assert "--state: there is no file" in refused(tmp_path / "mine", "--state", tmp_path / "state")
    (tmp_path / "state").write_bytes(b"")
    assert "one folder with a continuum.json, got 2" in refused(
        tmp_path / "mine", tmp_path / "mine", "--state", tmp_path / "state"
    )


@pytest.mark.slow
def test_what_cannot_be_asked_is_said(tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, lm_eval = needs("transformers", "lm_eval.tasks")
    manager = lm_eval.TaskManager  # its own tasks are thousands of files, which nobody asks for here
    monkeypatch.setattr(lm_eval, "TaskManager", lambda **given: manager(**given | {"include_defaults": False}))
    from nestlearn.integrations.evaluation import evaluate
    from nestlearn.models.huggingface import NestlearnForCausalLM, tokenizer_of

    given = NestlearnForCausalLM.of(nl.models.transformer(256, 8, 1, 2)), tokenizer_of()
    with pytest.raises(SettingsError, match="unknown task 'leters'"):
        evaluate(*given, ["leters"], include=tasks)
    with pytest.raises(SettingsError, match="no folder: expected one with the YAML files"):
        evaluate(*given, ["letters"], include=tmp_path / "none")
    (tmp_path / "letters.jsonl").unlink()
    with pytest.raises(SettingsError, match="the tasks letters cannot be had: Unable to find"):
        evaluate(*given, ["letters"], include=tasks)
    done = nestlearn("eval", tmp_path, "--tasks", "letters")
    assert done.exit_code == 2 and "holds no model: expected a folder of `nestlearn train`" in " ".join(
        done.output.split()
    )


def test_code_in_a_folder_is_not_run_whoever_says_yes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("transformers", "lm_eval", "datasets")
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n")
    told = {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": told}))
    done = nestlearn("eval", tmp_path, "--tasks", "letters")
    assert done.exit_code == 2 and "cannot load the model" in done.output
    assert not (tmp_path / "ran").exists()


def test_a_run_of_another_network_says_which_one_can_be_asked(tmp_path: Path) -> None:
    needs("transformers")
    sizes = ("task.network=transformer", "task.dim=8", "task.heads=2", "task.depth=1", "task.context=16", "steps=1")
    sizes = (*sizes, "points=1", "task.validation_windows=1", "task.test_windows=1")
    done = nestlearn("train", "--task", "speeches", "--out", tmp_path / "run", *(f"--set={each}" for each in sizes))
    assert done.exit_code == 0, done.output
    done = nestlearn("eval", tmp_path / "run", "--tasks", "letters")
    said = " ".join(done.output.split())
    assert done.exit_code == 2 and "got one of a ByteTransformer, which has learned positions for 16 tokens" in said
    assert "--set task.network=rotary" in said


def test_without_lm_eval_the_message_has_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from nestlearn.integrations.evaluation import evaluate

    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(nl.errors.MissingPackageError, match=r'pip install "nestlearn\[eval\]"'):
        evaluate(None, None, ["letters"])
