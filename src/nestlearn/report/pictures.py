"""The pictures of a report, as SVG text for the page: drawn by matplotlib, coloured by the page's style sheet.

Text stays text, so it takes the page's font and colour. No picture needs its colours to be told apart: every line and
row is labelled where it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.ticker import FormatStrFormatter, LogLocator, MaxNLocator, NullLocator

from nestlearn.report.colours import PAPER, stand_in
from nestlearn.report.drawing import STYLE, figure_of, panel_grid, svg
from nestlearn.training import RunResult

__all__ = ["curves", "panels", "ranking", "rates", "surprises"]

Row = Mapping[str, Any]
Runs = Mapping[str, RunResult]
Line = tuple[list[float], list[float], list[float], list[float]]  # x, mean, lowest, highest over the seeds

STEPS, SECONDS = 0, 1


def _line(row: Row, runs: Runs, kind: int) -> Line | None:
    """The validation loss of a row's runs against steps or seconds, over the seeds; None if a run diverged."""
    series = [runs[key].curve for key in row["runs"] if key in runs and runs[key].status == "finished"]
    if len(series) != len(row["runs"]) or not all(series) or any(v is None for s in series for *_, v in s):
        return None
    x = [mean(point[kind] for point in points) for points in zip(*series, strict=True)]
    losses = [[point[2] for point in points] for points in zip(*series, strict=True)]
    return x, [mean(v) for v in losses], [min(v) for v in losses], [max(v) for v in losses]


def _ceiling(rows: Sequence[Row], runs: Runs, baseline: str) -> tuple[float, float]:
    """Loss limits that show the end of training: from just below the best to what the baseline had early on."""
    lines = {row["name"]: line for row in rows if (line := _line(row, runs, STEPS))}
    if not lines:
        return 0.0, 1.0
    lowest = min(min(line[1]) for line in lines.values())
    reference = lines.get(baseline) or next(iter(lines.values()))
    ends = sorted(line[1][-1] for line in lines.values())
    highest = max(reference[1][min(1, len(reference[1]) - 1)], ends[int(0.8 * (len(ends) - 1))])
    margin = 0.06 * (highest - lowest) or 0.01
    return lowest - margin, highest + margin


def ranking(rows: Sequence[Row], baseline: str) -> str:
    """Test loss of every contender: filled dots are its seeds' mean, ticks the seeds, open dots its control."""
    with matplotlib.rc_context(STYLE):
        by_name = {row["name"]: row for row in rows}
        shown = [row for row in rows if not row["control"]]
        figure, (axes,) = figure_of(8.2, 0.9 + 0.33 * len(shown))
        means = [r["test"]["loss"]["mean"] for r in rows if r["test"]]
        limit = _outlier_limit(means)
        reference = by_name[baseline]["test"]
        if reference:
            axes.axvline(reference["loss"]["mean"], color=stand_in(baseline), linewidth=1.0, linestyle=(0, (2, 3)))
        for y, row in enumerate(shown):
            _rank_row(axes, y, row, by_name.get(row["control_name"] or ""), limit)
        axes.set_yticks(range(len(shown)), [row["name"] for row in shown])
        axes.set_ylim(len(shown) - 0.4, -0.6)
        span = (limit - min(means, default=0.0)) or 0.1
        axes.set_xlim(min(means, default=0.0) - 0.04 * span, limit + 0.06 * span)
        axes.tick_params(length=0)
        axes.set_xlabel("test loss (nats)")
        return svg(figure, "Test loss of every optimizer and of its control")


def _outlier_limit(values: Sequence[float]) -> float:
    """Where the axis ends: at the largest value, or well before it if a few values lie far outside."""
    if not values:
        return 1.0
    ordered = sorted(values)
    middle = ordered[len(ordered) // 2]
    return min(ordered[-1], middle + 3.0 * (middle - ordered[0]) + 1e-6)


def _rank_row(axes: Axes, y: int, row: Row, control: Row | None, limit: float) -> None:
    colour = stand_in(row["contender"])
    if not row["test"]:
        axes.annotate("diverged", (1.0, y), xycoords=("axes fraction", "data"), ha="right", va="center", fontsize=9)
        return
    value = row["test"]["loss"]["mean"]
    if control and control["test"]:
        other = control["test"]["loss"]["mean"]
        axes.plot([value, min(other, limit)], [y, y], color=colour, linewidth=1.4, alpha=0.45)
        if other <= limit:
            axes.plot(other, y, "o", markersize=6.5, markerfacecolor=PAPER, markeredgecolor=colour, markeredgewidth=1.4)
    if value > limit:
        axes.annotate(
            f"{value:.3f} →",
            (1.0, y),
            xycoords=("axes fraction", "data"),
            ha="right",
            va="center",
            fontsize=9,
            bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 2},
        )
        return
    axes.plot(row["test"]["loss"]["values"], [y] * len(row["test"]["loss"]["values"]), "|", color=colour, markersize=11)
    axes.plot(value, y, "o", color=colour, markersize=7)


