"""Runs on two ranks, which torchrun starts: the losses of one process, with one file for any number of ranks."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from rank_training import CASES
from typer.testing import CliRunner

from nestlearn.cli.main import build_entry

TESTS = Path(__file__).parents[1]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="ranks meet through gloo"),
]


def torchrun(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", *map(str, arguments)],
        cwd=TESTS,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=300,  # of a machine with much else to do
    )


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], ...]:
    """What each of two ranks found, launched once for all processes that run these tests."""
    root = tmp_path_factory.getbasetemp()
    folder = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "two ranks"
    with FileLock(f"{folder}.lock"):
        if not (folder / "rank1").exists():
            folder.mkdir(exist_ok=True)
            done = torchrun("rank_training", folder)
            assert done.returncode == 0, done.stderr
            (folder / "rank1").touch()
    return tuple(pickle.loads((folder / f"rank{rank}").read_bytes()) for rank in (0, 1))


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_have_the_losses_of_one_process_also_where_one_goes_on_for_the_other(case: str, outcomes) -> None:
    found, second = (outcome[case] for outcome in outcomes)
    assert len(found["one"]) > 10 and found["one"][0] != pytest.approx(found["one"][5], rel=1e-3), "nothing is learnt"
    for name in ("both", "one, both", "both, one"):
        assert found[name] == pytest.approx(found["one"], rel=1e-9, abs=0), name
    assert found["both"] == second["both"] and found["one, both"] == second["one, both"]


def test_ranks_settle_who_reads_what_they_say_and_when_they_stop(outcomes) -> None:
    first, second = (outcome["settled"] for outcome in outcomes)
    assert first["at first"] == (0, "cpu") and second["at first"] == (0, "meta")
    assert first["refused"] == "RunFolderError: the folder is taken"
    assert second["refused"] == "RankError: rank 0 cannot go on: the folder is taken"
    assert first["votes"] == second["votes"] == [False, False, True, False]  # an answer is that of the call before
    assert first["share"] == ([0, 1, 2], [[0, 1], [2, 3], [4, 5]], 6 / 5)
    assert second["share"] == ([3, 4], [[6, 7], [8, 9]], 4 / 5)
    assert first["mean"] == second["mean"] == [1.5, 0.0]


def train(*arguments: object) -> Any:
    return CliRunner().invoke(build_entry(), ["train", "--quiet", *map(str, arguments)])


def losses(folder: Path) -> list[Any]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [
        number for row in rows for number in ([row["step"], row["loss"]] if "loss" in row else row["test"].values())
    ]


@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_rank_that_is_killed_leaves_a_run_that_one_process_goes_on_with(rank: str, tmp_path: Path) -> None:
    options = ["--task", "rank_training:mortal", "--optimizer", "Nested", "--steps", 20, "--dtype", "float64"]
    options += ["--checkpoint-every", 4, "--set", "rows=20", "--set", "points=4"]
    assert train(*options, "--out", tmp_path / "whole").exit_code == 0
    folder = tmp_path / "killed"
    killed = torchrun("nestlearn", "train", *options, "--strategy", "ddp", "--out", folder, DIES=rank, DIES_AT="10")
    assert killed.returncode != 0
    said = [line for line in killed.stderr.splitlines() if line.startswith("error: ")]
    (line,) = said
    assert "another rank is gone" in line
    how = f"torchrun --nproc-per-node 2 -m nestlearn train --resume {folder} --import rank_training"
    assert line.endswith(f"nothing before the last checkpoint is lost; continue with: {how}")
    assert sorted(path.name.partition("-")[2][:12] for path in (folder / "checkpoints").iterdir()) == [
        "step00000004",
        "step00000008",
    ]
    resume = ["--resume", folder, "--import", "rank_training"]
    refused = train(*resume)
    assert refused.exit_code == 2 and "the strategy ddp is for several processes" in refused.output
    assert train(*resume, "--strategy", "none").exit_code == 0
    assert losses(folder) == pytest.approx(losses(tmp_path / "whole"), rel=1e-9)
