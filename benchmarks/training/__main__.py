"""``python -m benchmarks.training overhead | resume [--kills 50] | ranks [--kills 30]``: measure, print, save."""

import argparse
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from benchmarks.optim import report
from benchmarks.training.kills import kill_and_resume
from benchmarks.training.overhead import measure_overhead
from benchmarks.training.rank_kills import kill_ranks

__all__ = ["main"]

RESULTS = Path(__file__).parent / "results"


def main() -> int:
    """0 when every bar is met, 1 when one is missed, 2 when the loops do not train alike and nothing was timed."""
    options = _arguments()
    torch.set_num_threads(1)
    machine = report.machine("cpu")
    print(f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} thread, torch {machine['torch']}\n")
    if options.what == "overhead":
        status, found = measure_overhead(rounds=options.rounds, only=options.only)
    elif options.what == "resume":
        status, found = kill_and_resume(options.kills or 50, seed=options.seed)
    else:
        status, found = kill_ranks(options.kills or 30, seed=options.seed)
    if status != 2 and not options.only and not options.no_save:
        path = options.output or RESULTS / f"{options.what}-{report.slug(machine)}.json"
        facts: dict[str, Any] = {"machine": machine, "date": datetime.now(UTC).date().isoformat()}
        facts["load"] = round(os.getloadavg()[0], 1)
        report.save(facts | found, path)
        print(f"\nwritten: {path.name}")
    return status


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("what", choices=("overhead", "resume", "ranks"))
    parser.add_argument("--rounds", type=int, default=41, help="overhead: pairs timed for each row (default 41)")
    parser.add_argument("--only", default="", help="overhead: only rows whose name holds this text; not saved")
    parser.add_argument("--kills", type=int, help="resume, ranks: how many runs are killed (default 50 and 30)")
    parser.add_argument("--seed", type=int, default=0, help="resume, ranks: of the moments at which they are killed")
    parser.add_argument("--output", type=Path, help="JSON file to write; by default one in results/")
    parser.add_argument("--no-save", action="store_true", help="write no file")
    options = parser.parse_args()
    if options.rounds < 2 or (options.kills is not None and options.kills < 1):
        parser.error("expected at least 2 --rounds and at least 1 of --kills")
    return options


if __name__ == "__main__":
    sys.exit(main())
