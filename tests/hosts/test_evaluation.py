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


def test_without_lm_eval_the_message_has_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from nestlearn.integrations.evaluation import evaluate

    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(nl.errors.MissingPackageError, match=r'pip install "nestlearn\[eval\]"'):
        evaluate(None, None, ["letters"])
