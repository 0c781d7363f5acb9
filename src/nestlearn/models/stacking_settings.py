"""What a stacked model's folder holds beside the model, ``continuum.json``: the settings of ``add_continuum`` as data.

    {"periods": 16, "inner_lr": 0.001, "blocks": 2, "writer": "muon(0.9)"}

The file holds arguments of ``add_continuum`` by name, and those that it leaves out have their defaults, so that ``{}``
stacks a pretrained model. Its writer is a rule as data or as it is printed. It is data, whoever wrote it: what it names
is of the library, and nothing is imported or run for it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import nn

from nestlearn.errors import SettingsError, did_you_mean
from nestlearn.files import new_folder, write_atomic
from nestlearn.foreign import foreign, read_json, shown
from nestlearn.memory.rules import Rule
from nestlearn.models.tensor_files import LATEST
from nestlearn.rules import Link, from_data, parse, to_data

__all__ = ["FILE", "read_settings", "write_folder", "writer_data"]

FILE = "continuum.json"
MOST_BYTES = 1 << 16
MOST_PARTS = 32  # of a rule: what parts in a chain ask of each other may double with each
MOST = 1e30  # float32 can hold it, and what is added to it


def writer_data(writer: Link | Rule) -> dict[str, Any]:
    """A writer as data, of which the same can be made again.

    Raises:
        TypeError: there is none, or not from a file alone.
    """
    if not isinstance(writer, Link):
        raise TypeError(f"writer: expected a rule of nl.rules, which can be written down, got {type(writer).__name__}")
    data = to_data(writer)
    try:
        from_data(data)
    except ValueError as error:
        raise TypeError(f"writer: a file names what is in the library alone: {error}") from error
    return dict(data)


def write_folder(folder: str | os.PathLike[str], model: nn.Module, tokenizer: Any, settings: Mapping[str, Any]) -> None:
    """Write a stacked model, all of it or nothing."""
    if any(type(module).__module__.startswith("peft.") for module in model.modules()):
        raise TypeError(
            "the model has adapters of peft, without which its weights are others: expected a whole model, as "
            "merge_and_unload() makes it"
        )
    content = json.dumps(settings, indent=1) + "\n"
    with new_folder(Path(folder)) as draft:
        model.save_pretrained(draft)  # type: ignore[operator]
        if tokenizer is not None:
            tokenizer.save_pretrained(draft)
        write_atomic(draft / FILE, content)


def read_settings(path: Path) -> dict[str, Any]:
    """The arguments of ``add_continuum`` that a file holds."""
    if not path.parent.is_dir():
        raise SettingsError(f"there is no folder {path.parent}")
    if not path.exists():
        raise SettingsError(f"{path.parent} holds no stacked model: it has no {FILE}; {{}} in it takes the defaults")
    found = read_json(path, SettingsError, MOST_BYTES)
    with foreign(SettingsError, str(path)):
        for name, value in found.items():
            if name not in FITS:
                raise ValueError(
                    f"unknown setting {shown(name)}: expected one of {', '.join(FITS)}.{did_you_mean(name, FITS)}"
                )
            fits, expected = FITS[name]
            if not fits(value):
                raise ValueError(f"{name}: expected {expected}, got {shown(value)}")
    with foreign(SettingsError, f"{path}: writer"):
        if found.get("writer") is not None:
            found["writer"] = _rule(found["writer"])
    return found


def _rule(writer: str | dict[str, Any]) -> Link:
    parts = writer.count("(") if isinstance(writer, str) else json.dumps(writer).count("{") // 2
    if parts > MOST_PARTS:
        raise ValueError(f"expected a rule of at most {MOST_PARTS} parts")
    rule = parse(writer) if isinstance(writer, str) else from_data(writer)
    for number in _numbers(to_data(rule)):
        if not (_number(number) or _number(-number)):
            raise ValueError(f"expected numbers up to {MOST:g}, got {shown(number)}")
    return rule


def _numbers(data: Any) -> Iterator[int | float]:
    """All numbers in nested data."""
    if isinstance(data, dict | list):
        for each in data.values() if isinstance(data, dict) else data:
            yield from _numbers(each)
    elif isinstance(data, int | float) and not isinstance(data, bool):
        yield data


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < LATEST


def _number(value: object) -> bool:
    return -MOST <= value <= MOST if isinstance(value, float) else _whole(value)


def _list(fits: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, list) and all(map(fits, value))


_WHOLES = (lambda value: _whole(value) or _list(_whole)(value), "a whole number or a list of them")

FITS: Mapping[str, tuple[Callable[[object], bool], str]] = MappingProxyType(
    {
        "periods": _WHOLES,
        "inner_lr": (_number, f"a number up to {MOST:g}"),
        "blocks": _WHOLES,
        "matrices": (_list(lambda value: isinstance(value, str)), "a list of names"),
        "writer": (lambda value: value is None or isinstance(value, str | dict), "a rule, as data or in words"),
        "retention": (_number, f"a number up to {MOST:g}"),
        "rank": (lambda value: value is None or _whole(value), "a whole number or null"),
        "gate": (_number, f"a number up to {MOST:g}"),
        "objective": (lambda value: isinstance(value, str), "a name"),
        "seed": (_whole, "a whole number"),
    }
)
