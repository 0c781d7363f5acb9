"""The script for GPUs, as far as it goes without one: rows, processes that hang or crash, the budget, the dry run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from importlib import import_module
from pathlib import Path

import pytest
from contract.members import MEMBERS

from benchmarks.gpu.child import outcome, plain
from benchmarks.gpu.conductor import Conductor
from benchmarks.gpu.report import place
from benchmarks.gpu.rows import Row, rows
from benchmarks.gpu.settings import SETTINGS
from benchmarks.gpu.steps import _shapes

EACH = ("as on the CPU", "waits", "half precision", "CUDA graph")
"""The rows that every setting has."""

ROOT = Path(__file__).resolve().parents[2]

STAND_IN = """
import json, os, sys, time
print('@row {"status": "ready"}', flush=True)
for line in sys.stdin:
    name = json.loads(line)["name"]
    if name == "hangs":
        time.sleep(60)
    if name == "crashes":
        print("a word before it", file=sys.stderr)
        os.abort()
    print("a library prints")
    over = name == "spoils"
    print("@row " + json.dumps({"status": "ok", "note": name, "process": os.getpid(), "over": over}), flush=True)
    if over:
        sys.exit(3)
"""


def conducted(*names: str, seconds: float = 60.0, script: str = STAND_IN) -> list[dict]:
    chosen = [Row(name, "one", "no:work", 1.0) for name in names]
    return list(Conductor("cpu", seconds, [sys.executable, "-c", script]).run(chosen))


@pytest.mark.slow
def test_a_hang_a_crash_and_a_spoilt_device_cost_one_row_each():
    found = {row["name"]: row for row in conducted("first", "hangs", "second", "crashes", "third", "spoils", "last")}
    assert {name: row["status"] for name, row in found.items()} == {
        "first": "ok",
        "hangs": "stopped",
        "second": "ok",
        "crashes": "failed",
        "third": "ok",
        "spoils": "ok",
        "last": "ok",
    }
    assert found["hangs"]["note"] == "stopped at its limit of 1 s"
    assert found["crashes"]["note"] == "the process crashed: SIGABRT; a word before it"
    processes = [found[name]["process"] for name in ("first", "second", "third", "spoils", "last")]
    assert len(set(processes)) == 4 and processes[2] == processes[3]


def test_what_does_not_fit_is_left_out():
    assert [row["status"] for row in conducted("first", "second", seconds=1.0)] == ["left out"] * 2


def test_nobody_waits_for_processes_that_do_not_start():
    found = conducted("first", "second", "third", script="raise SystemExit('no torch here')")
    assert [row["status"] for row in found] == ["failed"] * 3
    assert "no torch here" in found[0]["note"]


@pytest.mark.slow
def test_a_row_that_raises_says_why():
    found = outcome(Row("none", "one", "steps:row", 1.0, {"ours": "SGD", "size": "10M"}), "cpu")
    assert (found["status"], found["note"]) == ("failed", "KeyError: 'SGD'")
    assert "steps.py" in found["trace"]


def test_everything_that_is_told_is_json():
    told = plain({1: float("nan"), "a": (1.5, None, True), "b": {"c": Path("x")}})
    assert json.loads(json.dumps(told, allow_nan=False)) == {"1": "nan", "a": [1.5, None, True], "b": {"c": "x"}}


def test_every_row_has_a_name_of_its_own_and_something_to_do():
    every = rows()
    assert len({row.name for row in every}) == len(every)
    for row in every:
        module, _, function = row.work.partition(":")
        assert callable(getattr(import_module(f"benchmarks.gpu.{module}"), function)), row.work
    compiled = [row.compiled for row in every]
    assert compiled == sorted(compiled), "a compiler's rows come last"


def test_every_setting_of_the_contract_is_tried_on_a_device():
    ours = [
        (setting.name, dict(setting.settings), setting.model, setting.closure)
        for setting in SETTINGS
        if setting.name != "Optimizer"
    ]
    theirs = [(member.name, dict(member.settings), member.model, member.closure) for member in MEMBERS]
    assert [each for each in theirs if each not in ours] == [], "add them to benchmarks/gpu/settings.py"


def test_the_large_transformer_is_one_of_width_1024_and_24_blocks():
    shapes = _shapes("300M")
    assert shapes.count((4096, 1024)) == shapes.count((1024, 4096)) == 24
    assert sum(rows_ * columns for rows_, columns in (shape for shape in shapes if len(shape) == 2)) == 310378496


def test_a_file_is_named_after_the_gpu():
    assert place({"device": "NVIDIA H100 80GB HBM3"}).name == "nvidia-h100-80gb-hbm3.json"


def dry() -> list[Row]:
    """Every row, but of those of a setting one, another kind in turn: tests/contract has every setting on a CPU."""
    ways: dict[int, list[str]] = defaultdict(list)
    for row in rows():
        if row.name.split(":")[0] in EACH:
            ways[row.arguments["number"]].append(row.name)
    left = {name for number, names in ways.items() for name in names if name != names[number % len(names)]}
    return [row for row in rows()[1:] if row.name not in left]


@pytest.mark.slow
def test_the_dry_run_makes_its_rows(tmp_path):
    """On a CPU nothing can be wrong beside itself; that every kind of row is made is what it shows."""
    file = tmp_path / "rows.json"
    chosen = dry()
    only = ";".join(row.name for row in chosen)
    command = ["bash", str(ROOT / "dev" / "gpu"), "--device", "cpu", "--out", str(file), "--only", only]
    environment = {**os.environ, "NESTLEARN_PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    found = json.loads(file.read_text(encoding="utf-8"))
    assert [row["name"] for row in found["rows"]] == [row.name for row in chosen]
    assert {row["status"] for row in found["rows"]} <= {"ok", "absent"}
    assert found["dry_run"] and found["machine"]["torch"]
    assert all(row["name"] in done.stdout for row in found["rows"])
