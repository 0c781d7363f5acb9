"""``nestlearn inspect``: levels, bytes and FLOPs before anything is trained, without the memory to train it."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner, Result

import nestlearn as nl
from nestlearn.cli.main import build_entry
from nestlearn.descriptions import NestedSystem
from nestlearn.descriptions.table import as_text
from nestlearn.precision import products
from nestlearn.tasks import make_task

OWN = """
import torch
from torch import nn

def small():
    return nn.Sequential(nn.Embedding(10, 6), nn.Linear(6, 6), nn.Linear(6, 4))

def stubborn():
    return nn.Linear(3, 3, device="cpu")

def nothing():
    return 3
"""


def call(*arguments: object) -> Result:
    return CliRunner().invoke(build_entry(), ["inspect", *map(str, arguments)])


def as_json(*arguments: object) -> dict:
    result = call(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own_models.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield "own_models"
    sys.modules.pop("own_models", None)


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=str)
def either_precision(request: pytest.FixtureRequest) -> Iterator[None]:
    """Newton-Schulz takes other products in bfloat16 than in float32."""
    with products(request.param):
        yield


@pytest.mark.slow
def test_what_ranks_would_do_is_known_before(own: str) -> None:
    """Three matrices of one shape and two that are smaller, on three ranks: by hand."""
    Path(f"{own}.py").write_text(
        "from torch import nn\ndef build():\n"
        "    return nn.ModuleList(nn.Linear(one, two, bias=False) for one, two in [(8, 8)] * 3 + [(4, 8), (8, 4)])\n"
    )
    arguments = ("--model", f"{own}:build", "--optimizer", "Muon", "--ranks", 3)
    found = as_json(*arguments)
    loads = found["ranks"]
    assert [load["matrices"] for load in loads] == [2, 2, 1]
    assert sum(load["flops"] for load in loads) == pytest.approx(found["step_flops"])
    assert sum(load["state_bytes"] for load in loads) == found["state_bytes"]
    weights = 4 * (3 * 64 + 2 * 32)
    assert sum(load["sent_bytes"] for load in loads) == pytest.approx(2 * weights * 2 / 3, rel=0.05)  # rows: 3, 3, 2
    assert "on 3 ranks" in call(*arguments).stdout and "2, 2, 1" in call(*arguments).stdout


def test_fewer_than_one_rank_is_refused() -> None:
    result = call("--task", "digits", "--ranks", -1)
    assert result.exit_code == 2 and "expected at least 1, got -1" in result.output


@pytest.mark.usefixtures("either_precision")
def test_what_is_inspected_is_what_training_would_have() -> None:
    found = as_json("--task", "digits", "--optimizer", "nl.optim.DeepMomentum", "--set", "optimizer.hidden=5")
    task = make_task("digits", {}, "cpu", "float32")
    model = task.build(0)
    optimizer = nl.optim.DeepMomentum(model.named_parameters(), hidden=5)
    with FlopCounterMode(display=False) as counter:
        task.loss(model, next(task.batches(0))).backward()
    assert found["backward_flops"] == counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        optimizer.step()
    assert found["step_flops"] == counter.get_total_flops() > 0
    held = [tensor for state in optimizer.state.values() for tensor in state.values()]
    assert found["state_bytes"] == sum(tensor.numel() * tensor.element_size() for tensor in held)
    entries = sum(parameter.numel() for parameter in model.parameters())
    assert found["adamw_bytes"] == 8 * entries + 4 * len(list(model.parameters()))
    system = NestedSystem.from_dict(found["system"])
    assert system.parameters == entries and "MLP 64-5-64, MLP 10-5-10" in {m.model for m in system.memories}


def test_auto_is_the_device_that_training_would_take() -> None:
    auto = as_json("--task", "digits", "--optimizer", "Muon", "--device", "auto")
    best = "cuda" if torch.cuda.is_available() else "cpu"
    assert auto == as_json("--task", "digits", "--optimizer", "Muon", "--device", best)


def test_the_output_has_the_table_and_the_costs(tmp_path: Path) -> None:
    picture = tmp_path / "nesting.svg"
    result = call("--task", "digits", "--optimizer", "M3", "--set", "task.hidden=32", "--svg", picture)
    assert result.exit_code == 0, result.output
    for words in ("every 10 steps", "1.98 times AdamW's", "FLOP in matrix products, mean of 10 steps", "64 -> 32"):
        assert words in result.output
    assert "M3" in ElementTree.fromstring(picture.read_text(encoding="utf-8")).get("aria-label")


def test_the_output_names_the_paths_that_write() -> None:
    result = call("--task", "digits", "--optimizer", "Muon", "--device", "cpu")
    words = " ".join(result.output.split())
    assert "orthogonal()), batched matrices" in words
    assert "second_moment()), fused by torch" in words
    assert as_json("--task", "digits", "--optimizer", "AdamW")["paths"] == []


def test_a_terminal_of_eighty_columns_has_whole_words_and_numbers(monkeypatch) -> None:
    """Columns are left out, and where that is not enough a row becomes lines: nothing is cut."""
    monkeypatch.setenv("COLUMNS", "80")
    assert max(map(len, call("--task", "digits", "--optimizer", "Muon").output.splitlines())) <= 80
    system = nl.describe(nl.models.hope(256, 16, 2, 2))
    narrow, wide = as_text(system, 80), as_text(system)
    assert max(map(len, narrow.splitlines())) <= 80 < max(map(len, wide.splitlines()))
    assert {word for word in narrow.split() if not word.startswith("---")} <= set(wide.split())


def test_a_pace_slower_than_a_step_is_averaged_over_it() -> None:
    every = as_json("--task", "digits", "--optimizer", "nl.optim.M3", "--set", "optimizer.slow_period=1")
    rarely = as_json("--task", "digits", "--optimizer", "nl.optim.M3", "--set", "optimizer.slow_period=4")
    assert (every["steps"], rarely["steps"]) == (1, 4)
    # Two orthogonalisations a step, and one and a quarter of one.
    assert rarely["step_flops"] == pytest.approx(every["step_flops"] * (1 + 1 / 4) / 2)


def test_settings_come_from_a_file_then_options_then_assignments(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("task: {name: digits, hidden: 8}\noptimizer: {name: Muon, steps: 2}\ndtype: bfloat16\n")
    found = as_json("--config", file, "--set", "task.hidden=16")
    weights = [memory for memory in found["system"]["memories"] if memory["home"] == "weights"]
    assert weights[0]["model"] == "Linear 64 -> 16" and weights[0]["bytes"] == 2 * weights[0]["parameters"]


def test_a_model_alone_has_no_batch_and_that_is_said(own: str) -> None:
    found = as_json("--model", f"{own}:small", "--optimizer", "Muon")
    assert found["backward_flops"] is None and "a model alone has no batch" in found["unknown"][0]
    assert found["step_flops"] > 0
    rest = NestedSystem.from_dict(found["system"]).others[0]
    assert "0" in {memory.name for memory in rest.memories}  # the embedding is no map


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (
            ["--task", "quadratic", "--optimizer", "torch.optim.Adafactor"],
            "the optimizer's step: cannot run on the meta device",
        ),
        (["--task", "quadratic", "--optimizer", "LBFGS"], "the optimizer's step: cannot run on the meta device"),
        (
            ["--task", "digits", "--set", "optimizer.target=hessian"],
            "the optimizer's step: cannot run on the meta device",
        ),
    ],
)
def test_what_cannot_run_without_numbers_is_not_guessed(arguments: list[str], reason: str) -> None:
    found = as_json(*arguments)
    assert found["step_flops"] is None and found["state_bytes"] > 0
    assert [words for words in found["unknown"] if words.startswith(reason)]
    assert f"not known: {reason}" in call(*arguments).output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--optimizer", "Moun"], "Did you mean 'Muon'?"),
        (["--task", "digitz"], "Did you mean 'digits'?"),
        (["--set", "optimizer.hiden=3"], "Did you mean 'hidden'?"),
        (["--set", "optimizer"], "expected key=value"),
        (["--dtype", "float8"], "expected 'float32', 'float64' or 'bfloat16'"),
        (["--device", "tpu9"], "unknown device 'tpu9'"),
        (["--task", "digits", "--model", "own_models:small"], "expected either --task or --model"),
        (["--model", "own_models:missing"], "no function 'missing' for the model"),
        (["--model", "nowhere:small"], "cannot import the module of the model"),
        (["--model", "own_models:nothing"], "to return a torch.nn.Module, got int"),
        (["--model", "own_models:stubborn"], "on a device of its own choice"),
        (["--optimizer", "torch.optim.Muon"], "only supports 2D parameters"),
        (["--config", "missing.yaml"], "cannot read the settings"),
        (["--svg", "own_models.py/nesting.svg"], "error: "),
    ],
)
def test_mistakes_are_one_clear_line(own: str, arguments: list[str], message: str) -> None:
    result = call(*arguments)
    assert result.exit_code == 2 and message in result.output and "Traceback" not in result.output
    assert len(result.output.strip().splitlines()) == 1


@pytest.mark.slow
def test_a_network_that_writes_while_it_reads_is_inspected_with_its_memories() -> None:
    arguments = ["--task", "speeches", "--optimizer", "M3", "--set", "task.network=hope", "--set", "task.dim=16"]
    arguments += ["--set", "task.context=64", "--set", "task.batch=2"]  # a walk through every chunk takes seconds
    arguments += ["--set", "optimizer.slow_period=2"]
    found = as_json(*arguments)
    task = make_task("speeches", {"network": "hope", "dim": 16}, "cpu", "float32")
    state = task.build(0).initial_state(1)
    system = NestedSystem.from_dict(found["system"])
    assert system.sequence_bytes == nl.models.state_bytes(state)
    assert found["steps"] == 2  # M3's slow memory, not the tokens of a block
    output = call(*arguments).output
    assert "every 256 tokens" in output and "of each sequence" in output and found["backward_flops"] > 0


@pytest.mark.slow
def test_nothing_real_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    devices = set()
    build = nn.Linear.__init__

    def watched(self, *arguments: object, **options: object) -> None:
        build(self, *arguments, **options)
        devices.add(self.weight.device.type)

    monkeypatch.setattr(nn.Linear, "__init__", watched)
    as_json("--task", "speeches", "--optimizer", "Muon")
    assert devices == {"meta"}
    assert torch.get_default_device().type == "cpu"
