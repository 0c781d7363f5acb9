"""The report: one HTML file that needs nothing but itself. Pictures are inline SVG, data are embedded for download."""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from nestlearn.errors import RunFolderError
from nestlearn.foreign import foreign
from nestlearn.report import memories, pictures
from nestlearn.report.colours import stylesheet
from nestlearn.report.downloads import download
from nestlearn.report.folders import Contents, read_contents
from nestlearn.report.sections import section
from nestlearn.report.series import measure
from nestlearn.tasks import sources
from nestlearn.tasks.about import about
from nestlearn.training.run_folder import write_atomic

__all__ = ["stand_alone", "write_pictures", "write_report"]


def write_report(path: Path) -> tuple[Path, list[str]]:
    """Make ``report.html`` of the run folder ``path`` from its files; returns where it is, and notes about what is
    missing.

    Raises:
        RunFolderError: the folder is not a run folder, is not finished, or holds a broken file.
    """
    with _no_collection():
        contents, notes = read_contents(path)
        with foreign(RunFolderError, f"{path} holds what no run leaves, and no report can be made of it"):
            page = _page(contents)
        write_atomic(contents.folder.report, page)
    return contents.folder.report, notes


def write_pictures(path: Path, target: Path) -> list[Path]:
    """Write the main pictures of the run folder ``path`` into ``target``, one SVG file each: ``task-picture.svg``, and
    ``task-score-optimizer.svg`` for the level score of each optimizer that is described.

    Raises:
        RunFolderError: as ``write_report``.
    """
    contents, _ = read_contents(path)
    target.mkdir(parents=True, exist_ok=True)
    with foreign(RunFolderError, f"{path} holds what no run leaves, and no pictures can be made of it"):
        pictured = dict(_pictures(contents))
    written = []
    for name, picture in pictured.items():
        written.append(target / f"{re.sub(r'[^A-Za-z0-9._-]', '-', name)[:100]}.svg")
        write_atomic(written[-1], picture)
    return written


def _pictures(contents: Contents) -> Iterator[tuple[str, str]]:
    """Name and content of each picture."""
    results, baseline = contents.results, contents.results.baseline
    for task, rows in results.tasks.items():
        told, measured = about(task), measure(rows, contents.runs)
        steps, seconds = pictures.curves(rows, measured, baseline, told.unit)
        drawn = {
            "ranking": pictures.ranking(rows, baseline, told.unit, told.least),
            "steps": steps,
            "seconds": seconds,
        }
        systems = contents.systems.get(task, {})
        for row in rows:
            if row.name in systems and not row.control:
                picture = memories.score(row, measured[row.name], systems[row.name])
                drawn[f"score-{row.name}"] = picture
        for name, picture in drawn.items():
            yield f"{task}-{name}", stand_alone(picture)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Hundreds of thousands of small objects are made and kept: to look for garbage among them doubles the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _own_file(name: str) -> str:
    return files("nestlearn.report").joinpath(name).read_text(encoding="utf-8")


def stand_alone(svg: str) -> str:
    """A picture of the report as a file of its own, with its namespace, its size, its colours for both papers, and a
    font. Of its own size it has text as large as the text around it; a narrower page makes it smaller.
    """
    width, height = svg.partition('viewBox="0 0 ')[2].partition('"')[0].split()
    style = (
        f"svg.plot {{ {stylesheet(dark=False)} background: var(--paper); font-family: system-ui, sans-serif; "
        f"width: {width}px; max-width: 100%; }} "
        f"@media (prefers-color-scheme: dark) {{ svg.plot {{ {stylesheet(dark=True)} }} }}\n{_own_file('pictures.css')}"
    )
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
    svg = re.sub(r' (?:data-of|data-read)="[^"]*"| style="--wide: [^"]*"', "", svg)  # of use to the page alone
    head, _, rest = svg.replace("<svg ", opening, 1).partition(">")
    return f"{head}><style>{style}</style>{rest}"


def _parted(name: str) -> Markup:
    """A name that may be broken before a capital, and behind a mark, where there is no room for it."""
    return Markup("<wbr>").join(re.split(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[.:_])(?=.)", name))


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_own_file),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["parted"] = _parted
    return environment.get_template("page.html.j2")


def _page(contents: Contents) -> str:
    results, systems = contents.results, contents.systems
    return _template().render(
        kind=contents.kind,
        tasks=[
            section(results, task, contents.runs, systems.get(task, {}), number)
            for number, task in enumerate(results.tasks, start=1)
        ],
        baseline=results.baseline,
        budget=results.budget,
        facts=_facts(contents),
        environment=contents.environment,
        sources=sources(results.tasks),
        config=contents.config,
        downloads=[
            download("results.json", "application/json", contents.folder.results.read_text(encoding="utf-8")),
            download("systems.json", "application/json", json.dumps(systems, indent=1)),
            download("environment.json", "application/json", json.dumps(contents.environment, indent=1)),
            download("config.yaml", "application/yaml", contents.config),
        ],
        light=stylesheet(dark=False),
        dark=stylesheet(dark=True),
        styles=_own_file("page.css") + _own_file("pictures.css"),
        script="".join(map(_own_file, ("downloads.js", "tables.js", "legend.js", "crosshair.js"))),
    )


def _facts(contents: Contents) -> list[str]:
    """The line under the title: how many seeds, when, where, and how long it took."""
    environment: dict[str, Any] = contents.environment
    seeds = max((len(row.runs) for rows in contents.results.tasks.values() for row in rows), default=0)
    facts = [f"{seeds} seed{'s' if seeds != 1 else ''}"]
    facts += [str(environment[name]) for name in ("started", "processor") if name in environment]
    if "torch" in environment:
        facts.append(f"torch {environment['torch']}")
    if "seconds" in environment:
        facts.append(f"{environment['seconds'] / 60:.1f} minutes")
    return facts
