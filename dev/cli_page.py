"""docs/cli.md, made from the command line itself: every verb, argument, option and default with its help text.

It reads the parsed definitions and not the output of ``--help``, so the width of a terminal has no part in it.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from enum import Enum
from pathlib import PurePath
from typing import Any

import typer

__all__ = ["cli_page"]

INTRODUCTION = """\
# The command line

`pip install "nestlearn[cli]"` brings the command `nestlearn`; `nestlearn VERB --help` says the same as this page in the
terminal. The page is made from the code by `bash dev/docs`, and a test fails when it is out of date.
"""

DEFAULT_IN_HELP = re.compile(r"\s*\[default: ([^\]]*)\]")


def cli_page(app: typer.Typer) -> str:
    """The whole page, for the application that ``nestlearn`` runs."""
    group: Any = typer.main.get_command(app)
    root = typer.Context(group, info_name="nestlearn")
    verbs = [line for name, command in sorted(group.commands.items()) for line in _verb(root, name, command)]
    common = ["## Without a verb", "", *_table("option", group, root)]
    return "\n".join([INTRODUCTION, *verbs, *common]).rstrip() + "\n"


def _verb(root: typer.Context, name: str, command: Any) -> Iterator[str]:
    context = typer.Context(command, info_name=name, parent=root)
    words = [_argument(each) for each in command.params if each.param_type_name == "argument"]
    usage = " ".join(["nestlearn", name, *words, "[options]"])
    yield from (f"## {name}", "", *_paragraphs(command.help), "```", usage, "```", "")
    yield from _table("argument", command, context)
    yield from _table("option", command, context)


def _table(kind: str, command: Any, context: typer.Context) -> list[str]:
    """The arguments or the options of a verb, in the order in which they were written; nothing if there are none."""
    shown = [each for each in command.params if each.param_type_name == kind and not each.hidden]
    if not shown:
        return []
    lines = [f"| {kind} | takes | default | meaning |", "| --- | --- | --- | --- |"]
    for each in shown:
        text = " ".join((each.help or "").split())
        said = DEFAULT_IN_HELP.search(text)
        name = f"`{_argument(each)}`" if kind == "argument" else _flags(each)
        cells = (name, _takes(each, context), said[1] if said else _default(each), DEFAULT_IN_HELP.sub("", text))
        lines.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    return [*lines, ""]


def _argument(parameter: Any) -> str:
    word = (parameter.metavar or parameter.name).upper()
    word = word if parameter.nargs == 1 else f"{word}..."
    return word if parameter.required else f"[{word}]"


def _flags(option: Any) -> str:
    return ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])


def _takes(parameter: Any, context: typer.Context) -> str:
    if getattr(parameter, "is_flag", False):
        return ""
    words = parameter.display_type(context).strip("<>")
    return f"{words}, repeatable" if parameter.multiple else words


def _default(parameter: Any) -> str:
    value = parameter.default
    if parameter.required:
        return "required"
    if value is None or value is False or callable(value):
        return ""
    if value is True:
        return "on"
    if isinstance(value, Enum):
        value = value.value
    return f"`{value.as_posix() if isinstance(value, PurePath) else value}`"


def _paragraphs(help_text: str | None) -> list[str]:
    """Help in whole lines: how it was broken in the source says nothing."""
    parts = re.split(r"\n\s*\n", inspect.cleandoc((help_text or "").replace("\b", "")))
    return [line for part in parts for line in (" ".join(part.split()), "")]
