"""``nestlearn explore [RUN ...]``: look into runs while they train."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from nestlearn.explore import Shelf

__all__ = ["explore"]


def explore(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            help=(
                "Folders of `nestlearn train`, `nestlearn compare` or `nl.record`, or such that hold some; for the "
                "reading page also of pretrained models with a continuum."
            ),
            show_default="runs",
        ),
    ] = None,
    data: Annotated[
        bool, typer.Option("--json", help="Print what is known of the runs as JSON, and serve nothing.")
    ] = False,
    export: Annotated[
        Path | None,
        typer.Option(metavar="FILE", dir_okay=False, help="Write the page with its data to one HTML file."),
    ] = None,
    points: Annotated[
        int, typer.Option(min=2, max=20_000, help="Points of a line that --json or --export tells, at most.")
    ] = 500,
    port: Annotated[
        int,
        typer.Option(
            min=0, max=65535, help="Where to listen on 127.0.0.1. [default: any free one]", show_default=False
        ),
    ] = 0,
    states: Annotated[
        Path | None,
        typer.Option(
            help="The folder in which the reading page keeps states; made if it is not there. [default: none]",
            show_default=False,
        ),
    ] = None,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page, where there is a screen.")
    ] = True,
) -> None:
    """Look into runs while they train, on a page of this machine, in one HTML file, or as JSON.

    Files are read and nothing is written, so a run is neither slowed nor ended by it; a fork that the page is asked for
    is a process of its own. The address that is printed has a token in it, without which nothing is told. At /read
    behind it a language model that was trained, or a pretrained one with a continuum, reads a text, and shows what that
    does to its memories; what it remembers is saved in --states alone.
    """
    from nestlearn.explore import Shelf

    if data and export is not None:
        from nestlearn.errors import SettingsError

        raise SettingsError("expected either --json or --export, got both: one prints what the other puts into a page")
    shelf = Shelf(runs or [Path("runs")])
    if data:
        import json

        from nestlearn.explore.answers import everything

        typer.echo(json.dumps(everything(shelf, points), allow_nan=False))
        return
    if export is not None:
        from nestlearn.explore.export import write_page

        typer.echo(write_page(shelf, export, points))
        return
    _serve(shelf, port, browser, states)


def _serve(shelf: Shelf, port: int, browser: bool, states: Path | None) -> None:
    import sys
    import webbrowser

    from nestlearn.cli.play import has_screen
    from nestlearn.errors import MissingPackageError

    try:
        from nestlearn.explore.reading import Readings
        from nestlearn.explore.serving import Serving
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f'the page needs {error.name}, which is not installed: pip install "nestlearn[explore]" (--json does not)',
            name=error.name,
        ) from error
    if states is not None:
        states.mkdir(parents=True, exist_ok=True)
    readings = Readings(shelf, [sys.executable, "-P", "-m", "nestlearn.cli.reading_job"], states)
    reads_alone = bool(shelf.stacked()) and not shelf.folders()
    serving = Serving(shelf, port, readings, "read" if reads_alone else "")

    def begun() -> None:
        typer.echo(serving.url)
        if browser and has_screen():
            webbrowser.open(serving.url)

    serving.run(begun)
