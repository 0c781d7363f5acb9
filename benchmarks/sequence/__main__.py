"""Check, then time, then print and save: ``python -m benchmarks.sequence [--quick] [--tables peers] [--only mlp]``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.optim import report
from benchmarks.optim.timing import settle_allocator
from benchmarks.peers.libraries import installed
from benchmarks.sequence.compiling import compiling
from benchmarks.sequence.gate import gate
from benchmarks.sequence.measure import against, decode, growth, unequal
from benchmarks.sequence.rows import DECODING, GROWTH, PEERS, TRANSFORMER, UNEQUAL
from benchmarks.sequence.theirs import LIBRARIES, THEIRS, checks

RESULTS = Path(__file__).parent / "results"
TABLES = ("transformer", "decoding", "compiling", "peers", "growth", "unequal")


def main() -> int:
    """0 when every bar that was measured is met, 1 when one is missed, 2 when the correctness gate is red."""
    options = _arguments()
    torch.set_num_threads(1)
    settle_allocator()
    libraries = installed(LIBRARIES)
    for name, found in libraries.items():
        print(f"{name} {found['version'] or ''}: {found['problem'] or 'here'}")
    usable = [name for name, found in libraries.items() if found["problem"] is None]
    verdicts = [*gate(), *checks(usable)]
    for check in verdicts:
        print(f"{'pass' if check.passed else 'FAIL'}  {check.name}: {check.error:.1e} (at most {check.tolerance:.0e})")
    if not all(check.passed for check in verdicts):
        print("No speed is measured before these are right.")
        return 2
    machine = report.machine("cpu")
    print(f"\n{machine['processor']}, {machine['threads']} thread, torch {machine['torch']}")
    print("medians of interleaved pairs, CPU time of the process; a ratio above its bar fails\n")
    path = options.output or (None if options.quick or options.only else RESULTS / f"{report.slug(machine)}.json")
    head = {
        "machine": machine,
        "libraries": libraries,
        "clock": "CPU time of the process",
        "gate": [check.record() for check in verdicts],
    }
    rows = []
    for table in options.tables:
        made = report.dated(list)
        for row in _rows(table, usable, options):
            made["rows"].append(row)
            print(_line(row), flush=True)
            if path is not None:  # after each, so that what is made is kept
                report.save({**head, **_earlier(path, head), table: made}, path)
        rows += made["rows"]
        print()
    return 1 if any(row["passed"] is False for row in rows) else 0


def _rows(table: str, usable: Iterable[str], options: argparse.Namespace) -> Iterable[dict[str, Any]]:
    """One table, row by row."""
    print(f"{table} (load of one minute {os.getloadavg()[0]:.1f})")
    quick, rounds = options.quick, 2 if options.quick else options.rounds
    makers: Mapping[str, Callable[[], Iterable[dict[str, Any]]]] = {
        "transformer": lambda: (
            against(row, quick, rounds) for row in TRANSFORMER if chosen(row.ours) and not (quick and row.long)
        ),
        "growth": lambda: (made for row in GROWTH if chosen(row.ours) for made in growth(row, quick, rounds)),
        "decoding": lambda: (decode(name, bar, quick, rounds) for name, bar in DECODING if chosen(name)),
        "unequal": lambda: (
            made for name, bar in UNEQUAL if chosen(name) for made in unequal(name, bar, quick, rounds)
        ),
        "compiling": lambda: compiling(quick, rounds) if chosen("Hope, compiled") else (),
        "peers": lambda: (
            against(row, quick, rounds)
            for row in PEERS
            if THEIRS[row.theirs][0] in usable and (chosen(row.ours) or chosen(row.theirs)) and not (quick and row.long)
        ),
    }

    def chosen(name: str) -> bool:
        return options.only.lower() in name.lower()

    return makers[table]()


def _line(row: Mapping[str, Any]) -> str:
    low, high = row["quartiles"]
    verdict = "" if row["bar"] is None else f"{row['bar']:.2f} {'pass' if row['passed'] else 'FAIL'}"
    sizes = [f"{row[key]:,}" for key in ("ours_parameters", "reference_parameters") if key in row]
    note = f"; {row['note']}" if row.get("note") else ""
    return (
        f"{row['ours']:<27} {row['reference']:<46} {row['what']:<15} {row['shape']:<17} "
        f"{row['ratio']:6.3f}  [{low:.3f}, {high:.3f}]  {verdict:<9} "
        f"{row['ours_value']:9.2f} / {row['reference_value']:9.2f} {row['unit']}  "
        f"{' / '.join(sizes)} parameters{note}"
    )


def _earlier(path: Path, head: Mapping[str, Any]) -> dict[str, Any]:
    """The tables of an earlier run, if it had the same machine and versions."""
    if not path.exists():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    same = all(found.get(name) == head[name] for name in ("machine", "libraries"))
    return {name: found[name] for name in TABLES if same and name in found}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sequence", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="pairs timed for each row (default 5)")
    parser.add_argument("--quick", action="store_true", help="short sequences, 2 rounds, without bars; not saved")
    parser.add_argument("--only", default="", help="only rows with a name that holds this text; not saved")
    parser.add_argument(
        "--tables", nargs="+", choices=TABLES, default=list(TABLES), help="which tables; the file keeps the others"
    )
    parser.add_argument(
        "--output", type=Path, help="JSON file to write; by default one in results/ named after the machine"
    )
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error(f"--rounds must be at least 2, got {options.rounds}")
    return options


if __name__ == "__main__":
    sys.exit(main())
