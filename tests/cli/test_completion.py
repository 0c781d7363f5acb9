"""What TAB offers is what the registries know, and comes without loading torch."""

import os
import subprocess
import sys

import pytest
import torch

from nestlearn import tasks
from nestlearn.check import CHECKS
from nestlearn.cli import completion
from nestlearn.cli.completion import key_of, list_of, one_of
from nestlearn.comparison import PRESETS, CompareSettings
from nestlearn.contenders import CONTENDERS
from nestlearn.contenders.by_class import optimizer_classes
from nestlearn.training.train_settings import OptimizerSettings, TrainSettings


def test_names_are_those_of_the_registries() -> None:
    assert set(completion.TASKS) == set(tasks.TASKS)
    assert tuple(CONTENDERS) == completion.CONTENDERS
    assert tuple(PRESETS) == completion.PRESETS
    classes = {name.removeprefix("torch.optim.") for name in optimizer_classes() if name.startswith("torch.")}
    ambiguous = {name for name in classes if name in CONTENDERS}
    assert set(completion.TORCH_OPTIMIZERS) == classes - ambiguous
    assert tuple(CHECKS) == completion.CHECKS
    assert all(isinstance(getattr(torch, name), torch.dtype) for name in completion.DTYPES)


def test_keys_are_those_of_the_settings() -> None:
    plain = [name for name in TrainSettings.model_fields if name not in ("kind", "task", "optimizer")]
    nested = ["task.name", *(f"optimizer.{name}" for name in OptimizerSettings.model_fields)]
    assert sorted(completion.TRAIN_KEYS) == sorted(plain + nested)
    assert sorted(completion.COMPARE_KEYS) == sorted(name for name in CompareSettings.model_fields if name != "kind")


def test_one_name_several_names_and_keys() -> None:
    assert one_of(["Muon", "M3", "Adam"])("M") == ["Muon", "M3"]
    assert list_of(["Muon", "M3", "Adam"])("") == ["Muon", "M3", "Adam"]
    assert list_of(["Muon", "M3", "Adam"])("Muon,M") == ["Muon,M3"]
    assert list_of(["Muon", "M3"])("x") == []
    assert key_of(["steps", "seeds"])("st") == ["steps="]


def offered(*words: str) -> tuple[list[str], bool]:
    """What a shell gets for these words, the last one incomplete; and whether torch was loaded for it."""
    program = (
        "import atexit, sys; from nestlearn.cli.main import main; sys.argv[0] = 'nestlearn'; "
        "atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr)); main()"
    )
    line = {"COMP_WORDS": " ".join(["nestlearn", *words]), "COMP_CWORD": str(len(words))}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "_NESTLEARN_COMPLETE": "complete_bash", **line},
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.stdout.split(), done.stderr.split() == ["True"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["tr"], {"train"}),
        (["train", "--opt"], {"--optimizer"}),
        (["train", "--optimizer", "Mu"], {"Muon"}),
        (["train", "--optimizer", "RM"], {"RMSprop"}),
        (["train", "--task", "r"], {"ravine"}),
        (["compare", "--optimizers", "Muon,Secant"], {"Muon,SecantMomentum"}),
        (["compare", "--preset", "f"], {"full"}),
        (["check", "torch.optim:AdamW", "--only", "round"], {"round-trip"}),
        (["train", "--set", "warm"], {"warmup="}),
        (["train", "--dtype", "float"], {"float32", "float64"}),
    ],
)
@pytest.mark.slow
def test_a_shell_gets_names_at_once(words: list[str], expected: set[str]) -> None:
    assert offered(*words) == (sorted(expected), False)


def test_completion_can_be_installed(tmp_path) -> None:
    program = (
        "import sys; from nestlearn.cli.main import main; "
        "sys.argv = ['nestlearn', '--install-completion', 'bash']; main()"
    )
    home = {"HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **home}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    script = tmp_path / ".bash_completions" / "nestlearn.sh"
    assert "_NESTLEARN_COMPLETE=complete_bash" in script.read_text()
    assert str(script) in (tmp_path / ".bashrc").read_text()
