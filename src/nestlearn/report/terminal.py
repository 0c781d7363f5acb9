"""The tuned table in a terminal: as many columns as fit, the essential ones always, and what it says in a sentence."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nestlearn.report.findings import headline
from nestlearn.report.tables import Cell, Column, columns, table_rows
from nestlearn.tasks.about import about
from nestlearn.training import Results

__all__ = ["print_tables"]

STYLES = {None: "", True: "green", False: "red"}


def _width(shown: list[Column], rows: list[list[Cell]]) -> int:
    return 2 + sum(
        3 + max([len(column.heading), *(len(row[i].text) for row in rows)]) for i, column in enumerate(shown)
    )


def _fitting(results: Results, task: str, limit: int | None) -> tuple[list[Column], list[list[Cell]]]:
    """The columns that fit in ``limit`` characters and their cells, the least important left out first."""
    shown = columns(results, task)
    while True:
        rows = table_rows(results, task, shown)
        last = max(column.rank for column in shown)
        if limit is None or last == 0 or _width(shown, rows) <= limit:
            return shown, rows
        position = max(i for i, column in enumerate(shown) if column.rank == last)
        del shown[position]


def print_tables(results: Results, console: Console) -> None:
    """Print one table and one sentence a task; a narrow terminal gets fewer columns, a file or pipe all of them."""
    for task in results.tasks:
        shown, rows = _fitting(results, task, console.width if console.is_terminal else None)
        table = Table(title=Text(about(task).title), title_justify="left", title_style="bold", box=SIMPLE_HEAD)
        for column in shown:
            table.add_column(Text(column.heading), justify="right" if column.number else "left", no_wrap=True)
        for cells in rows:
            table.add_row(*(Text(cell.text, f"{STYLES[cell.good]}{' bold' if cell.sure else ''}") for cell in cells))
        console.print()
        if not console.is_terminal:  # a file has no width to keep to
            console.width = max(console.width, _width(shown, rows))
        console.print(table)
        if said := headline(results.tasks[task], results.baseline):
            console.print(Text(said))
    if all(len(rows) == 1 for rows in results.tasks.values()):
        return  # nothing to compare with
    console.print(
        "Losses on the test split; settings chosen on the validation split. vs control: below zero, the memory helps. "
        "Coloured where all seeds agree; a star: significant at 5%, with four seeds or more. An arrow: the best value "
        "lies at that edge of its grid. All columns, p values among them, are in report.html.",
        style="dim",
        highlight=False,
    )
