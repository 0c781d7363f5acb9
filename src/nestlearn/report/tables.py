"""The tuned table: from ``results.json`` to text cells, and from those to a terminal table or CSV.

Nothing is left out: contenders that lost to the baseline or to their own control, and those that diverged, have their
rows too.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nestlearn.tasks import TASKS

__all__ = ["Cell", "Column", "columns", "helps", "print_tables", "table_rows", "to_csv"]

Row = Mapping[str, Any]
SHOWN = 5e-5  # differences below the digits shown are rounding, not a result


@dataclass(frozen=True)
class Column:
    """A column: its heading, what it means, and whether its cells are numbers."""

    heading: str
    meaning: str
    number: bool = True
    rank: int = 0  # a narrow terminal leaves the columns of the highest ranks out


@dataclass(frozen=True)
class Cell:
    """A cell's text, and ``good`` (True, False, or None for neither): whether it speaks for the contender."""

    text: str
    good: bool | None = None


def columns(task: str) -> list[Column]:
    """The columns of a task's table."""
    figure = (
        Column("accuracy %", "test accuracy, mean over seeds", rank=2)
        if task == "digits"
        else Column("bits/byte", "test loss in bits", rank=2)
    )
    return [
        Column("optimizer", "the contender", number=False),
        Column("lr", "chosen learning rate; an arrow: it lies at that edge of the grid", rank=1),
        Column("retention", "chosen retention; a dash: it has none", rank=1),
        Column(
            "validation", "validation loss in nats, mean over seeds: the settings were chosen on this split", rank=2
        ),
        Column("test", "test loss in nats, mean over seeds, and the sample standard deviation"),
        figure,
        Column(
            "control",
            "test loss of its control: the same with that memory switched off, tuned as fairly",
            rank=1,
        ),
        Column("vs control", "test loss minus that of the control, paired by seed; below zero the memory helps"),
        Column("vs AdamW", "test loss minus that of AdamW, paired by seed; below zero is better"),
        Column(
            "ms/step", "median milliseconds of a training step, forward and backward included; best over runs", rank=1
        ),
        Column("opt ms", "median milliseconds of the optimizer's step alone; best over runs", rank=2),
        Column("state B/par", "bytes of optimizer state for each parameter of the network", rank=2),
    ]


def _spread(figure: Row | None) -> str:
    if not figure:
        return "–"
    return f"{figure['mean']:.4f}" + (f" ± {figure['spread']:.4f}" if figure["spread"] is not None else "")


def helps(figure: Row | None) -> bool | None:
    """Whether a difference is below zero on every seed (True), above zero on every seed (False), or neither (None)."""
    if figure and all(value <= -SHOWN for value in figure["values"]):
        return True
    return False if figure and all(value >= SHOWN for value in figure["values"]) else None


def _difference(figure: Row | None) -> Cell:
    return Cell(f"{figure['mean']:+.4f}", helps(figure)) if figure else Cell("–")


def _setting(row: Row, name: str) -> str:
    if name not in row["settings"]:
        return "–"
    arrows = {f"{name} at the low edge": " ↓", f"{name} at the high edge": " ↑"}
    return f"{row['settings'][name]:g}" + "".join(arrow for edge, arrow in arrows.items() if edge in row["edges"])


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _cells(task: str, row: Row, control: Row | None) -> list[Cell]:
    test, diverged = row["test"], row["status"] == "diverged"
    name, digits = ("accuracy", 2) if task == "digits" else ("bits", 3)
    figure = f"{test[name]['mean']:.{digits}f}" if test else "–"
    opposite = (
        "diverged"
        if control and control["status"] == "diverged"
        else _spread((control or {}).get("test", {}).get("loss"))
    )
    return [
        Cell(row["name"]),
        Cell(_setting(row, "lr")),
        Cell(_setting(row, "retention")),
        Cell(_number(row["validation"]["loss"]["mean"], 4) if row["validation"] else "–"),
        Cell("diverged", good=False) if diverged else Cell(_spread(test.get("loss"))),
        Cell(figure),
        Cell(opposite.partition(" ")[0]),
        _difference(row["against_control"]),
        _difference(row["against_baseline"]),
        Cell(_number(row["step_ms"], 2)),
        Cell(_number(row["optimizer_ms"], 2)),
        Cell(_number(row["state_bytes"] / row["parameters"], 1)),
    ]


def table_rows(results: Row, task: str, controls: bool = False) -> list[list[Cell]]:
    """The rows of a task, best test loss first; with ``controls`` those of the controls too."""
    rows = results["tasks"][task]
    by_name = {row["name"]: row for row in rows}
    shown = [row for row in rows if controls or not row["control"]]
    return [_cells(task, row, by_name.get(row["control_name"] or "")) for row in shown]


def to_csv(results: Row, task: str) -> str:
    """The table of a task with the controls' rows and every seed's test loss, full precision."""
    out = io.StringIO()
    write = csv.writer(out, lineterminator="\n").writerow
    write(
        [
            "optimizer",
            "control",
            "status",
            "settings",
            "edges",
            "validation_loss",
            "test_loss",
            "test_loss_by_seed",
            "against_control",
            "against_baseline",
            "step_ms",
            "optimizer_ms",
            "state_bytes",
            "parameters",
        ]
    )
    for row in results["tasks"][task]:
        settings = " ".join(f"{name}={value:g}" for name, value in row["settings"].items())
        validation, test = row["validation"].get("loss", {}), row["test"].get("loss", {})
        write(
            [
                row["name"],
                row["control"],
                row["status"],
                settings,
                "; ".join(row["edges"]),
                validation.get("mean", ""),
                test.get("mean", ""),
                " ".join(map(str, test.get("values", []))),
                (row["against_control"] or {}).get("mean", ""),
                (row["against_baseline"] or {}).get("mean", ""),
                row["step_ms"],
                row["optimizer_ms"],
                row["state_bytes"],
                row["parameters"],
            ]
        )
    return out.getvalue()


Numbered = list[tuple[int, Column]]


def _width(shown: Numbered, rows: list[list[Cell]]) -> int:
    return 2 + sum(3 + max(len(column.heading), *(len(cells[i].text) for cells in rows)) for i, column in shown)


def _fitting(shown: Numbered, rows: list[list[Cell]], limit: int | None) -> Numbered:
    """The columns that fit in ``limit`` characters, the least important left out first; all of them without a limit."""
    for rank in (2, 1):
        if limit is not None and _width(shown, rows) > limit:
            shown = [(i, column) for i, column in shown if column.rank < rank]
    return shown


def print_tables(results: Row, console: Console) -> None:
    """Print one table a task; a narrow terminal gets fewer columns, a file or pipe all of them."""
    for task in results["tasks"]:
        rows = table_rows(results, task)
        shown = _fitting(list(enumerate(columns(task))), rows, console.width if console.is_terminal else None)
        table = Table(title=TASKS[task].title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
        for _, column in shown:
            table.add_column(column.heading, justify="right" if column.number else "left", no_wrap=True)
        for cells in rows:
            styles = {None: "", True: "green", False: "red"}
            table.add_row(*(Text(cells[i].text, styles[cells[i].good]) for i, _ in shown))
        console.print()
        if not console.is_terminal:  # a file has no width to keep to
            console.width = max(console.width, _width(shown, rows))
        console.print(table)
    console.print(
        "Losses in nats on the test split; settings chosen on the validation split. vs control: below zero, the memory "
        "helps. Coloured where all seeds agree. An arrow: the best lr lies at that edge of its grid.",
        style="dim",
        highlight=False,
    )
