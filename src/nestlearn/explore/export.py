"""Runs as one HTML file: the page of `nestlearn explore` with what it shows inside, for who has no server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nestlearn.errors import NestlearnError, RunFolderError
from nestlearn.explore.answers import POINTS, notes, score, series
from nestlearn.explore.bundle import embedded, page
from nestlearn.explore.runs import MOST_NAME, Run, Shelf
from nestlearn.files import write_atomic
from nestlearn.foreign import printable

__all__ = ["MOST", "held", "write_page"]

MOST = 16 << 20
"""Bytes of data in a file, unless somebody asks for more."""

FEWEST = 16
"""Points of a line below which nothing is told any more."""


def write_page(shelf: Shelf, path: Path, points: int = POINTS, most: int = MOST) -> Path:
    """Write the runs to ``path``, an HTML file that needs no server and no network, and return the path.

    Args:
        shelf: the runs.
        path: the file; its folder is made where there is none.
        points: of a line, at most.
        most: bytes of data in it, at most; see `held`.

    Raises:
        RunFolderError: there is no run, or so many that they do not fit.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import mkdtemp
        >>> folder = Path(mkdtemp())
        >>> line = '{"kind": "train", "run": "mine", "step": 1, "seconds": 0.1, "loss": 2.0}'
        >>> _ = (folder / "metrics.jsonl").write_text(line + chr(10))
        >>> write_page(Shelf([folder]), folder / "mine.html").name
        'mine.html'
    """
    data = held(shelf, points, most)
    if not data["runs"]:
        raise RunFolderError(f"no run is in {', '.join(map(str, shelf.paths))}: there is nothing to write to {path}")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, page(data))
    return path


def held(shelf: Shelf, points: int = POINTS, most: int = MOST) -> dict[str, Any]:
    """What the page shows of all runs: as ``--json`` tells it, and frozen steps by their number.

    Lines have half as many points again and again until they fit into half of ``most`` bytes. Frozen steps take what is
    left, every run the same share of it: the last one, and before it as many at even distances as there is room for.
    The page says what was left out.

    Returns:
        {"runs": [{"id", "folder", ..., "series", "score", "systems", "steps": {"10": {...}}}], "notes": [...]}

    Raises:
        RunFolderError: so many runs or lanes that they do not fit with 16 points a line.
    """
    runs = shelf.refresh()
    told = _lines(runs, points)
    while (size := _size(told)) > most // 2:
        if points <= FEWEST:
            raise RunFolderError(
                f"the lines of {len(runs):,} runs take {size:,} bytes with {points} points each; expected at most "
                f"{most // 2:,}, half of the bound: name fewer runs, or a higher bound"
            )
        points = max(FEWEST, points // 2)
        told = _lines(runs, points)
    said = notes(shelf)
    share = (most - size) // max(1, len(runs))
    for run, one in zip(runs, told, strict=True):
        one["steps"] = _steps(run, share)
        one["frozen"] = sorted(map(int, one["steps"]))
        if len(one["frozen"]) < (whole := len(run.frozen())):
            said.append(f"{one['run']}: {len(one['frozen'])} of {whole} frozen steps are in this page")
    return {"runs": told, "notes": said}


def _lines(runs: list[Run], points: int) -> list[dict[str, Any]]:
    return [
        {**_about(run), "series": series(run, points), "score": score(run, points), "systems": run.systems()}
        for run in runs
    ]


def _about(run: Run) -> dict[str, Any]:
    """What a list of runs says, less what only this machine can use: where folders lie, and what a server would do."""
    told = run.to_dict()
    said = {name: told[name] for name in ("id", "run", "latest", "status", "loss", "lanes", "row")}
    forked = told["forked"] and {**told["forked"], "folder": Path(told["forked"]["folder"]).name}
    return {**said, "folder": printable(run.folder.name, MOST_NAME), "forked": forked, "checkpoints": []}


def _steps(run: Run, most: int) -> dict[str, Any]:
    """Frozen steps that fit into so many bytes: the last one, and others at even distances; broken ones are none."""
    frozen, found, size = run.frozen(), dict[str, Any](), 0
    for place in _spread(len(frozen)):
        try:
            step = run.step(frozen[place])
        except NestlearnError:
            continue
        size += _size(step)
        if size > most:
            break
        found[str(frozen[place])] = step
    return found


def _spread(count: int) -> list[int]:
    """The places 0 to ``count`` - 1, the last first, then such that each beginning is spread over all of them.

    Example:
        >>> _spread(5)
        [4, 0, 2, 1, 3]
    """
    order, width = ([count - 1] if count else []), 1
    while width < 2 * count:
        order += [place for i in range(width) if (place := i * (count - 1) // width) not in order]
        width *= 2
    return order


def _size(told: Any) -> int:
    """Bytes of data in the page."""
    return len(embedded(told))
