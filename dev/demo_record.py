"""What the demo gave on the day it was recorded: the table and the picture of README.md are made of it.

    python dev/demo_record.py runs/compare-20261126-224416    # of a finished demo, which had the machine to itself

The record, ``dev/demo.json``, is ``results.json`` of the run folder without the trials, and the machine; ``bash
dev/docs`` then writes the page.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from between_marks import between_marks

from nestlearn.report import pictures
from nestlearn.report.findings import headline
from nestlearn.report.page import stand_alone
from nestlearn.tasks import task_type
from nestlearn.training import Results, Row, RunFolder

__all__ = ["Record", "demo_picture", "record", "recorded", "with_demo"]

RECORD = Path(__file__).resolve().with_name("demo.json")
SHOWN = "speeches"
"""The task whose costs the table has: the larger one."""


@dataclass(frozen=True)
class Record:
    """The results of a comparison, and facts about the machine and the time that it took."""

    results: Results
    environment: Mapping[str, Any]


def record(folder: Path, to: Path = RECORD) -> None:
    """Keep what a finished comparison in ``folder`` gave."""
    files = RunFolder.open(folder)
    results = Results.from_plain(json.loads(files.results.read_text(encoding="utf-8")))
    tasks = {task: tuple(map(_without_trials, rows)) for task, rows in results.tasks.items()}
    plain = replace(results, tasks=tasks).to_plain()
    environment = json.loads(files.environment.read_text(encoding="utf-8"))
    to.write_text(json.dumps({"environment": environment, "results": plain}, indent=1) + "\n", encoding="utf-8")


def _without_trials(row: Row) -> Row:
    return replace(row, trials=(), grid={}, spec={})


def recorded(file: Path = RECORD) -> Record:
    """What ``record`` kept."""
    plain = json.loads(file.read_text(encoding="utf-8"))
    return Record(Results.from_plain(plain["results"]), plain["environment"])


def demo_picture(found: Record) -> str:
    """The test losses of the larger task as an SVG file."""
    rows, about = found.results.tasks[SHOWN], task_type(SHOWN)
    return stand_alone(pictures.ranking(rows, found.results.baseline, about.unit, about.least)).rstrip() + "\n"


def with_demo(page: str, found: Record) -> str:
    """The page with the table of the record, and a sentence a task, between its marks."""
    return between_marks(page, "demo", [*_table(found.results), "", *_sentences(found)])


def _table(results: Results) -> Iterator[str]:
    tasks = {task: {row.name: row for row in rows if not row.control} for task, rows in results.tasks.items()}
    tasks = {SHOWN: tasks[SHOWN]} | tasks
    shown, beside = tasks[SHOWN], tasks[SHOWN][results.baseline]
    losses = [f"{task}, test loss" for task in tasks]
    yield f"| | {' | '.join(losses)} | steps to where {results.baseline} ends | time a step | bytes of state |"
    yield f"| --- |{' --- |' * (len(losses) + 3)}"
    for name, row in shown.items():
        cells = [f"{tasks[task][name].test['loss'].mean:.3f}" for task in tasks]
        cells.append(_steps(row))
        cells += [
            f"{mine / its:.1f}" for mine, its in ((row.step_ms, beside.step_ms), (row.state_bytes, beside.state_bytes))
        ]
        yield f"| {name if row is beside else f'`{name}`'} | {' | '.join(cells)} |"


def _steps(row: Row) -> str:
    there = row.to_target
    if there is None or there.steps is None:
        return "never"
    return f"{there.steps:.0f}" + (f" ({there.reached} of {there.of} seeds)" if there.reached < there.of else "")


def _sentences(found: Record) -> Iterator[str]:
    results = found.results
    for task in (SHOWN, *(task for task in results.tasks if task != SHOWN)):
        yield f"- {task_type(task).title}: {headline(results.tasks[task], results.baseline)}"


if __name__ == "__main__":
    record(Path(sys.argv[1]))
