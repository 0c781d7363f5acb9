"""Check, then time, then print and save: ``python -m benchmarks.optim [--quick] [--device cuda] [--only muon]``.

With ``--against CHECKOUT`` the optimizers are compared with themselves in another checkout instead of with torch's.
"""

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

import torch

from benchmarks.optim import report
from benchmarks.optim.against import against
from benchmarks.optim.gate import gate
from benchmarks.optim.rows import Row, rows
from benchmarks.optim.timing import interleave, settle_allocator
from benchmarks.optim.workloads import state_bytes

RESULTS = Path(__file__).parent / "results"


def main() -> int:
    """0 when everything timed meets its bar, 1 when a bar is missed, 2 when the correctness gate is red."""
    options = _arguments()
    torch.set_num_threads(1)
    settle_allocator()
    if options.against is not None:
        return against(options, RESULTS)
    chosen = [row for row in rows() if options.only.lower() in f"{row.ours} {row.workload.name}".lower()]
    if not chosen:
        print(f"--only {options.only!r} matches no row; the rows are: {', '.join(row.ours for row in rows())}")
        return 2
    checks = gate(options.device, any(row.compiled for row in chosen))
    for check in checks:
        print(f"{'pass' if check.passed else 'FAIL'}  {check.name}: {check.error:.1e} (at most {check.tolerance:.0e})")
    if not all(check.passed for check in checks):
        print("No speed is measured before these are right.")
        return 2
    machine = report.machine(options.device)
    print(f"\n{machine['device']}, {machine['processor']}, {machine['threads']} thread, torch {machine['torch']}")
    print("ratio = ours / reference, median of interleaved pairs; the same order in the last two columns\n")
    print(report.header())
    results = []
    for row in chosen:
        results.append(_measure(row, options))
        print(report.line(results[-1]), flush=True)
    path = options.output or (None if options.quick or options.only else RESULTS / f"{report.slug(machine)}.json")
    if path is not None:
        result = {
            "machine": machine,
            "date": datetime.now(UTC).date().isoformat(),
            "clock": "CUDA events" if options.device.startswith("cuda") else "CPU time of the process",
            "gate": [check.record() for check in checks],
            "rows": results,
        }
        report.save(result, path)
        print(f"\nwritten: {path.name}")
    return 1 if any(result["passed"] is False for result in results) else 0


def _measure(row: Row, options: argparse.Namespace) -> dict[str, object]:
    ours, our_optimizer = row.start_ours(options.device)
    reference, reference_optimizer = row.start_reference(options.device)
    measurement = interleave(
        ours,
        reference,
        device=options.device,
        rounds=4 if options.quick else options.rounds,
        cycle=row.cycle,
        target_ms=100 if options.quick else 500,
    )
    return report.record(row, measurement, state_bytes(our_optimizer), state_bytes(reference_optimizer))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.optim", description=__doc__)
    parser.add_argument("--device", default="cpu", help="cpu (one thread) or cuda")
    parser.add_argument("--rounds", type=int, default=11, help="pairs timed for each row (default 11)")
    parser.add_argument("--quick", action="store_true", help="4 short rounds; not saved")
    parser.add_argument("--only", default="", help="only rows whose optimizer or workload holds this text; not saved")
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="compare with this checkout's optimizers")
    parser.add_argument(
        "--output", type=Path, help="JSON file to write; by default one in results/ named after the machine"
    )
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error(f"--rounds must be at least 2, got {options.rounds}")
    if options.against is not None and options.device != "cpu":
        parser.error(f"--against is for the CPU, got --device {options.device}")
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("--device cuda: this torch sees no CUDA device")
    return options


if __name__ == "__main__":
    sys.exit(main())