def curves(rows: Sequence[Row], runs: Runs, baseline: str) -> str:
    """Validation loss of all contenders, against steps on the left and against seconds on the right."""
    with matplotlib.rc_context(STYLE):
        shown = [row for row in rows if not row["control"]]
        figure, (left, right) = figure_of(11.0, 4.6, columns=2, sharey=True)
        bottom, top = _ceiling(rows, runs, baseline)
        for axes, kind, label in ((left, STEPS, "steps"), (right, SECONDS, "seconds of training, one thread")):
            ends = []
            for row in reversed(shown):
                line = _line(row, runs, kind)
                if line is None:
                    continue
                x, y = line[0], line[1]
                weight = 2.2 if row["name"] == baseline else 1.5
                axes.plot(x, y, color=stand_in(row["contender"]), linewidth=weight)
                if bottom <= y[-1] <= top:
                    ends.append((row["name"], x[-1], y[-1]))
                    axes.plot(x[-1], y[-1], "o", color=stand_in(row["contender"]), markersize=3.5)
            axes.set_ylim(bottom, top)
            axes.set_xlim(left=0)
            axes.xaxis.set_major_locator(MaxNLocator(5))
            axes.set_xlabel(label)
            axes.tick_params(length=0)
            _label_ends(axes, ends, bottom, top)
        left.set_ylabel("validation loss (nats)")
        return svg(figure, "Validation loss against steps and against seconds")


def _label_ends(axes: Axes, ends: list[tuple[str, float, float]], bottom: float, top: float) -> None:
    """Write each line's name to the right of the axes, beside its end, moved apart so that no two overlap."""
    ends = sorted(ends, key=lambda end: end[2])
    places = _apart([y for *_, y in ends], (top - bottom) / 21, bottom, top)
    for (name, x, y), place in zip(ends, places, strict=True):
        leader = {
            "arrowstyle": "-",
            "color": stand_in(name),
            "linewidth": 0.5,
            "alpha": 0.5,
            "shrinkB": 2,
            "shrinkA": 0,
        }
        axes.annotate(
            name,
            (x, y),
            xytext=(1.03, place),
            textcoords=("axes fraction", "data"),
            color=stand_in(name),
            fontsize=8.5,
            va="center",
            annotation_clip=False,
            arrowprops=leader,
        )


def _apart(wanted: Sequence[float], gap: float, bottom: float, top: float) -> list[float]:
    """Places at least ``gap`` apart, each near its wanted one (ascending), inside the limits."""
    groups: list[list[float]] = []  # values less their rank times gap: a group is a run of labels that touch
    for rank, value in enumerate(wanted):
        groups.append([value - rank * gap])
        while len(groups) > 1 and mean(groups[-2]) > mean(groups[-1]):
            groups[-2:] = [groups[-2] + groups[-1]]
    flat = [mean(group) for group in groups for _ in group]
    last = len(flat) - 1
    return [min(max(value, bottom), top - last * gap) + rank * gap for rank, value in enumerate(flat)]


def panels(rows: Sequence[Row], runs: Runs, baseline: str) -> str:
    """One small picture a contender: its own curve and its seeds' range, its control dashed, the baseline thin."""
    with matplotlib.rc_context(STYLE):
        by_name = {row["name"]: row for row in rows}
        shown = [row for row in rows if not row["control"] and row["name"] != baseline]
        bottom, top = _ceiling(rows, runs, baseline)
        figure, grid = panel_grid(len(shown))
        for axes, row in zip(grid, shown, strict=False):
            _panel(axes, row, by_name.get(row["control_name"] or ""), by_name[baseline], runs)
            axes.set_ylim(bottom, top)
            line = _line(row, runs, STEPS)
            if line and line[1][-1] > top:
                axes.text(
                    0.97, 0.9, f"above: ends at {line[1][-1]:.3f}", transform=axes.transAxes, ha="right", fontsize=8
                )
        return svg(figure, "Validation loss of each optimizer beside its control and the baseline")


