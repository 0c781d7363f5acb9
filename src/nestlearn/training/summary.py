"""The tuned table as plain data: what ``results.json`` holds and every report is made from.

Numbers are reported for the setting that the validation split chose: test figures as mean over seeds and as single
values, the control beside its contender, their difference seed by seed, and a mark where the best value lay at the
edge of its grid.
"""

from __future__ import annotations

from statistics import mean, stdev
from typing import Any

from nestlearn.training.contenders import BASELINE, CONTENDERS, Contender
from nestlearn.training.spec import RunResult, Variant
from nestlearn.training.tuning import Search

__all__ = ["summarise"]


def _edges(search: Search, chosen: RunResult) -> list[str]:
    """The names of the settings whose chosen value is the lowest or highest of its grid."""
    return [
        f"{name} at the {'low' if chosen.settings[name] == min(values) else 'high'} edge"
        for name, values in search.axes.items()
        if len(values) > 2 and chosen.settings[name] in (min(values), max(values))
    ]


def _figures(results: list[RunResult], split: str) -> dict[str, Any]:
    """Mean, sample standard deviation and values of each figure, over the seeds; empty if one diverged."""
    if any(result.status != "finished" for result in results):
        return {}
    names = getattr(results[0], split)
    values = {name: [getattr(result, split)[name] for result in results] for name in names}
    return {
        name: {"mean": mean(v), "spread": stdev(v) if len(v) > 1 else None, "values": v} for name, v in values.items()
    }


def _variant(search: Search) -> dict[str, Any]:
    runs, trials = search.chosen(), search.trials()
    every = [result for result in search.results.values() if result.status == "finished"]
    diverged = [result.reason for result in runs if result.status == "diverged"]
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
        "edges": _edges(search, runs[0]),
        "grid": {name: list(values) for name, values in search.axes.items()},
        "trials": [{"settings": t.settings, "status": t.status, "loss": t.validation.get("loss")} for t in trials],
        "diverged_trials": sum(t.status == "diverged" for t in trials),
        "validation": _figures(runs, "validation"),
        "test": _figures(runs, "test"),
        "step_ms": min((result.step_ms for result in every), default=None),
        "optimizer_ms": min((result.optimizer_ms for result in every), default=None),
        "state_bytes": runs[0].state_bytes,
        "parameters": runs[0].parameters,
        "runs": [result.key for result in runs],
    }


def _control_of(contender: Contender) -> tuple[str | None, str]:
    """The name of a contender's control, and what makes it one."""
    if contender.control is None:
        return None, ""
    if isinstance(contender.control, Variant):
        return contender.control.name, contender.control.name
    return Variant(contender.name, True).name, ", ".join(f"{k}={v}" for k, v in contender.control.items())


def _difference(row: dict[str, Any], other: dict[str, Any] | None) -> dict[str, Any] | None:
    """Test loss of ``row`` minus that of ``other``, seed by seed; negative is better than the other."""
    if other is None or not row["test"] or not other["test"]:
        return None
    pairs = zip(row["test"]["loss"]["values"], other["test"]["loss"]["values"], strict=True)
    values = [mine - others for mine, others in pairs]
    return {"mean": mean(values), "spread": stdev(values) if len(values) > 1 else None, "values": values}


def summarise(searches: list[Search]) -> dict[str, Any]:
    """The table of a finished comparison: ``{"tasks": {task: [row, ...]}}``, contenders and controls, best test loss
    first.
    """
    tasks: dict[str, list[dict[str, Any]]] = {}
    for search in searches:
        tasks.setdefault(search.task, []).append(_variant(search))
    for rows in tasks.values():
        by_name = {row["name"]: row for row in rows}
        for row in rows:
            row["control_name"], row["control_is"] = (
                (None, "") if row["control"] else _control_of(CONTENDERS[row["contender"]])
            )
            row["against_control"] = _difference(row, by_name.get(row["control_name"] or ""))
            row["against_baseline"] = None if row["name"] == BASELINE else _difference(row, by_name.get(BASELINE))
        rows.sort(key=lambda row: row["test"]["loss"]["mean"] if row["test"] else float("inf"))
    return {"baseline": BASELINE, "tasks": tasks}
