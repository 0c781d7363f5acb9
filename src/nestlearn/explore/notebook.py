"""Runs in a notebook: the page of ``nestlearn explore`` as an anywidget, for Jupyter, marimo and what shows those."""

from __future__ import annotations

import json
from functools import cache, partial
from importlib import import_module
from importlib.resources import files
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

from nestlearn.errors import MissingPackageError
from nestlearn.explore.answers import POINTS
from nestlearn.explore.bundle import page
from nestlearn.explore.export import held
from nestlearn.explore.runs import Shelf

__all__ = ["View", "explore"]


class View(Protocol):
    """Runs in a cell: an ``anywidget.AnyWidget``.

    Attributes:
        held: what the page shows, as `nestlearn.explore.export.held` gives it.
        height: of the cell, in pixels.
    """

    held: dict[str, Any]
    height: int

    def refresh(self) -> None:
        """Show what was written since. In a loop it is seen at once, before its cell is done."""


def explore(*runs: str | PathLike[str], points: int = POINTS, most: int = 4 << 20, height: int = 760) -> View:
    """Runs as a widget, which a notebook shows where it is the last line of a cell.

    It shows what `nestlearn explore --export` writes, and fetches nothing.

    Args:
        runs: folders of runs or records, or such that hold some; "runs" if none is named.
        points: of a line, at most.
        most: bytes of data that the notebook is sent each time, at most: frozen steps take what lines leave.
        height: of the widget, in pixels.

    Raises:
        MissingPackageError: anywidget is not installed.
        RunFolderError: one is no folder, or the lines do not fit into half of ``most``.

    Example:
        In a notebook, with the extra ``notebook``::

            from nestlearn.explore.notebook import explore

            explore("runs/mine")
    """
    view: View = _view()(Shelf(map(Path, runs or ("runs",))), points, most, height)
    return view


@cache
def _view() -> Any:
    """The class of widgets, where there is anywidget."""
    try:
        anywidget: Any = import_module("anywidget")
        traitlets: Any = import_module("traitlets")
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f'a view needs {error.name}, which is not installed: pip install "nestlearn[notebook]"', name=error.name
        ) from error

    class Explore(anywidget.AnyWidget):  # type: ignore[misc]
        _esm = _script()
        held = traitlets.Dict().tag(sync=True)
        height = traitlets.Int().tag(sync=True)

        def __init__(self, shelf: Shelf, points: int, most: int, height: int) -> None:
            self._told = partial(held, shelf, points, most)
            super().__init__(held=self._told(), height=height)

        def refresh(self) -> None:
            self.held = self._told()

    return Explore


def _script() -> str:
    """What the notebook's page runs: the page as text, and what puts it into a frame."""
    own = files("nestlearn.explore").joinpath("widget.js").read_text(encoding="utf-8")
    return f"const PAGE = {json.dumps(page(None))};\n{own}"
