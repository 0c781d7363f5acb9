"""Time ``nestlearn inspect`` of a model with a billion parameters, and watch its memory.

Each round is a process of its own, as a user starts it: Python, torch and the command line are loaded in the time that
is measured. Peak memory is that of the whole process; the weights alone would be 3.8 GiB.
"""

import argparse
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from benchmarks.optim.report import machine, save, slug

RESULTS = Path(__file__).parent / "results"
ROOT = Path(__file__).parents[2]
BAR_SECONDS, BAR_BYTES = 5.0, 2**30
OPTIMIZERS = ("AdamW", "Muon", "DeepMomentum", "SecantMomentum")
PROGRAM = "import sys; sys.argv[0] = 'nestlearn'; from nestlearn.cli.main import main; main()"


def main() -> int:
    """0 when every inspection is quick and small enough, 1 when not."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.describe", description=__doc__)
    options.add_argument("--rounds", type=int, default=5, help="processes of each row; the median counts (default 5)")
    options.add_argument("--output", type=Path, help="file for the result (default: results/<machine>.json)")
    chosen = options.parse_args()
    rows = [_row(optimizer, chosen.rounds) for optimizer in OPTIMIZERS]
    print("verdict  optimizer            seconds  CPU seconds  peak MiB  state GiB")
    for row in rows:
        print(
            f"{'pass' if row['passed'] else 'FAIL':<9}{row['optimizer']:<20} {row['seconds']:>7.2f}  "
            f"{row['cpu_seconds']:>11.2f}  {row['peak_bytes'] / 2**20:>8.0f}  {row['state_bytes'] / 2**30:>9.2f}"
        )
    described = machine("cpu")
    path = chosen.output or RESULTS / f"{slug(described)}.json"
    save({"machine": described, "date": datetime.now(UTC).date().isoformat(), "rows": rows}, path)
    print(f"written: {path.name}")
    return 0 if all(row["passed"] for row in rows) else 1


def _row(optimizer: str, rounds: int) -> dict[str, Any]:
    runs = [_inspect(optimizer) for _ in range(rounds)]
    seconds, peak = median(run[0] for run in runs), max(run[2] for run in runs)
    return {
        "optimizer": optimizer,
        "seconds": seconds,
        "cpu_seconds": median(run[1] for run in runs),
        "peak_bytes": peak,
        "parameters": runs[0][3]["parameters"],
        "state_bytes": runs[0][3]["state_bytes"],
        "bars": {"seconds": BAR_SECONDS, "peak_bytes": BAR_BYTES},
        "passed": seconds < BAR_SECONDS and peak < BAR_BYTES,
    }


def _inspect(optimizer: str) -> tuple[float, float, int, dict[str, Any]]:
    """(seconds, CPU seconds, peak bytes, what it found) of one process."""
    arguments = ["inspect", "--model", "benchmarks.describe.models:billion", "--optimizer", optimizer, "--json"]
    start = perf_counter()
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    text = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    seconds = perf_counter() - start
    if status:
        raise SystemExit(f"nestlearn inspect with {optimizer} failed with status {status}")
    found = json.loads(text)
    weights = sum(
        m["parameters"] for part in _parts(found["system"]) for m in part["memories"] if m["home"] == "weights"
    )
    if weights < 10**9:
        raise SystemExit(f"expected a billion parameters, found {weights:,}")
    peak = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return seconds, used.ru_utime + used.ru_stime, peak, {**found, "parameters": weights}


def _parts(system: dict[str, Any]) -> list[dict[str, Any]]:
    return [system, *(part for other in system["others"] for part in _parts(other))]


if __name__ == "__main__":
    sys.exit(main())
