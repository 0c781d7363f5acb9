"""What the experiments share: two sizes, tables that leave no loser out, and figures held against ``expected.json``.

An experiment is a package with a function ``run(size, folder, workers) -> Outcome`` and a file ``expected.json``. Its
``__main__`` hands that function to ``main``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from nestlearn.comparison import CompareSettings, compare, preset, resolve
from nestlearn.training import Results, Row, environment, merge
from nestlearn.training.results import Difference
from nestlearn.training.run_folder import write_atomic

__all__ = [
    "QUICK",
    "SIZES",
    "SMALL_SPEECHES",
    "Outcome",
    "compared",
    "complaints",
    "expected",
    "main",
    "markdown",
    "workers_of_one_thread",
]

SIZES = ("quick", "full")
"""Minutes, for every change; and the size of which the committed tables speak."""

SMALL_SPEECHES: Mapping[str, Any] = {
    "dim": 32, "heads": 2, "context": 32, "validation_windows": 32, "test_windows": 128
}  # fmt: skip
"""The speeches where only the way from the command to the table is looked at."""

QUICK: Mapping[str, Any] = {
    "base": "demo", "seeds": (0, 1), "keep": 1, "grow": 0, "lr_points": 2, "refine": 1, "points": 2
}  # fmt: skip
"""What makes a comparison quick: two seeds, small grids that do not grow, a fine one around one setting, one at full
length."""


@dataclass(frozen=True)
class Outcome:
    """What a run of an experiment gave: tables as Markdown, and the figures that ``expected.json`` speaks of."""

    tables: tuple[str, ...]
    figures: Mapping[str, float]


Run = Callable[[str, Path, int], Outcome]


def main(run: Run, home: Path) -> int:
    """The command of an experiment; 0 when everything is as expected, 1 when something is not."""
    parser = argparse.ArgumentParser(prog=f"python -m experiments.{home.parent.name}.{home.name}")
    parser.add_argument("--size", choices=SIZES, default="quick")
    parser.add_argument("--workers", type=int, default=2, help="worker processes, one thread each")
    parser.add_argument("--out", type=Path, help="a new run folder [default: runs/NAME-SIZE]")
    parser.add_argument("--record", action="store_true", help="write results/SIZE.md and results/SIZE.json")
    chosen = parser.parse_args()
    outcome = run(chosen.size, chosen.out or Path("runs") / f"{home.name}-{chosen.size}", chosen.workers)
    print("\n\n".join(outcome.tables))
    if chosen.record:
        _record(outcome, home / "results", chosen.size, chosen.workers)
    wrong = complaints(outcome.figures, expected(home, chosen.size))
    for line in wrong or ["Everything is as expected.json says."]:
        print(f"\n{line}")
    return 1 if wrong else 0


def _record(outcome: Outcome, folder: Path, size: str, workers: int) -> None:
    folder.mkdir(exist_ok=True)
    facts = {"environment": environment("cpu", workers), "figures": dict(outcome.figures)}
    write_atomic(folder / f"{size}.md", "\n\n".join(outcome.tables) + "\n")
    write_atomic(folder / f"{size}.json", json.dumps(facts, indent=1) + "\n")


def expected(home: Path, size: str) -> list[dict[str, Any]]:
    """The expectations of a size: ``{"says", "figure", "at_least", "at_most"}``, a bound being a number or a figure."""
    found: list[dict[str, Any]] = json.loads((home / "expected.json").read_text(encoding="utf-8"))[size]
    return found


def complaints(figures: Mapping[str, float], expectations: Iterable[Mapping[str, Any]]) -> list[str]:
    """What is not as expected, in words; KeyError for a figure that the experiment does not have."""
    wrong = []
    for one in expectations:
        value = figures[one["figure"]]
        for bound, holds in (("at_least", float.__ge__), ("at_most", float.__le__)):
            if bound in one:
                limit = figures[one[bound]] if isinstance(one[bound], str) else one[bound]
                if not holds(float(value), float(limit)):
                    what = f"{one['figure']} is {value:.4g}, not {bound.replace('_', ' ')} {limit:.4g}"
                    wrong.append(f"NOT AS EXPECTED: {one['says']}: {what}")
    return wrong


class _Here(Executor):
    """Does each thing when its result is asked for."""

    def map(self, fn: Callable[..., Any], *iterables: Iterable[Any], **_: Any) -> Iterator[Any]:
        return map(fn, *iterables)


@contextmanager
def workers_of_one_thread(count: int) -> Iterator[Executor]:
    """So many worker processes; a single one is this process, which has its threads back in the end."""
    if count > 1:
        with ProcessPoolExecutor(count, get_context("spawn"), torch.set_num_threads, (1,)) as executor:
            yield executor
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield _Here()
    finally:
        torch.set_num_threads(threads)


def markdown(headings: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table."""
    lines = [list(map(str, row)) for row in rows]
    head = list(headings)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *lines))


