"""``systems.json``: how each contender of a run folder is nested, described from the optimizer itself.

That takes torch, which the rest of a report does without: so it is imported when the work begins.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from nestlearn.descriptions import NestedSystem
from nestlearn.foreign import foreign, printable, reason
from nestlearn.report.folders import read_results
from nestlearn.training import Row, RunFolder, RunFolderError
from nestlearn.training.run_folder import write_atomic

__all__ = ["write_systems"]


def write_systems(path: Path) -> Path:
    """Describe the optimizer of every row of the run folder ``path`` and write ``systems.json``; returns where it is.

    Each optimizer is made as the run made it, for the task's network on the CPU, and takes no step.

    Raises:
        RunFolderError: the folder is not a run folder, is not finished, or a row's run cannot be made again here.
    """
    folder = RunFolder.open(path)
    results = read_results(folder)
    systems = {
        task: {row.name: _describe(folder, row).to_dict() for row in rows} for task, rows in results.tasks.items()
    }
    target = folder.path / "systems.json"
    write_atomic(target, json.dumps(systems, indent=1) + "\n")
    return target


def _describe(folder: RunFolder, row: Row) -> NestedSystem:
    from nestlearn.descriptions import describe
    from nestlearn.optim import tables
    from nestlearn.training import RunSpec
    from nestlearn.training.room import check_room

    try:
        spec = replace(RunSpec.from_plain(row.spec), device="cpu")
    except Exception as error:  # it may hold anything
        what = f"{folder.results}: the spec of {printable(row.name)} is not one of a run"
        raise RunFolderError(f"{what} ({reason(error)})") from error
    with foreign(RunFolderError, f"the optimizer of {printable(row.name)} cannot be made again here"):
        check_room(spec.task, dict(spec.size), "cpu", spec.dtype)
        task = spec.make_task()
        model = task.build(spec.seed)
        found = tables(model, output=task.ends(model))
        return describe(*spec.contender.make(model, tables=found, **spec.arguments))
