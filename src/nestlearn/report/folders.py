"""Reading the files of a run folder for a report: a missing or broken one is named, with its line."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from nestlearn.training import Results, RunFolder, RunFolderError, RunResult, read_settings

__all__ = ["Contents", "read_contents", "read_results"]

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
    try:
        content: Json = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunFolderError(
            f"{path.parent} holds no {path.name}: it is not finished. Continue it with --resume {path.parent}"
        ) from error
    except json.JSONDecodeError as error:
        raise RunFolderError(f"{path}, line {error.lineno}: expected JSON ({error.msg})") from error
    return content


def read_results(folder: RunFolder) -> Results:
    """The tables of a run folder.

    Raises:
        RunFolderError: they are not there, or broken.
    """
    try:
        return Results.from_plain(_read_json(folder.results))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise RunFolderError(f"{folder.results}: not the results of a run ({where}: {first['msg']})") from error


def read_contents(path: Path) -> tuple[Contents, list[str]]:
    """The contents of the run folder ``path``, and notes about what is missing or cut short.

    Raises:
        RunFolderError: it is not a run folder, is not finished, or holds a broken file.
    """
    folder = RunFolder.open(path)
    runs, notes = folder.runs()
    systems: Json = {}
    if (folder.path / "systems.json").is_file():
        systems = _read_json(folder.path / "systems.json")
    else:
        notes.append("systems.json is not there, so there are no pictures of the nesting and no level score")
    try:
        kind = read_settings(folder.config)["kind"]
    except ValueError as error:
        raise RunFolderError(str(error)) from error
    except KeyError as error:
        raise RunFolderError(f"{folder.config}: expected a field `kind`, as in `kind: compare`") from error
    results, environment = read_results(folder), _read_json(folder.environment)
    config = folder.config.read_text(encoding="utf-8")
    return Contents(folder, kind, results, runs, systems, environment, config), notes