def _panel(axes: Axes, row: Row, control: Row | None, baseline: Row, runs: Runs) -> None:
    colour = stand_in(row["contender"])
    for other, paint, dashes in ((baseline, stand_in(baseline["name"]), "-"), (control, colour, (0, (3, 2)))):
        line = _line(other, runs, STEPS) if other else None
        if line:
            axes.plot(line[0], line[1], color=paint, linewidth=0.9 if dashes == "-" else 1.3, linestyle=dashes)
    line = _line(row, runs, STEPS)
    if line:
        axes.fill_between(line[0], line[2], line[3], color=colour, alpha=0.2, linewidth=0)
        axes.plot(line[0], line[1], color=colour, linewidth=2.0)
    suffix = "" if line else " (diverged)"
    axes.set_title(row["name"] + suffix, color=colour, fontsize=9.5, loc="left", pad=3)


def rates(rows: Sequence[Row], baseline: str) -> str:
    """How the choice was made: validation loss of the trial runs against lr, a line a retention, controls dashed."""
    with matplotlib.rc_context(STYLE):
        by_name = {row["name"]: row for row in rows}
        shown = [row for row in rows if not row["control"]]
        figure, grid = panel_grid(len(shown))
        losses = sorted(t["loss"] for row in rows for t in row["trials"] if t["loss"] is not None)
        for axes, row in zip(grid, shown, strict=False):
            control = by_name.get(row["control_name"] or "")
            if control and control["contender"] == row["contender"]:
                _rate_lines(axes, control, (0, (3, 2)))
            _rate_lines(axes, row, "-")
            axes.set_xscale("log")
            axes.set_title(row["name"], color=stand_in(row["contender"]), fontsize=9.5, loc="left", pad=3)
        if losses:
            grid[0].set_yscale("log")
            grid[0].set_ylim(0.93 * losses[0], 1.1 * losses[int(0.97 * (len(losses) - 1))])
            for axes in grid:
                axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 3.0, 5.0)))
                axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
                axes.yaxis.set_minor_locator(NullLocator())
        return svg(figure, "Validation loss of the trial runs against the learning rate")


def _rate_lines(axes: Axes, row: Row, dashes: Any) -> None:
    by_retention: dict[float, list[tuple[float, float]]] = {}
    for trial in row["trials"]:
        if trial["loss"] is not None:
            settings = trial["settings"]
            by_retention.setdefault(settings.get("retention", 0.0), []).append((settings["lr"], trial["loss"]))
    for i, points in enumerate(by_retention[key] for key in sorted(by_retention)):
        fade = 1.0 - 0.55 * (1 - (i + 1) / len(by_retention))
        x, y = zip(*sorted(points), strict=True)
        axes.plot(
            x, y, "o", linestyle=dashes, color=stand_in(row["contender"]), linewidth=1.3, markersize=3, alpha=fade
        )


def surprises(rows: Sequence[Row], runs: Runs) -> str:
    """The surprise of each memory in the first seed's run, relative to its first value; empty if there is none."""
    found: list[tuple[str, str, list[list[Any]]]] = []
    for row in rows:
        series: dict[str, list[list[Any]]] = {}
        for step, memory, value in (
            runs[row["runs"][0]].surprises if row["runs"][0] in runs and not row["control"] else []
        ):
            if value is not None:
                series.setdefault(memory, []).append([step, value])
        found.extend((row["contender"], memory, points) for memory, points in series.items() if points[0][1])
    if not found:
        return ""
    with matplotlib.rc_context(STYLE):
        names = list(dict.fromkeys(name for name, _, _ in found))
        figure, grid = panel_grid(len(names), sharey=False)
        for axes, name in zip(grid, names, strict=False):
            axes.set_title(name, color=stand_in(name), fontsize=9.5, loc="left", pad=3)
            for i, (_, memory, points) in enumerate(f for f in found if f[0] == name):
                x, y = zip(*points, strict=True)
                dashes = "-" if i == 0 else (0, (3, 1 + i))
                axes.plot(x, [v / y[0] for v in y], color=stand_in(name), linewidth=1.4, linestyle=dashes, label=memory)
            axes.legend(fontsize=7.5, frameon=False, handlelength=1.6, loc="best")
        return svg(figure, "Surprise of each memory while it is trained, relative to its first value")
