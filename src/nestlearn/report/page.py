"""The report: one HTML file that needs nothing but itself. Pictures are inline SVG, data are embedded for download."""

from __future__ import annotations

import base64
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2

from nestlearn.report import pictures
from nestlearn.report.colours import stand_alone, stylesheet
from nestlearn.report.tables import columns, helps, table_rows, to_csv
from nestlearn.tasks import TASKS, sources
from nestlearn.training import RunFolder, RunFolderError, RunResult, Settings, options
from nestlearn.training.run_folder import write_atomic

__all__ = ["write_pictures", "write_report"]


def write_report(path: Path) -> tuple[Path, list[str]]:
    """Make ``report.html`` of the run folder ``path`` from its files; returns where it is, and notes about lines cut
    short.

    Raises:
        RunFolderError: the folder is not a run folder, is not finished, or holds a broken file.
    """
    folder = RunFolder.open(path)
    runs, notes = folder.runs()
    results, environment = _read_json(folder.results), _read_json(folder.environment)
    try:
        settings = options.merge(Settings(), options.read(folder.config))
    except ValueError as error:
        raise RunFolderError(f"{folder.config}: {error}") from error
    write_atomic(folder.report, _page(results, runs, environment, settings))
    return folder.report, notes


def write_pictures(path: Path, target: Path) -> list[Path]:
    """Write the pictures of the run folder ``path`` into ``target``, one SVG file each: ``task-picture.svg``.

    Raises:
        RunFolderError: as ``write_report``.
    """
    folder = RunFolder.open(path)
    runs, _ = folder.runs()
    results = _read_json(folder.results)
    target.mkdir(parents=True, exist_ok=True)
    written = []
    for task, rows in results["tasks"].items():
        drawn = {
            "ranking": pictures.ranking(rows, results["baseline"]),
            "curves": pictures.curves(rows, runs, results["baseline"]),
        }
        for name, picture in drawn.items():
            written.append(target / f"{task}-{name}.svg")
            write_atomic(written[-1], stand_alone(picture))
    return written


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunFolderError(
            f"{path.parent} holds no {path.name}: the comparison is not finished. "
            f"Continue it with: nestlearn compare --resume {path.parent}"
        ) from error
    except json.JSONDecodeError as error:
        raise RunFolderError(f"{path}, line {error.lineno}: expected JSON ({error.msg})") from error
    return content


def _page(results: dict[str, Any], runs: dict[str, RunResult], environment: dict[str, Any], settings: Settings) -> str:
    loader = jinja2.FunctionLoader(lambda name: files("nestlearn.report").joinpath(name).read_text(encoding="utf-8"))
    template = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).get_template("page.html.j2")
    return template.render(
        tasks=[_section(results, task, runs, settings) for task in results["tasks"]],
        baseline=results["baseline"],
        environment=environment,
        settings=settings,
        sources=sources(results["tasks"]),
        config=options.to_yaml(settings),
        downloads=[_download("results.json", "application/json", json.dumps(results))],
        light=stylesheet(dark=False),
        dark=stylesheet(dark=True),
    )


def _section(results: dict[str, Any], task: str, runs: dict[str, RunResult], settings: Settings) -> dict[str, Any]:
    rows, baseline = results["tasks"][task], results["baseline"]
    return {
        "name": task,
        "title": TASKS[task].title,
        "steps": settings.steps_of(task),
        "parameters": rows[0]["parameters"],
        "findings": _findings(rows, baseline),
        "columns": columns(task),
        "rows": table_rows(results, task),
        "ranking": pictures.ranking(rows, baseline),
        "curves": pictures.curves(rows, runs, baseline),
        "panels": pictures.panels(rows, runs, baseline),
        "rates": pictures.rates(rows, baseline),
        "surprises": pictures.surprises(rows, runs),
        "controls": [row for row in rows if row["control_name"]],
        "diverged": [row for row in rows if row["status"] == "diverged"],
        "downloads": [
            _download(f"{task}.csv", "text/csv", to_csv(results, task)),
            _download(f"{task}-curves.csv", "text/csv", _curves_csv(rows, runs)),
        ],
    }


def _findings(rows: list[dict[str, Any]], baseline: str) -> dict[str, Any]:
    """What the numbers say: the best, and who beat the baseline and its own control on every seed."""
    contenders = [row for row in rows if not row["control"] and row["test"]]

    return {
        "best": contenders[0] if contenders else None,
        "baseline": next((row for row in contenders if row["name"] == baseline), None),
        "better": [row["name"] for row in contenders if helps(row["against_baseline"])],
        "helped": [row["name"] for row in contenders if helps(row["against_control"])],
        "hurt": [row["name"] for row in contenders if helps(row["against_control"]) is False],
        "open": [row["name"] for row in contenders if row["against_control"] and helps(row["against_control"]) is None],
    }


def _curves_csv(rows: list[dict[str, Any]], runs: dict[str, RunResult]) -> str:
    lines = ["optimizer,seed,kind,step,seconds,loss"]
    for row in rows:
        for run in (runs[key] for key in row["runs"] if key in runs):
            for kind, series in (("train", run.train), ("validation", run.curve)):
                lines.extend(f"{row['name']},{run.seed},{kind},{s:.0f},{t:.4f},{v}" for s, t, v in series)
    return "\n".join(lines) + "\n"


def _download(name: str, kind: str, text: str) -> dict[str, str]:
    data = base64.b64encode(text.encode("utf-8")).decode("ascii")
    return {"name": name, "uri": f"data:{kind};charset=utf-8;base64,{data}"}
