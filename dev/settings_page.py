"""docs/settings.md, made from the settings themselves: every key, what it takes, its defaults, its meaning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin

import yaml
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from nestlearn.comparison import PRESETS
from nestlearn.contenders import CONTENDERS
from nestlearn.training import TrainSettings

__all__ = ["keys", "settings_page"]

INTRODUCTION = """\
# Settings

What `nestlearn compare` and `nestlearn train` can be told, beyond their [options](cli.md). A YAML file holds any of the
keys, nested where they have a point (`--config mine.yaml`); `--set key=value`, as often as wanted, sets single ones and
comes after the file. The value is read as YAML. An unknown key is an error that names the nearest one, and the settings
that a run was made with, defaults included, are kept in its folder as `config.yaml`.

This page is made from the code by `bash dev/docs`, and a test fails when it is out of date.
"""

SYMBOLS = ((Ge, "ge", "at least"), (Gt, "gt", "above"), (Le, "le", "at most"), (Lt, "lt", "below"))
WORDS = {str: "text", int: "whole number", float: "number", bool: "true or false", Any: "anything", NoneType: "null"}


def settings_page() -> str:
    """The whole page."""
    compare = _table(PRESETS)
    train = _table({"default": TrainSettings()})
    about = "A preset (`--preset`) is complete; every other setting changes it."
    named = (
        "`task` and `optimizer` may be a name alone. Fields of the task and arguments of the optimizer stand beside\n"
        "theirs: `--set task.hidden=64 --set optimizer.inner_lr=0.3`."
    )
    parts = [INTRODUCTION, "## compare", "", about, "", *compare, "", "## train", "", named, "", *train]
    return "\n".join(parts) + "\n"


def keys(model: type[BaseModel], where: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """(dotted key, field) of every setting that a reader may give: all but ``kind``, which says whose they are."""
    for name, found in model.model_fields.items():
        inner = found.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from keys(inner, f"{where}{name}.")
        elif name != "kind":
            yield f"{where}{name}", found


def _table(columns: Mapping[str, BaseModel]) -> list[str]:
    heads = ["key", "takes", *columns, "meaning"]
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for key, found in keys(type(next(iter(columns.values())))):
        values = [_shown(_value(settings, key)) for settings in columns.values()]
        cells = [f"`{key}`", _takes(found), *values, found.description or ""]
        lines.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    return lines


def _value(settings: BaseModel, key: str) -> Any:
    value: Any = settings
    for part in key.split("."):
        value = getattr(value, part)
    return value


def _shown(value: Any) -> str:
    if value == tuple(CONTENDERS):
        return "all"
    plain = list(value) if isinstance(value, tuple) else value
    text = yaml.safe_dump(plain, default_flow_style=True, width=1000, sort_keys=False)
    return f"`{text.removesuffix('...' + chr(10)).strip()}`"


def _takes(found: FieldInfo) -> str:
    limits = [
        f"{words} {getattr(each, name):g}"
        for kind, name, words in SYMBOLS
        for each in found.metadata
        if isinstance(each, kind)
    ]
    return ", ".join([_words(found.annotation), *limits])


def _words(annotation: Any) -> str:
    """A type in words."""
    if annotation in WORDS:
        return WORDS[annotation]
    kind, inner = get_origin(annotation), get_args(annotation)
    if kind is Literal:
        return ", ".join(f"`{choice}`" for choice in inner)
    if kind is UnionType:
        return " or ".join(_words(each) for each in inner)
    if kind is tuple:
        return f"list of {_plural(_words(inner[0]))}"
    if kind is dict:
        return "mapping"
    raise TypeError(f"no words for the type {annotation!r} of a setting: add them here")


def _plural(words: str) -> str:
    return words if words.startswith("`") else {"text": "texts", "anything": "anything"}.get(words, f"{words}s")
