"""Reading the files of a run folder for a report: a missing or broken one is named, with its line."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nestlearn.descriptions import NestedSystem
from nestlearn.foreign import foreign, printable, read_bytes, read_json, shown
from nestlearn.training import Results, RunFolder, RunFolderError, RunResult, read_settings

__all__ = ["Contents", "read_contents", "read_results", "read_systems"]

MOST = 1 << 63
MOST_CONFIG = 1 << 18  # bytes, as of all files with settings

Json = dict[str, Any]


@dataclass(frozen=True)
class Contents:
    """All that a report is made from: ``kind`` is "compare" or "train", ``config`` the text of the settings."""

    folder: RunFolder
    kind: str
    results: Results
    runs: dict[str, RunResult]
    systems: Json
    environment: Json
    config: str


def _read_json(path: Path) -> Json:
    """The object in a JSON file of a run folder.

    Raises:
        RunFolderError: it is not there, or broken.
    """
    if not path.exists():
        raise RunFolderError(
            f"{path.parent} holds no {path.name}: it is not finished. Continue it with --resume {path.parent}"
        )
    content = read_json(path, RunFolderError)
    _check_numbers(content, path)
    return content


def _check_numbers(value: Any, path: Path) -> None:
    """Raise RunFolderError for a whole number that no counter reaches, or text that is none."""
    if isinstance(value, dict):
        for key, item in value.items():
            _check_numbers(key, path)
            _check_numbers(item, path)
    elif isinstance(value, list):
        for item in value:
            _check_numbers(item, path)
    elif (isinstance(value, int) and abs(value) >= MOST) or (isinstance(value, float) and not math.isfinite(value)):
        raise RunFolderError(f"{path}: {shown(value)} is no number of a run")
    elif isinstance(value, str) and not value.isascii():
        with foreign(RunFolderError, f"{path}: {shown(value)} is no text"):
            value.encode("utf-8")


def read_results(folder: RunFolder) -> Results:
    """The tables of a run folder.

    Raises:
        RunFolderError: they are not there, or broken.
    """
    plain = _read_json(folder.results)
    try:
        results = Results.from_plain(plain)
    except ValidationError as error:
        first = error.errors()[0]
        where = printable(".".join(map(str, first["loc"])))
        raise RunFolderError(f"{folder.results}: not the results of a run ({where}: {first['msg']})") from error
    if not results.tasks or not all(results.tasks.values()):
        raise RunFolderError(f"{folder.results}: not the results of a run (tasks: expected one with a row at least)")
    return results


def read_systems(folder: RunFolder) -> Json:
    """What ``systems.json`` says, by task and row.

    Raises:
        RunFolderError: it is not there, or holds something else.
    """
    path = folder.path / "systems.json"
    systems = _read_json(path)
    for task, rows in systems.items():
        pairs: Iterable[tuple[str, Any]] = rows.items() if isinstance(rows, dict) else [("", rows)]
        for name, system in pairs:
            with foreign(RunFolderError, f"{path}: no description of {shown(name)} on {shown(task)}"):
                described = NestedSystem.from_dict(system)
                str(described), described.svg()
    return systems


def read_contents(path: Path) -> tuple[Contents, list[str]]:
    """The contents of the run folder ``path``, and notes about what is missing or cut short.

    Raises:
        RunFolderError: it is not a run folder, is not finished, or holds a broken file.
    """
    folder = RunFolder.open(path)
    runs, notes = folder.runs()
    systems: Json = {}
    if (folder.path / "systems.json").exists():
        systems = read_systems(folder)
    else:
        notes.append("systems.json is not there, so there are no pictures of the nesting and no level score")
    try:
        kind = read_settings(folder.config)["kind"]
    except ValueError as error:
        raise RunFolderError(str(error)) from error
    except KeyError as error:
        raise RunFolderError(f"{folder.config}: expected a field `kind`, as in `kind: compare`") from error
    results, environment = read_results(folder), _read_json(folder.environment)
    for name in ("seconds", "workers"):
        if name in environment and not isinstance(environment[name], int | float):
            raise RunFolderError(f"{folder.environment}: {name}: expected a number, got {shown(environment[name])}")
    config = read_bytes(folder.config, RunFolderError, MOST_CONFIG).decode("utf-8")
    return Contents(folder, printable(str(kind)), results, runs, systems, environment, config), notes
