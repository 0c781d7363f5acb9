"""The tuned table as plain data: what ``results.json`` holds and every report is made from.

Numbers are reported for the setting that the validation split chose: test figures as mean over seeds with an interval
and as single values, the differences to the control, AdamW and Muon seed by seed with a test, the way to the
baseline's loss, and a warning where the best value lay at an edge that the grid could not leave. Losing and diverged
contenders have rows like all others.
"""

from __future__ import annotations

from statistics import mean
from typing import Any

from nestlearn.training.config import Settings
from nestlearn.training.contender import Contender
from nestlearn.training.contenders import BASELINE, MUON
from nestlearn.training.grid import budget
from nestlearn.training.matched import Matched, total_bytes
from nestlearn.training.spec import RunResult, RunSpec, Variant
from nestlearn.training.statistics import correct, interval, paired, spread
from nestlearn.training.tuning import Search

__all__ = ["figures", "reach", "summarise"]

Row = dict[str, Any]
COMPARISONS = ("against_control", "against_baseline", "against_muon")


def figures(results: list[RunResult], split: str) -> dict[str, Any]:
    """Mean, sample standard deviation and values of each figure, over the seeds; empty if one diverged."""
    if any(result.status != "finished" for result in results):
        return {}
    names = getattr(results[0], split)
    values = {name: [getattr(result, split)[name] for result in results] for name in names}
    return {name: {"mean": mean(v), "spread": spread(v), "values": v} for name, v in values.items()}


def reach(result: RunResult, target: float) -> tuple[float, float] | None:
    """The step and the seconds at which a run's validation loss first was at ``target`` or below, interpolated
    linearly from the look before; None if it never was.
    """
    before: list[float] | None = None
    for row in result.curve:
        step, seconds, loss = row
        if loss is not None and loss <= target:
            if before is None or before[2] is None:
                return step, seconds
            share = (before[2] - target) / (before[2] - loss)
            return before[0] + share * (step - before[0]), before[1] + share * (seconds - before[1])
        before = row
    return None


def _to_target(results: list[RunResult], target: float | None) -> dict[str, Any] | None:
    """Mean steps and seconds to the target over the seeds that reached it, and how many did."""
    if target is None:
        return None
    reached = [found for result in results if (found := reach(result, target)) is not None]
    return {
        "target": target,
        "steps": mean(step for step, _ in reached) if reached else None,
        "seconds": mean(seconds for _, seconds in reached) if reached else None,
        "reached": len(reached),
        "of": len(results),
    }


def _matched(specs: list[RunSpec] | None, results: dict[str, RunResult]) -> dict[str, Any] | None:
    """The row's column of a comparison at equal seconds or bytes."""
    if not specs:
        return None
    runs = [results[spec.key] for spec in specs]
    return {
        "steps": specs[0].steps,
        "size": dict(specs[0].size),
        "parameters": runs[0].parameters,
        "bytes": total_bytes(specs[0], runs[0]),
        "seconds": mean(run.curve[-1][1] if run.curve else 0.0 for run in runs),
        "status": "diverged" if any(run.status == "diverged" for run in runs) else "finished",
        "test": figures(runs, "test"),
        "runs": [run.key for run in runs],
    }


