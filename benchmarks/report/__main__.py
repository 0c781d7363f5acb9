"""Time and weigh the report of a large comparison: ``python -m benchmarks.report [--seeds 2] [--steps 10000]``.

The clock that counts is the CPU time of the process, which has one thread, so that other processes do not; the time on
the wall is information.
"""

import argparse
import json
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import torch

from benchmarks.optim.report import machine, save, slug
from benchmarks.report.long_runs import measure_long
from benchmarks.report.made_up import made_up_folder
from nestlearn.report import write_report, write_systems

RESULTS = Path(__file__).parent / "results"
BAR_SECONDS, BAR_BYTES = 2.0, 5_000_000
OPTIMIZERS = ("Muon", "DeepMomentum", "DeepAdam", "SecantMomentum", "GradientDescent")  # ten variants with AdamW


def main() -> int:
    """0 when the report is quick and small enough, 1 when not."""
    options = _arguments()
    torch.set_num_threads(1)
    if options.long:
        return _long(options.output)
    with tempfile.TemporaryDirectory() as place:
        result, wall = _measure(Path(place) / "run", options)
    for name, unit, factor in (("seconds", "s", 1), ("bytes", "MB", 1e6)):
        verdict = "pass" if result[name] < result[f"{name}_bar"] else "FAIL"
        bar = result[f"{name}_bar"] / factor
        print(f"{verdict}  {result[name] / factor:.2f} {unit} (below {bar:g} {unit})")
    print(f"      {wall:.2f} s on the wall")
    described = machine("cpu")
    if options.output or not options.quick:
        path = options.output or RESULTS / f"{slug(described)}.json"
        save({"machine": described, "date": datetime.now(UTC).date().isoformat(), **result}, path)
        print(f"written: {path.name}")
    return 0 if result["passed"] else 1


def _long(output: Path | None) -> int:
    """Two runs of 200,000 rows."""
    result = measure_long()
    for name, unit, factor in (("seconds", "s", 1), ("bytes", "MB at most", 1e6)):
        verdict = "pass" if result[name] < result[f"{name}_bar"] else "FAIL"
        bar = result[f"{name}_bar"] / factor
        print(
            f"{verdict}  {result[name] / factor:.2f} {unit} (below {bar:g}), {result['bytes_read'] / 1e6:.0f} MB read"
        )
    described = machine("cpu")
    path = output or RESULTS / f"long-{slug(described)}.json"
    save({"machine": described, "date": datetime.now(UTC).date().isoformat(), **result}, path)
    return 0 if result["passed"] else 1


def _measure(path: Path, options: argparse.Namespace) -> tuple[dict[str, Any], float]:
    """Make the folder, write its report once to warm up and then ``rounds`` times; also the seconds on the wall."""
    folder = made_up_folder(
        path, OPTIMIZERS, points=options.steps, looks=options.steps // 10, steps=options.steps,
        seeds=tuple(range(options.seeds)), keep=1,
    )  # fmt: skip
    write_systems(path)
    rows = json.loads(folder.results.read_text())["tasks"]["digits"]
    lines = sum(file.read_bytes().count(b"\n") for file in (folder.metrics, folder.events))
    print(f"{sum(len(row['runs']) for row in rows)} runs of {options.steps:,} logged steps, {lines:,} lines in all")
    report, _ = write_report(path)
    times, walls = [], []
    for _ in range(options.rounds):
        start, wall = process_time(), perf_counter()
        write_report(path)
        times.append(process_time() - start)
        walls.append(perf_counter() - wall)
    seconds, size = median(times), report.stat().st_size
    result = {
        "runs": sum(len(row["runs"]) for row in rows),
        "steps": options.steps,
        "lines": lines,
        "seconds": seconds,
        "seconds_all": times,
        "seconds_bar": BAR_SECONDS,
        "bytes": size,
        "bytes_bar": BAR_BYTES,
        "passed": seconds < BAR_SECONDS and size < BAR_BYTES,
    }
    return result, median(walls)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2, help="runs of each of the ten variants (default 2)")
    parser.add_argument("--steps", type=int, default=10_000, help="steps of a run, each of them logged (default 10000)")
    parser.add_argument("--rounds", type=int, default=5, help="reports timed, after one to warm up (default 5)")
    parser.add_argument(
        "--long", action="store_true", help="two runs of 200,000 rows instead, and the memory they take"
    )
    parser.add_argument("--quick", action="store_true", help="not saved")
    parser.add_argument("--output", type=Path, help="JSON file to write; by default one in results/ of this machine")
    options = parser.parse_args()
    if min(options.seeds, options.steps, options.rounds) < 1 or options.steps < 10:
        parser.error("--seeds and --rounds must be at least 1, --steps at least 10")
    return options


if __name__ == "__main__":
    sys.exit(main())
