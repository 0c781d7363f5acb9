"""Finished run folders without any training, made once for all tests of this folder."""

import json
import shutil
from pathlib import Path

import pytest

from benchmarks.report.made_up import made_up_folder
from nestlearn.report import write_systems
from nestlearn.training import Results, Row, RunFolder

OPTIMIZERS = ("M3", "Momentum", "DeepMomentum")  # AdamW and Muon come along; M3 diverges


@pytest.fixture(scope="session")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A comparison on digits with three seeds. Nobody may write into it."""
    folder = made_up_folder(tmp_path_factory.mktemp("made-up") / "run", OPTIMIZERS, seeds=(0, 1, 2), steps=180)
    write_systems(folder.path)
    return folder


@pytest.fixture
def folder(made_up: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy of it to break."""
    shutil.copytree(made_up.path, tmp_path / "run")
    return RunFolder.open(tmp_path / "run")


@pytest.fixture(scope="session")
def results(made_up: RunFolder) -> Results:
    return Results.from_plain(json.loads(made_up.results.read_text()))


@pytest.fixture(scope="session")
def rows(results: Results) -> list[Row]:
    return list(results.tasks["digits"])
