"""The ground that all pictures share: one style, figures as SVG text, and a grid of small panels."""

from __future__ import annotations

import io
import re
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nestlearn.report.colours import INK, QUIET, to_css

__all__ = ["STYLE", "figure_of", "panel_grid", "svg"]

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "nestlearn",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": QUIET,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": QUIET,
    "grid.linewidth": 0.6,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "lines.solid_capstyle": "round",
}


def svg(figure: Figure, label: str) -> str:
    """The figure as one ``<svg>`` element that scales with the page and says what it shows."""
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"font: ([0-9.]+px) [^;\"]*", r"font-size: \1", text)  # the page's own font
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    return to_css(text.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1))


def figure_of(
    width: float, height: float, rows: int = 1, columns: int = 1, **options: Any
) -> tuple[Figure, list[Axes]]:
    """A figure of so many inches and its axes, row by row; ``options`` go to ``Figure.subplots``."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, list(axes.flat)


def panel_grid(count: int, columns: int = 4, sharey: bool = True) -> tuple[Figure, list[Axes]]:
    """A figure with ``count`` small panels of one size, filled row by row."""
    rows = max(1, -(-count // columns))
    figure, grid = figure_of(11.0, 0.3 + 1.85 * rows, rows, columns, sharex=True, sharey=sharey)
    for axes in grid[count:]:
        axes.set_visible(False)
    for place, axes in enumerate(grid):
        lowest = place + columns >= count  # nothing below it: its steps must be readable here
        axes.tick_params(which="both", length=0, labelbottom=lowest)
    return figure, grid
