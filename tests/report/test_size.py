"""The report of twenty long runs stays small: by the benchmark, whose folder has every step logged."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_twenty_runs_of_ten_thousand_steps_stay_below_five_megabytes(tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    command = [sys.executable, "-m", "benchmarks.report", "--rounds", "1", "--output", str(result)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.exists(), done.stdout + done.stderr
    found = json.loads(result.read_text())
    assert (found["runs"], found["steps"]) == (20, 10_000) and found["lines"] > 200_000
    assert found["bytes"] < 5_000_000
    assert (done.returncode == 0) == found["passed"]
