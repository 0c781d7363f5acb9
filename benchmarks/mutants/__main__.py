"""Make faults, run the tests that reach them, print who noticed: ``python -m benchmarks.mutants [--only optim]``."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

from benchmarks.mutants import report
from benchmarks.mutants.cover import cover
from benchmarks.mutants.places import FOLDERS, Mutant, sample
from benchmarks.mutants.trial import Bench, Verdict, copy_checkout
from benchmarks.optim.report import save

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).parent / "results"

_bench: Bench | None = None


def main() -> int:
    """0 when every mutant dies or has its reason, 1 when one lives without."""
    options = _arguments()
    # One thread each, the same examples each time, and whatever CI would do.
    os.environ.update(OMP_NUM_THREADS="1", CI="true")
    mutants = [each for each in sample(ROOT, options.count) if options.only in each.identity]
    if not mutants:
        print(f"--only {options.only!r} is in none of the {options.count} mutants")
        return 2
    reasons = report.read_reasons()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        base = copy_checkout(ROOT, Path(folder) / "base")
        found = cover(base, options.workers, options.renew)
        seconds = sum(found.seconds.values())
        print(f"{len(found.seconds)} tests, {seconds:.0f} s under coverage.py; {len(mutants)} mutants")
        verdicts = []
        for verdict in _tried(mutants, Path(folder), options):
            verdicts.append(verdict)
            if verdict.outcome != "killed" or options.verbose:
                print(report.line(verdict), flush=True)
    verdicts.sort(key=lambda each: (FOLDERS.index(Path(each.mutant.file).parent.name), each.mutant.identity))
    print("\n" + report.table(verdicts, reasons))
    path = options.output or (None if options.only else RESULTS / "latest.json")
    if path is not None:
        save(report.record(verdicts, len(found.seconds), seconds), path)
        print(f"\nwritten: {path.name}")
    left = report.unexplained(verdicts, reasons)
    for verdict in left:
        print(f"no test and no reason: {verdict.mutant.identity}")
    return 1 if left else 0


def _tried(mutants: list[Mutant], folder: Path, options: argparse.Namespace):
    """The verdicts as they come, from as many processes as there are workers."""
    arguments = (folder, options.budget)
    with ProcessPoolExecutor(options.workers, get_context("fork"), _open_bench, arguments) as pool:
        for done in as_completed([pool.submit(_try, mutant) for mutant in mutants]):
            yield done.result()


def _open_bench(folder: Path, budget: float) -> None:
    """Give this process a checkout of its own, and load what every trial needs.

    Not hypothesis: pytest warns when its plugins were there before it, and here every warning is an error.
    """
    global _bench
    import numpy  # noqa: F401
    import pytest  # noqa: F401
    import torch

    torch.set_num_threads(1)
    checkout = copy_checkout(folder / "base", folder / str(os.getpid()))
    _bench = Bench(checkout, cover(checkout, 1, renew=False), budget)
    _bench.check()


def _try(mutant: Mutant) -> Verdict:
    assert _bench is not None
    return _bench.try_out(mutant)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mutants", description=__doc__)
    parser.add_argument("--count", type=int, default=240, help="mutants in the sample (default 240)")
    parser.add_argument("--only", default="", help="only mutants whose file, function or line holds this; not saved")
    parser.add_argument("--budget", type=float, default=240.0, help="seconds of tests for a survivor (default 240)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: cores)")
    parser.add_argument("--renew", action="store_true", help="run the suite under coverage.py again")
    parser.add_argument("--verbose", action="store_true", help="print the mutants that die, too")
    parser.add_argument("--output", type=Path, help="JSON file to write (default results/latest.json)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
