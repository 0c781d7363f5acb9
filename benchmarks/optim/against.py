"""Every optimizer against itself: as it is in another checkout, and made again from the rule that it prints.

Two processes that live as long as the comparison import ``nestlearn`` from one tree each. They step the same optimizer
on the same workload in turns, A B A B, and each looks at its own CPU clock. Where a process has its memory makes it
some percent faster or slower than its twin for as long as it lives, so there are several of each, and a row is the
median over all their rounds. For rows "composed" a third process holds the class, in this tree as well: in one process
the optimizer that was made first has the better memory, by up to a tenth.
"""

import argparse
import os
import pickle
import statistics
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

import nestlearn
from benchmarks.optim import report
from benchmarks.optim.cases import CASES, Case
from benchmarks.optim.timing import Measurement, alternate
from benchmarks.optim.workloads import WORKLOADS, Workload

__all__ = ["ROOT", "Pair", "Tree", "Trio", "against", "commit", "compare", "difference", "pairs", "pooled", "trios"]

ROOT = Path(__file__).resolve().parents[2]

BAR = 1.02

TRIOS = 5

LARGE = 3_000_000
"""Entries of workloads that get a smaller share of the rounds, and none of the composed ones."""


@dataclass(frozen=True)
class Pair:
    """What is compared: a case on a workload.

    Args:
        case, workload: what is stepped.
        composed: whether it is the class, made from the rule that it prints, against the class; else the class against
            that of the other checkout.
    """

    case: Case
    workload: Workload
    composed: bool
    bar: float = BAR

    @property
    def ours(self) -> str:
        return f"{self.case}, composed" if self.composed else str(self.case)

    @property
    def reference(self) -> str:
        return "the class" if self.composed else "before"


def pairs(only: str = "") -> list[Pair]:
    """All of them, or those whose optimizer or workload holds a text."""
    found = [Pair(case, WORKLOADS[workload], False) for case in CASES for workload in case.workloads]
    # Where large tensors are what a step costs, nothing of a rule is seen.
    found += [
        Pair(case, WORKLOADS[workload], True)
        for case in CASES
        for workload in case.workloads
        if WORKLOADS[workload].elements < LARGE
    ]
    return [pair for pair in found if only.lower() in f"{pair.ours} {pair.workload.name}".lower()]


@dataclass(eq=False)
class Tree:
    """A checkout, and the process that steps its optimizers.

    Args:
        root: of the checkout.
    """

    root: Path
    process: subprocess.Popen[bytes] = field(init=False)

    def __enter__(self) -> "Tree":
        source = (self.root / "src").resolve()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.optim.worker"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join((str(source), str(ROOT))), "PYTHONHASHSEED": "0"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        found = self.ask("source")
        if found != str(source):
            self.__exit__()
            raise FileNotFoundError(f"expected nestlearn in {source}, and it was imported from {found}")
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()

    def ask(self, name: str, *arguments: Any) -> Any:
        """Call a method of the worker; what it raises is on the screen already."""
        assert self.process.stdin is not None and self.process.stdout is not None
        pickle.dump((name, arguments), self.process.stdin)
        self.process.stdin.flush()
        return pickle.load(self.process.stdout)

    def run(self, runs: int) -> float:
        """Seconds that so many steps took."""
        return float(self.ask("run", runs))


@dataclass(frozen=True)
class Trio:
    """Processes that are compared: of this tree, of the other one, and another of this tree."""

    ours: Tree
    before: Tree
    twin: Tree

    def measure(self, pair: Pair, clock: dict[str, Any]) -> "Measured":
        """Both sides of a pair from the start: weights, then times."""
        one, two = self.ours, self.twin if pair.composed else self.before
        place = CASES.index(pair.case)
        one.ask("start", place, pair.workload.name, pair.composed)
        two.ask("start", place, pair.workload.name, False)
        for tree in (one, two):
            tree.run(pair.case.cycle + 2)
        error = difference(one.ask("weights"), two.ask("weights"))
        if error:
            return Measured(error)
        times = alternate(one.run, two.run, cycle=pair.case.cycle, **clock)
        return Measured(error, times, (one.ask("state_bytes"), two.ask("state_bytes")))


@contextmanager
def trios(other: Path, count: int) -> Iterator[list[Trio]]:
    """So many of them, which live as long as the block."""
    with ExitStack() as stack:
        yield [Trio(*(stack.enter_context(Tree(root)) for root in (ROOT, other, ROOT))) for _ in range(count)]


class Measured(NamedTuple):
    """How far apart the weights were, and the times if they were not."""

    error: float
    times: Measurement | None = None
    state_bytes: tuple[int, int] = (0, 0)


