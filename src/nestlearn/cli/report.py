"""``nestlearn report FOLDER``: make the report of a run folder again, from its files alone.

What imports torch is imported when the work begins, so that help and completion answer at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["report"]


def report(
    folder: Annotated[Path, typer.Argument(help="A folder written by `nestlearn compare` or `nestlearn train`.")],
    pictures: Annotated[Path | None, typer.Option(help="Also write the main pictures there, as SVG files.")] = None,
    imports: Annotated[
        list[str] | None,
        typer.Option("--import", metavar="MODULE", help="A module of yours that a run folder names, which you trust."),
    ] = None,
) -> None:
    """Make report.html of a run folder again."""
    from nestlearn.cli.ending import begun

    begun("report")
    from nestlearn.cli.ending import say
    from nestlearn.report import write_pictures, write_report

    missing = _complete(folder, imports or [])
    path, notes = write_report(folder)
    drawn = write_pictures(folder, pictures) if pictures is not None else []
    for note in (*missing, *notes):
        say(f"note: {note}")
    for written in (path, *drawn):
        typer.echo(str(written))


def _complete(folder: Path, imports: list[str]) -> list[str]:
    """Describe the optimizers if nobody did yet; a note if that cannot be done here, which is no reason to give up."""
    from nestlearn.errors import RunFolderError
    from nestlearn.imported import only
    from nestlearn.report import write_systems

    if (folder / "systems.json").is_file():
        return []
    try:
        with only(imports):
            write_systems(folder)
    except RunFolderError as error:
        return [str(error)]
    return []
