"""``nestlearn play``: open the playground, a page on which the rungs of Nested Learning are moved by hand."""

from __future__ import annotations

import os
import sys
import webbrowser
from pathlib import Path
from tempfile import mkdtemp
from typing import Annotated

import typer

__all__ = ["has_screen", "play"]


def play(
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the page there, and do not open it. [default: open it]")
    ] = None,
) -> None:
    """Open the playground: the rungs from gradient descent to nested memories, to be moved by hand.

    It is one HTML file that fetches nothing. Its place is printed; without --out it is opened in a browser, where there
    is one.
    """
    from nestlearn.play import write_page

    path = write_page(out or Path(mkdtemp(prefix="nestlearn-")) / "playground.html")
    typer.echo(str(path))
    if out is None and has_screen():
        webbrowser.open(path.resolve().as_uri())


def has_screen() -> bool:
    """Whether a browser would have a window; on a machine without one some read the page in the terminal."""
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
