"""The console entry ``nestlearn``: collects the verbs, one a file.

``nestlearn --help`` and completion in a shell must answer at once, while most verbs import torch when their file is
loaded. So the entry knows of each verb its name and one line, and loads its file when the verb is the one that is
wanted: that is ``build_entry``. ``build_app`` has all of them loaded, for whoever wants to read their options.

What goes wrong outside of the program, in files, settings and what is installed, is said in one line, here and nowhere
else: a verb raises a ``NestlearnError``, or lets an ``OSError`` through. So is an error in a file that the user named,
a task or an optimizer, with the lines of that file. Any other exception is a mistake of ours and keeps its traceback.

The command line needs more than torch (typer, rich, jinja2, PyYAML, pydantic, safetensors, numpy, scipy). Without
them the entry says how to get them, in one line, instead of failing with a traceback.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from nestlearn.errors import NestlearnError
from nestlearn.version import __version__

if TYPE_CHECKING:
    from typer import Typer

__all__ = ["VERBS", "build_app", "build_entry", "main"]

SUMMARY = "Nested Learning for PyTorch."
FAILED, INTERRUPTED = 2, 130
EXTRAS = {"typer", "click", "rich", "jinja2", "yaml", "pydantic", "safetensors", "scipy", "numpy"}

VERBS: Mapping[str, str] = MappingProxyType(
    {
        "chat": "Talk to a trained language model, line by line; it remembers what was said, in a file.",
        "check": "Check that anybody's optimizer does what all of them should: a score, a command for each failure.",
        "compare": "Tune and train every optimizer on the same tasks, and write a report.",
        "eval": "Ask language models the tasks of lm-eval, beside a model that knows nothing.",
        "explore": "Look into runs while they train, on a page of this machine, in one HTML file, or as JSON.",
        "generate": "Let a trained language model continue a text, and keep what it has read.",
        "inspect": "Show levels, memories, bytes and FLOPs of a training before it starts; nothing is allocated or "
        "trained.",
        "list": "Show what can be named: tasks, optimizers, rules, targets, shipped configurations, presets.",
        "play": "Open the playground: the rungs from gradient descent to nested memories, to be moved by hand.",
        "report": "Make report.html of a run folder again.",
        "train": "Train with one optimizer, and write a report.",
    }
)
"""Every verb, the function of that name in the file of that name, and the first line of its help."""


def build_app() -> Typer:
    """The typer application with all verbs loaded."""
    app = _without_verbs()
    for verb in VERBS:
        app.command(verb)(_load(verb))
    return app


def main() -> None:
    """Run the command line."""
    try:
        build_entry()()
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in EXTRAS:
            raise
        sys.exit(f'the command line needs {error.name}, which is not installed: pip install "nestlearn[cli]"')


def _without_verbs() -> Typer:
    import typer

    def say(wanted: bool) -> None:
        if wanted:
            typer.echo(f"nestlearn {__version__}")
            raise typer.Exit

    option = typer.Option(False, "--version", help="Print the version and nothing else.", is_eager=True, callback=say)
    app = _empty(help=SUMMARY, no_args_is_help=True)

    @app.callback()
    def options(version: bool = option) -> None: ...

    return app


def _empty(**settings: Any) -> Typer:
    import typer
    from typer.core import TyperGroup

    class Verbs(TyperGroup):
        def make_context(self, *given: Any, **named: Any) -> Any:
            with _ended():  # help and version are printed here
                return super().make_context(*given, **named)

        def invoke(self, ctx: Any) -> Any:
            from nestlearn.cli.ending import command
            from nestlearn.imported import forget

            forget()
            with _ended(), command():
                return super().invoke(ctx)

    # Not "rich": it takes "[default: demo]" in a help text for a colour.
    return typer.Typer(name="nestlearn", cls=Verbs, rich_markup_mode="markdown", **settings)


@contextmanager
def _ended() -> Iterator[None]:
    """A block of a command: what ends it is one line, and an exit status."""
    try:
        yield
    except BrokenPipeError:  # whoever reads has seen enough, as in `nestlearn inspect | head`
        raise
    except (Exception, KeyboardInterrupt) as error:
        import typer

        from nestlearn.cli.ending import error_lines, say
        from nestlearn.imported import own_frames

        if isinstance(error, KeyboardInterrupt):
            say("interrupted")
            raise typer.Exit(INTERRUPTED) from error
        if not isinstance(error, NestlearnError | OSError) and not own_frames(error):
            raise
        text, *more = error_lines(error)
        say(f"error: {text}")
        for line in more:
            say(line)
        raise typer.Exit(FAILED) from error


def _load(verb: str) -> Callable[..., Any]:
    function: Callable[..., Any] = getattr(import_module(f"nestlearn.cli.{verb}"), verb)
    return function


def build_entry() -> Typer:
    """The application with a stand-in for every verb, which becomes the verb when it is called or asked for options."""
    import typer
    from typer.core import TyperCommand

    class StandIn(TyperCommand):
        def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
            alone = _empty(add_completion=False)
            alone.command(self.name)(_load(str(self.name)))
            return typer.main.get_command(alone).make_context(info_name, args, parent, **extra)

    app = _without_verbs()
    for verb, summary in VERBS.items():
        app.command(verb, cls=StandIn, help=summary)(lambda: None)
    return app
