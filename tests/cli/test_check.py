"""nestlearn check: options, output, files and exit status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from nestlearn.check import CHECKS
from nestlearn.cli.main import build_entry

OWN = """
import torch

class Forgetful(torch.optim.SGD):
    def __init__(self, params, lr=0.1, momentum=0.9):
        super().__init__(params, lr=lr, momentum=momentum)

    def load_state_dict(self, state_dict):
        super().load_state_dict({**state_dict, "state": {}})
"""


def call(*arguments: object) -> Result:
    return CliRunner().invoke(build_entry(), ["check", *map(str, arguments)])


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_optimizers.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)


def test_one_check_runs_with_its_traceback() -> None:
    result = call("own_optimizers:Forgetful", "--set", "lr=0.2", "--only", "round-trip")
    assert result.exit_code == 1
    assert "own_optimizers:Forgetful: 0%, 0 of 1 checks passed" in result.stdout
    assert "nestlearn check own_optimizers:Forgetful --set lr=0.2 --only round-trip" in result.stdout
    assert "def round_trip(subject: Subject) -> None:" in result.stdout
    assert "Traceback" in result.stdout and "AssertionError: after loading, one has" in result.stdout


def test_what_passes_ends_with_status_zero_and_both_files(tmp_path: Path) -> None:
    files = ["--json", tmp_path / "found.json", "--markdown", tmp_path / "found.md"]
    result = call("torch.optim:SGD", "--only", "order", "--only", "maximize", *files)
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["score"], [each["name"] for each in found["checks"]]) == (1.0, ["order", "maximize"])
    assert (tmp_path / "found.md").read_text().startswith("# torch.optim:SGD\n")


def test_the_list_has_every_check(monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = call("--list").stdout.splitlines()
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == list(CHECKS)
    assert max(map(len, lines)) <= 80


@pytest.mark.slow
def test_all_checks_of_one_process_run_in_another() -> None:
    result = call("own_optimizers:Forgetful", "--no-ranks", "--no-hosts")
    failing = [line.split()[1] for line in result.stdout.splitlines() if line.startswith("fail ")]
    assert failing == ["round-trip", "rolled-back", "half-round-trip", "by-name", "nonfinite"]
    assert "order: passed" in result.stderr and "Traceback" not in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected an optimizer as module:Name, such as torch.optim:AdamW"),
        (["AdamW"], "expected an optimizer as module:Name"),
        (["torch.optim:AdamV"], "Did you mean 'Adam"),
        (["torch.optim:AdamW", "--only", "ordr"], "Did you mean 'order'"),
        (["torch.optim:AdamW", "--set", "hiden=3"], "unexpected keyword argument 'hiden'"),
        (["torch.optim:AdamW", "--set", "lr"], "expected key=value"),
        (["torch.optim:AdamW", "--json", "no/where.json"], "there is no folder"),
    ],
)
def test_mistakes_are_one_clear_line(arguments: list[str], message: str) -> None:
    result = call(*arguments)
    assert result.exit_code == 2 and message in result.output and "Traceback" not in result.output
    assert len(result.output.strip().splitlines()) == 1