def compared(folder: Path, workers: int, base: str = "quick", **changes: Any) -> tuple[Outcome, Results]:
    """Run ``nestlearn compare`` with these settings; its table, its figures, and all results.

    Figures are called ``TASK/ROW/FIGURE`` and are those of the test split, means over seeds, with ``vs_control``,
    ``vs_baseline`` and ``vs_muon`` (differences of the loss) and their corrected ``p_...`` where there is one.
    """
    settings: CompareSettings = resolve(merge(preset(base), changes), workers=workers)
    results = compare(settings, folder)
    tables, figures = [], {}
    for task, rows in results.tasks.items():
        for row in rows:
            figures |= {f"{task}/{_short(row.name)}/{name}": value for name, value in _figures(row).items()}
        tables.append(_table(task, rows, settings))
    return Outcome(tuple(tables), figures), results


def _short(name: str) -> str:
    """A contender's name without the module that made it."""
    return name.rpartition(":")[2]


def _figures(row: Row) -> dict[str, float]:
    found = {name: figure.mean for name, figure in row.test.items()}
    columns = {"control": row.against_control, "baseline": row.against_baseline, "muon": row.against_muon}
    for column, difference in columns.items():
        if difference:
            found[f"vs_{column}"] = difference.mean
            if difference.p is not None:
                found[f"p_{column}"] = difference.p
    if row.optimizer_ms is not None:
        found["optimizer_ms"] = row.optimizer_ms
    return found


def _table(task: str, rows: Sequence[Row], settings: CompareSettings) -> str:
    figures = [name for name in next((row.test for row in rows if row.test), {}) if name != "loss"]
    head = ["optimizer", "test loss (seeds)", *figures, "vs control (p)", "vs AdamW (p)", "vs Muon (p)", "opt ms"]
    head.append("tuned settings")
    body = [_cells(row, figures) for row in rows]
    size = ", ".join(f"{name} {value}" for name, value in settings.sizes.get(task, {}).items())
    title = f"**{task}**, {settings.steps_of(task)} steps, {len(settings.seeds)} seeds{', ' + size if size else ''}."
    return f"{title}\n\n{markdown(head, body)}"


def _cells(row: Row, figures: Iterable[str]) -> list[str]:
    loss = "diverged"
    if row.test:
        values = row.test["loss"].values
        loss = f"{mean(values):.4f} ({', '.join(f'{value:.3f}' for value in values)})"
    tuned = ", ".join(f"{name} {value:g}" for name, value in row.settings.items())
    edges = f" [{'; '.join(row.edges)}]" if row.edges else ""
    return [
        _short(row.name),
        loss,
        *(f"{row.test[name].mean:.3f}" if row.test else "" for name in figures),
        *map(_difference, (row.against_control, row.against_baseline, row.against_muon)),
        "" if row.optimizer_ms is None else f"{row.optimizer_ms:.1f}",
        tuned + edges,
    ]


def _difference(difference: Difference | None) -> str:
    if not difference:
        return ""
    p = difference.p if difference.p is not None else difference.p_alone
    return f"{difference.mean:+.4f}" + ("" if p is None else f" ({p:.2g})")
