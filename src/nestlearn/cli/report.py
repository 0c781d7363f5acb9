"""``nestlearn report FOLDER``: make the report of a run folder again, from its files alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nestlearn.report import write_report
from nestlearn.training import RunFolderError

__all__ = ["report"]


def report(folder: Annotated[Path, typer.Argument(help="A folder written by `nestlearn compare`.")]) -> None:
    """Make report.html of a run folder again."""
    try:
        path, notes = write_report(folder)
    except RunFolderError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    for note in notes:
        typer.echo(f"note: {note}", err=True)
    typer.echo(str(path))
