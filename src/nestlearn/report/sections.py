"""The sections of the report, one a task: which tables and pictures it has, in which order, with which captions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nestlearn.descriptions import NestedSystem
from nestlearn.report import memories, pictures
from nestlearn.report.captions import CAPTIONS
from nestlearn.report.choices import rates
from nestlearn.report.colours import colour
from nestlearn.report.downloads import curves_csv, download, events_csv
from nestlearn.report.findings import cards, headline
from nestlearn.report.series import Measured, measure
from nestlearn.report.tables import Cell, Column, columns, table_rows, to_csv, trials_csv
from nestlearn.tasks.about import about
from nestlearn.training import Results, Row, RunResult

__all__ = ["Part", "section"]

Runs = Mapping[str, RunResult]


@dataclass(frozen=True)
class Part:
    """A table or a set of pictures, by its name in ``CAPTIONS``; ``layout`` is a class of the style sheet."""

    name: str
    layout: str = ""
    pictures: Sequence[str] = ()
    columns: Sequence[Column] = ()
    rows: Sequence[Sequence[Cell]] = ()
    controls: Sequence[Sequence[Cell]] = ()
    nests: Sequence[Mapping[str, Any]] = ()

    @property
    def heading(self) -> str:
        return CAPTIONS[self.name][0]

    def caption(self, baseline: str) -> str:
        """What the part shows and how to read it."""
        return CAPTIONS[self.name][1].format(baseline=baseline)


def section(results: Results, task: str, runs: Runs, systems: Mapping[str, Any], number: int) -> dict[str, Any]:
    """All that the page says about one task, the ``number``-th on it."""
    rows, told = results.tasks[task], about(task)
    measured = measure(rows, runs)
    parts = [*_result_parts(results, task, measured), *_memory_parts(rows, measured, systems)]
    return {
        "id": f"task{number}",
        "title": told.title,
        "unit": told.unit,
        "parameters": rows[0].parameters,
        "steps": max((run.steps for found in measured.values() for run in found.runs), default=0),
        "headline": headline(rows, results.baseline),
        "cards": cards(rows, results.baseline) if len(rows) > 1 else [],
        "warnings": [f"{row.name}: {warning}" for row in rows for warning in row.warnings],
        "contender": rows[0].name,
        "legend": [(row.name, colour(row.contender)) for row in rows if not row.control] if len(rows) > 1 else [],
        "parts": parts,
        "controls": [row for row in rows if row.control_name],
        "diverged": [row for row in rows if row.status == "diverged"],
        "downloads": _downloads(results, task, measured, systems),
    }


def _result_parts(results: Results, task: str, measured: Mapping[str, Measured]) -> Iterator[Part]:
    rows, baseline, told = results.tasks[task], results.baseline, about(task)
    several = len(rows) > 1
    if several:
        yield Part("ranking", "ranking", [pictures.ranking(rows, baseline, told.unit, told.least)])
        yield from _table_parts(results, task)
    else:
        shown = columns(results, task)
        yield Part("figures", columns=shown, rows=table_rows(results, task, shown))
    yield Part("curves", "pair", pictures.curves(rows, measured, baseline, told.unit))
    if several:
        yield Part("panels", pictures=pictures.panels(rows, measured, baseline))
    if drawn := pictures.training_panels(rows, measured):
        yield Part("training", pictures=drawn)
    if several and (drawn := rates(rows, results.budget or 0)):
        yield Part("choice", pictures=drawn)


def _table_parts(results: Results, task: str) -> Iterator[Part]:
    shown = columns(results, task)
    result = [column for column in shown if column.part == "result"]
    cost = [shown[0], *(column for column in shown if column.part == "cost")]
    controls = table_rows(results, task, result, controls=True)
    yield Part("table", columns=result, rows=table_rows(results, task, result), controls=controls)
    if len(cost) > 1:
        yield Part("cost", columns=cost, rows=table_rows(results, task, cost))


def _memory_parts(rows: Sequence[Row], measured: Mapping[str, Measured], systems: Mapping[str, Any]) -> Iterator[Part]:
    contenders = [row for row in rows if not row.control and row.name in systems]
    if contenders:
        yield Part("nesting", nests=[_nest(row.name, systems[row.name]) for row in contenders])
        yield Part(
            "score", "scores", [memories.score(row, measured[row.name], systems[row.name]) for row in contenders]
        )
    if drawn := memories.surprise_panels(rows, measured):
        yield Part("surprise", pictures=drawn)


def _nest(name: str, data: Mapping[str, Any]) -> dict[str, Any]:
    system = NestedSystem.from_dict(data)
    levels, held = len(system.levels), len(system.memories)
    summary = f"{held} {'memory' if held == 1 else 'memories'} on {levels} level{'s' if levels != 1 else ''}"
    return {"name": name, "summary": summary, "svg": system.svg(), "text": str(system)}


def _downloads(
    results: Results, task: str, measured: Mapping[str, Measured], systems: Mapping[str, Any]
) -> list[dict[str, str]]:
    stem, trials = task.replace(":", "-"), trials_csv(results, task)
    return [
        download(f"{stem}-table.csv", "text/csv", to_csv(results, task)),
        *([download(f"{stem}-trials.csv", "text/csv", trials)] if trials else []),
        download(f"{stem}-curves.csv", "text/csv", curves_csv(measured)),
        download(f"{stem}-events.csv", "text/csv", events_csv(measured)),
        download(f"{stem}-systems.json", "application/json", json.dumps(systems, indent=1)),
    ]
