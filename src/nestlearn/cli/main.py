"""The console entry ``nestlearn``: collects the verbs, one a file.

The command line needs more than torch (typer, rich, matplotlib, jinja2, PyYAML). Without them the entry says how to
get them, in one line, instead of failing with a traceback.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typer import Typer

__all__ = ["build_app", "main"]

EXTRAS = {"typer", "click", "rich", "matplotlib", "jinja2", "yaml"}


def build_app() -> Typer:
    """The typer application with all verbs."""
    import typer

    from nestlearn.cli.compare import compare
    from nestlearn.cli.report import report

    app = typer.Typer(name="nestlearn", help="Nested Learning for PyTorch.", no_args_is_help=True)
    app.command()(compare)
    app.command()(report)
    return app


def main() -> None:
    """Run the command line."""
    try:
        app = build_app()
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in EXTRAS:
            raise
        sys.exit(f'the command line needs {error.name}, which is not installed: pip install "nestlearn[cli]"')
    app()
