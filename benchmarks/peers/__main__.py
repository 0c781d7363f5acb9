"""Compare with other libraries and print four tables: ``python -m benchmarks.peers [--quick] [--only heavyball]``."""

import argparse
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.optim import report as machines
from benchmarks.peers import report
from benchmarks.peers.checks import nonfinite_gradients, run_checks
from benchmarks.peers.contenders import CONTENDERS
from benchmarks.peers.gate import Verdict, judge
from benchmarks.peers.isolation import Outcome, isolated
from benchmarks.peers.libraries import installed
from benchmarks.peers.quality import BUDGETS, COARSE, RETENTIONS, SAME, Budget, search
from benchmarks.peers.speed import ROWS, Row, bytes_a_parameter, measure

RESULTS = Path(__file__).parent / "results"
TABLES = ("time", "state", "checks", "quality")


def main() -> int:
    """0 when the tables that were asked for are complete, 2 when nothing can be compared."""
    options = _arguments()
    torch.set_num_threads(1)
    libraries = installed()
    for name, found in libraries.items():
        print(f"{name} {found['version'] or ''}: {found['problem'] or 'here'}")
    usable = {
        key: contender for key, contender in CONTENDERS.items() if libraries[contender.library]["problem"] is None
    }
    chosen = [key for key in usable if options.only.lower() in key.lower()]
    if not chosen:
        print(f"--only {options.only!r} matches no contender that is installed; these are: {', '.join(usable)}")
        return 2
    machine = machines.machine("cpu")
    print(f"\n{machine['processor']}, {machine['threads']} thread, torch {machine['torch']}\n")
    rows = [row for row in ROWS if row.theirs in chosen]
    verdicts = judge(dict.fromkeys([*chosen, *(key for row in rows for key in (row.ours, row.torch))]))
    _print("Gate: loss after 60 steps relative to the first, and closed forms", report.gate_lines(verdicts))
    members = [key for key in chosen if CONTENDERS[key].member]
    makers = {
        "time": lambda: _time(rows, verdicts, options.quick),
        "state": lambda: _state(members),
        "checks": lambda: _checks(members),
        "quality": lambda: _quality(members, verdicts, options.quick),
    }
    path = options.output or (None if options.quick or options.only else RESULTS / f"{machines.slug(machine)}.json")
    head = {
        "machine": machine,
        "shared": "other processes ran on this machine: compare ratios, not milliseconds",
        "libraries": libraries,
        "settings": {key: CONTENDERS[key].settings() or "defaults" for key in chosen},
    }
    gate = {key: verdict.record() for key, verdict in verdicts.items()}
    for table in options.tables:
        made = machines.dated(makers[table])
        if path is not None:  # read again, as another table may have been made beside this one
            machines.save({**head, "gate": gate, **_tables_of(path, head), table: made}, path)
            print(f"written: {path.name}\n")
    return 0


def _tables_of(path: Path, head: Mapping[str, Any]) -> dict[str, Any]:
    """The tables of an earlier run, if it had the same machine, versions and settings; contenders may have joined."""
    if not path.exists():
        return {}
    earlier = json.loads(path.read_text(encoding="utf-8"))
    same = all(earlier.get(name) == head[name] for name in ("machine", "libraries"))
    same = same and earlier["settings"].items() <= head["settings"].items()
    return {name: earlier[name] for name in TABLES if same and name in earlier}


def _print(title: str, lines: Iterable[str]) -> None:
    print(f"{title}\n")
    for line in lines:
        print(line, flush=True)
    print()


def _time(rows: list[Row], verdicts: Mapping[str, Verdict], quick: bool) -> list[dict[str, Any]]:
    _print("Step time (* is not what its name says, see the gate)", [report.speed_header()])
    measured = []
    for row in rows:
        if verdicts[row.theirs].trains:
            outcome = isolated(measure, row, *((2, 20.0) if quick else (7, 150.0)), seconds=900)
        else:
            outcome = Outcome(problem="it does not train")
        measured.append({**row.record(), "problem": outcome.problem, **(outcome.value or {})})
        print(report.speed_line(measured[-1], verdicts), flush=True)
    print()
    return measured


def _state(members: list[str]) -> dict[str, dict[str, float | str]]:
    table = bytes_a_parameter(members)
    _print("State bytes a parameter", report.state_lines(table))
    return table


def _checks(members: list[str]) -> dict[str, dict[str, Any]]:
    table = {}
    for key in members:
        found = run_checks(key)
        nonfinite = isolated(nonfinite_gradients, key)
        table[key] = {
            "passed": sum(reason is None for reason in found.values()),
            "total": len(found),
            "checks": found,
            "nonfinite_gradient": nonfinite.value or nonfinite.problem,
        }
    _print("Drop-in score", report.checks_lines(table))
    return table


def _quality(members: list[str], verdicts: Mapping[str, Verdict], quick: bool) -> dict[str, Any]:
    tables: dict[str, Any] = {"coarse_lr": COARSE, "retentions": RETENTIONS, "same": SAME}
    for task, budget in BUDGETS.items():
        used = Budget(8, (0, 1), budget.size) if quick else budget
        rows = [search(key, task, used) for key in members if key not in SAME]
        tables[task] = {"steps": used.steps, "seeds": used.seeds, "rows": rows}
        title = f"Quality on {task}: {used.steps} steps, {len(used.seeds)} seeds, tuned on validation"
        _print(title, report.quality_lines(rows, verdicts))
    return tables


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short rounds and runs of a few steps; not saved")
    parser.add_argument("--only", default="", help="only contenders whose library or name holds this text; not saved")
    parser.add_argument(
        "--tables", nargs="+", choices=TABLES, default=list(TABLES), help="which tables; the file keeps the others"
    )
    parser.add_argument(
        "--output", type=Path, help="JSON file to write; by default one in results/ named after the machine"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