def _row(search: Search, matched: Matched | None) -> Row:
    specs, trials = search.chosen(), search.trials()
    runs = [search.results[spec.key] for spec in specs]
    every = [result for result in search.results.values() if result.status == "finished"]
    diverged = [result.reason for result in runs if result.status == "diverged"]
    ends = search.edges()
    test = figures(runs, "test")
    return {
        "name": search.variant.name,
        "contender": search.contender.name,
        "control": search.control,
        "family": search.contender.family,
        "equation": search.contender.equation,
        "about": search.contender.about,
        "status": "diverged" if diverged else "finished",
        "reason": diverged[0] if diverged else "",
        "settings": runs[0].settings,
        "fixed": dict(specs[0].fixed),
        "edges": [f"{name} at the {end} edge" for name, end in ends.items()],
        "warnings": [
            f"the best {name} ({runs[0].settings[name]:g}) is at the {end} edge of what was tried"
            for name, end in ends.items()
        ],
        "grid": {name: list(values) for name, values in search.axes.items()},
        "trials": [{"settings": t.settings, "status": t.status, "loss": t.validation.get("loss")} for t in trials],
        "trials_count": len(trials),
        "diverged_trials": sum(t.status == "diverged" for t in trials),
        "validation": figures(runs, "validation"),
        "test": test,
        "interval": interval(test["loss"]["values"]) if test else None,
        "step_ms": min((result.step_ms for result in every), default=None),
        "optimizer_ms": min((result.optimizer_ms for result in every), default=None),
        "state_bytes": runs[0].state_bytes,
        "parameters": runs[0].parameters,
        "equal_time": _matched(matched.at_time, matched.results) if matched else None,
        "equal_bytes": _matched(matched.at_bytes, matched.results) if matched else None,
        "runs": [result.key for result in runs],
        "spec": specs[0].to_plain(),
    }


def _control_of(contender: Contender) -> tuple[str | None, str]:
    """The name of a contender's control, and what makes it one."""
    if contender.control is None:
        return None, ""
    if isinstance(contender.control, Variant):
        return contender.control.name, contender.control.name
    return Variant(contender.name, True).name, ", ".join(f"{k}={v}" for k, v in contender.control.items())


def _difference(row: Row, other: Row | None) -> dict[str, Any] | None:
    """Test loss of ``row`` minus that of ``other``, seed by seed; negative is better than the other."""
    if other is None or other is row or not row["test"] or not other["test"]:
        return None
    return paired(row["test"]["loss"]["values"], other["test"]["loss"]["values"])


def _compare(rows: list[Row]) -> None:
    """Fill in the differences of every row, and the corrected p of the contenders'; a control makes no claim."""
    by_name = {row["name"]: row for row in rows}
    for row in rows:
        row["against_control"] = _difference(row, by_name.get(row["control_name"] or ""))
        row["against_baseline"] = _difference(row, by_name.get(BASELINE))
        row["against_muon"] = _difference(row, by_name.get(MUON))
    for column in COMPARISONS:
        correct([row[column] for row in rows if row[column] and not row["control"]])


def _task_rows(searches: list[Search], matched: dict[int, Matched]) -> list[Row]:
    rows = []
    for search in searches:
        row = _row(search, matched.get(id(search)))
        row["control_name"], row["control_is"] = (None, "") if row["control"] else _control_of(search.contender)
        rows.append(row)
    by_search = dict(zip((search.variant for search in searches), rows, strict=True))
    baseline = by_search.get(Variant(BASELINE))
    target = baseline["validation"]["loss"]["mean"] if baseline and baseline["validation"] else None
    for search, row in zip(searches, rows, strict=True):
        row["to_target"] = _to_target([search.results[key] for key in row["runs"]], target)
    _compare(rows)
    return sorted(rows, key=lambda row: row["test"]["loss"]["mean"] if row["test"] else float("inf"))


def summarise(searches: list[Search], settings: Settings, matched: list[Matched] | None = None) -> dict[str, Any]:
    """The table of a finished comparison: ``{"tasks": {task: [row, ...]}}``, contenders and controls, best test loss
    first; ``docs/compare.md`` explains the fields of a row.
    """
    of_search = {id(one.search): one for one in matched or ()}
    by_task: dict[str, list[Search]] = {}
    for search in searches:
        by_task.setdefault(search.task, []).append(search)
    tasks = {task: _task_rows(own, of_search) for task, own in by_task.items()}
    return {
        "baseline": BASELINE,
        "muon": MUON,
        "preset": settings.preset,
        "search": settings.search,
        "budget": budget(settings),
        "correction": "Holm, over the contenders of a task",
        "warnings": [
            f"{task}, {row['name']}: {text}" for task, rows in tasks.items() for row in rows for text in row["warnings"]
        ],
        "tasks": tasks,
    }