def compare(
    chosen: Iterable[Pair], trios: Sequence[Trio], *, rounds: int, target_ms: float
) -> Iterator[dict[str, Any]]:
    """A row for each pair, timed only where both end with the same weights.

    Args:
        chosen: the pairs.
        trios: who steps them.
        rounds: pairs of times that each trio contributes.
        target_ms: about how long a round takes.
    """
    for pair in chosen:
        # Products of large matrices are the same in both and take long: a few of their steps are enough.
        share = rounds if pair.workload.elements < LARGE else max(2, rounds // 4)
        measured = [trio.measure(pair, {"rounds": share, "target_ms": target_ms}) for trio in trios]
        error = max(each.error for each in measured)
        row = {"ours": pair.ours, "reference": pair.reference, "workload": pair.workload.name, "error": error}
        times = [each.times for each in measured if each.times is not None]
        if error == 0:
            row |= report.record(pair, pooled(times), *measured[0].state_bytes)
            row["medians"] = [each.median for each in times]
        yield row


def pooled(measured: Sequence[Measurement]) -> Measurement:
    """Several measurements of one thing as one: all ratios, and the medians of the times."""
    return Measurement(
        ratios=[ratio for each in measured for ratio in each.ratios],
        ours_ms=statistics.median(each.ours_ms for each in measured),
        reference_ms=statistics.median(each.reference_ms for each in measured),
        runs_per_round=measured[0].runs_per_round,
    )


def difference(ours: list[Tensor], reference: list[Tensor]) -> float:
    """Between two sets of weights, relative to the largest of them; 0 where all bits are equal."""
    if all(torch.equal(one, two) for one, two in zip(ours, reference, strict=True)):
        return 0.0
    found = torch.stack([(one - two).abs().max() for one, two in zip(ours, reference, strict=True)])
    return float(found.max() / torch.stack([weight.abs().max() for weight in reference]).max())


def against(options: argparse.Namespace, results: Path) -> int:
    """The command: 0 when every bar is met, 1 when one is missed, 2 when weights differ or nothing was compared.

    Args:
        options: of the command line.
        results: the folder of the files, one a machine.
    """
    other: Path = options.against
    chosen = pairs(options.only)
    if not chosen:
        print(f"--only {options.only!r} matches no row; the rows are: {', '.join(pair.ours for pair in pairs())}")
        return 2
    if not (other / "src" / "nestlearn").is_dir():
        print(f"--against: expected a checkout of nestlearn, and there is no {other / 'src' / 'nestlearn'}")
        return 2
    if not Path(nestlearn.__file__).resolve().is_relative_to(ROOT):
        print(f"nestlearn comes from {nestlearn.__file__}, not from this checkout: set PYTHONPATH=src")
        return 2
    commits = {"ours": commit(ROOT), "before": commit(other)}  # as they are now, and are imported
    machine, load = report.machine("cpu"), round(os.getloadavg()[1], 2)
    print(f"{machine['processor']}, {machine['threads']} thread, torch {machine['torch']}, load {load}")
    print("ratio = ours / reference, median of the pairs of all processes; nothing is timed where weights differ\n")
    print(report.header())
    rows = []
    clock = {"rounds": 4, "target_ms": 20} if options.quick else {"rounds": options.rounds, "target_ms": 60}
    with trios(other, 1 if options.quick else TRIOS) as processes:
        for row in compare(chosen, processes, **clock):
            rows.append(row)
            print(report.line(row) if "ratio" in row else _apart(row), flush=True)
    path = options.output or (
        None if options.quick or options.only else results / f"against-{report.slug(machine)}.json"
    )
    if path is not None:
        result = {
            "machine": machine,
            "date": datetime.now(UTC).date().isoformat(),
            "load_of_five_minutes": load,
            "clock": "CPU time of the process",
            **commits,
            "rows": rows,
        }
        report.save(result, path)
        print(f"\nwritten: {path.name}")
    return 2 if any("ratio" not in row for row in rows) else int(any(not row["passed"] for row in rows))


def _apart(row: dict[str, Any]) -> str:
    names = f"{row['ours']:<40} {row['reference']:<14} {row['workload']:<30}"
    return f"{names} not timed: weights differ by {row['error']:.1e} of the largest"


def commit(root: Path) -> str:
    """Of a checkout, with a plus where files have changed since."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, check=False
        ).stdout.strip()

    found = git("rev-parse", "--short", "HEAD") or "unknown"
    return found + ("+" if git("status", "--porcelain", "--untracked-files=no", "src") else "")
