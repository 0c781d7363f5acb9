"""Check, then time, then print and save: ``python -m benchmarks.ops [--quick] [--device cuda] [--only delta]``."""

import argparse
import sys
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from benchmarks.ops.cases import CASES, Case, Shape, attention, named, ours
from benchmarks.ops.gate import gate
from benchmarks.ops.peak import peak_bytes
from benchmarks.optim import report
from benchmarks.optim.timing import interleave, settle_allocator

RESULTS = Path(__file__).parent / "results"
ATTENTION = [Shape(1024), Shape(4096)]
LONG = Shape(16384, batch=1, heads=2)
BAR = 2.2
"""Largest ratio of time, and of memory, at 2 T to T."""


def main() -> int:
    """0 when every bar is met, 1 when one is missed, 2 when the correctness gate is red."""
    options = _arguments()
    torch.set_num_threads(1)
    settle_allocator()
    checks = gate(options.device)
    for check in checks:
        print(f"{'pass' if check.passed else 'FAIL'}  {check.name}: {check.error:.1e} (at most {check.tolerance:.0e})")
    if not all(check.passed for check in checks):
        print("No speed is measured before these are right.")
        return 2
    machine = report.machine(options.device)
    print(f"\n{machine['device']}, {machine['processor']}, {machine['threads']} thread, torch {machine['torch']}")
    print("forward and backward, medians of interleaved pairs\n")
    rows = []
    for case in CASES:
        if options.only.lower() in case.name.lower():
            rows += [*_against_attention(case, options), *_doubling(case, options), *_memory(case, options)]
    if not (options.quick or options.only):
        result = {
            "machine": machine,
            "date": datetime.now(UTC).date().isoformat(),
            "clock": "CUDA events" if options.device.startswith("cuda") else "CPU time of the process",
            "gate": [check.record() for check in checks],
            "rows": rows,
        }
        report.save(result, RESULTS / f"{report.slug(machine)}.json")
    return 1 if any(row["passed"] is False for row in rows) else 0


def _against_attention(case: Case, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Time of ours / time of torch's causal attention at the same shape."""
    rows = []
    for shape in ATTENTION[:1] if options.quick else ATTENTION:
        rows.append(_timed(case, "attention", shape, ours(case, shape, options.device), shape, options, None))
    return rows


def _doubling(case: Case, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Time of ours at 2 T / at T."""
    longest = replace(LONG, time=4096) if options.quick else LONG
    lengths = [longest.time // 4, longest.time // 2, longest.time]
    rows = []
    for half, full in pairwise(lengths):
        unit = ours(case, replace(longest, time=full), options.device)
        rows.append(_timed(case, "T / 2", replace(longest, time=full), unit, replace(longest, time=half), options, BAR))
    return rows


def _timed(
    case: Case, reference: str, shape: Shape, unit: Any, other: Shape, options: argparse.Namespace, bar: float | None
) -> dict[str, Any]:
    device = options.device
    against = attention(other, device) if reference == "attention" else ours(case, other, device)
    measured = interleave(
        unit, against, device=device, rounds=3 if options.quick else options.rounds, cycle=1, target_ms=100
    )
    row = {
        "case": case.name,
        "what": f"time / {reference}",
        "shape": str(shape),
        "ratio": measured.median,
        "quartiles": list(measured.quartiles),
        "ours": measured.ours_ms,
        "reference": measured.reference_ms,
        "unit": "ms",
    }
    return _print(row, bar)


def _memory(case: Case, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Peak memory of ours at 2 T / at T."""
    longest = replace(LONG, time=4096) if options.quick else LONG
    lengths = [longest.time // 4, longest.time // 2, longest.time]
    device, small = options.device, Shape(128, batch=1, heads=1, width=longest.width)
    shapes = [replace(longest, time=time) for time in lengths]
    peaks = [
        peak_bytes(named, (case.name, small, device), (case.name, shape, device), device) / 1e6 for shape in shapes
    ]
    rows = []
    for index in (1, 2):
        ratio = peaks[index] / peaks[index - 1]
        row = {
            "case": case.name,
            "what": "memory / T / 2",
            "shape": str(replace(longest, time=lengths[index])),
            "ratio": ratio,
            "quartiles": [ratio, ratio],
            "ours": peaks[index],
            "reference": peaks[index - 1],
            "unit": "MB",
        }
        rows.append(_print(row, BAR))
    return rows


def _print(row: dict[str, Any], bar: float | None) -> dict[str, Any]:
    row |= {"bar": bar, "passed": None if bar is None else row["ratio"] <= bar}
    verdict = "" if bar is None else f"{bar:.1f} {'pass' if row['passed'] else 'FAIL'}"
    low, high = row["quartiles"]
    print(
        f"{row['case']:<26} {row['what']:<16} {row['shape']:<22} {row['ratio']:6.2f}  [{low:5.2f}, {high:5.2f}]  "
        f"{verdict:<9} {row['ours']:9.1f} / {row['reference']:9.1f} {row['unit']}",
        flush=True,
    )
    return row


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ops", description=__doc__)
    parser.add_argument("--device", default="cpu", help="cpu (one thread) or cuda")
    parser.add_argument("--rounds", type=int, default=5, help="pairs timed for each row (default 5)")
    parser.add_argument("--quick", action="store_true", help="short sequences, 3 rounds; not saved")
    parser.add_argument("--only", default="", help="only cases whose name holds this text; not saved")
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error(f"--rounds must be at least 2, got {options.rounds}")
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("--device cuda: this torch sees no CUDA device")
    return options


if __name__ == "__main__":
    sys.exit(main())
