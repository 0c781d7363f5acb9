"""Rules as plain data, for files: nested dictionaries, lists, numbers and words.

    {"chain": {"links": [{"average": {"retention": 0.65, "nesterov": True}}, {"orthogonal": {}}]}}

Only what is in the library is made from data. A class of somebody's own is named as "module:Class", and its module is
imported only where the caller says that it was typed by the user.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, cast

from nestlearn.errors import choice
from nestlearn.imported import imported
from nestlearn.memory.models import MLP, Constant, Matrix, Model
from nestlearn.memory.objectives import L2, DotProduct, Hypergradient, Objective, Quadratic
from nestlearn.rules.link import Link
from nestlearn.rules.registry import LINKS
from nestlearn.targets import TARGETS, Target

__all__ = ["difference", "from_data", "kinds", "to_data"]


_FOREIGN = "{!r} is somebody's own, which is imported only for a rule that you typed"


def to_data(rule: Link, *, functions: bool = False) -> dict[str, Any]:
    """The rule as ``{kind: {setting: value}}``; settings that have their default are left out.

    Args:
        rule: the rule.
        functions: whether a setting that is no plain value, such as a function, is left as the word "function", from
            which no rule can be made again.

    Raises:
        TypeError: such a setting, otherwise.
    """
    return _written_down(rule, type(rule).__name__, functions)


def from_data(data: Any, *, typed: bool = False) -> Link:
    """The rule that ``to_data`` has written down.

    Args:
        data: as it was read from a file.
        typed: whether the user has typed the data, and not a program: only then are classes of the user's own imported.

    Raises:
        ValueError: an unknown kind or setting, or a setting that is not in its range.
    """
    rule = _made(data, typed)
    if not isinstance(rule, Link):
        raise ValueError(f"expected a rule such as {{'chain': {{'links': [...]}}}}, got {data!r}")
    return rule


def difference(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Where two rules as data differ in more than the size of a number or a switch, in words."""
    return list(_differences(mine, theirs, ""))


def _written_down(value: Any, where: str, functions: bool) -> Any:
    if isinstance(value, Link | Target | Model | Objective):
        settings = {}
        for item in fields(cast(Any, value)):
            setting = getattr(value, item.name)
            if setting != item.default:
                settings[item.name] = _written_down(setting, f"{where}.{item.name}", functions)
        return {_kind(value): settings}
    if isinstance(value, tuple | list):
        return [_written_down(each, where, functions) for each in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if functions:
        return "function"
    raise TypeError(f"{where} cannot be written down: expected numbers, words and rules, got {value!r}")


def _kind(value: Any) -> str:
    kind = type(value)
    if kind in kinds().values():
        return next(name for name, known in kinds().items() if known is kind)
    return f"{kind.__module__}:{kind.__qualname__}"


def kinds() -> dict[str, type]:
    """Everything that data may name: links, targets, models and objectives, each by its name."""
    known: dict[str, type] = {**LINKS, **{f"target.{name}": kind for name, kind in TARGETS.items()}}
    for word, several in (
        ("model", (MLP, Constant, Matrix)),
        ("objective", (L2, DotProduct, Hypergradient, Quadratic)),
    ):
        known |= {f"{word}.{kind.__name__}": kind for kind in several}
    return known


def _made(data: Any, typed: bool) -> Any:
    if isinstance(data, Mapping):
        if len(data) != 1:
            raise ValueError(f"expected one kind of rule with its settings, {{kind: {{...}}}}, got {dict(data)!r}")
        ((kind, settings),) = data.items()
        return _instance(_class(kind, typed), settings or {}, typed)
    if isinstance(data, Sequence) and not isinstance(data, str):
        return tuple(_made(each, typed) for each in data)
    return data


def _class(kind: str, typed: bool) -> type:
    if ":" not in kind:
        known = kinds()
        choice("rule", kind, known)
        return known[kind]
    if not typed:
        raise ValueError(_FOREIGN.format(kind))
    return imported(kind, "rule")  # type: ignore[return-value]


def _instance(kind: type, settings: Any, typed: bool) -> Any:
    if not isinstance(settings, Mapping):
        raise ValueError(f"{kind.__name__}: expected settings by name, got {settings!r}")
    known = {item.name: item for item in fields(kind)}
    for name in settings:
        choice(f"setting of {kind.__name__}", name, known)
    foreign = [name for name in settings if known[name].metadata.get("imports") and ":" in str(settings[name])]
    if foreign and not typed:
        raise ValueError(_FOREIGN.format(settings[foreign[0]]))
    values = {name: _made(value, typed) for name, value in settings.items()}
    several = next((name for name in ("links", "rules", "members") if name in known), None)
    return kind(*values.pop(several, ()), **values) if several else kind(**values)


def _differences(mine: Any, theirs: Any, where: str) -> Iterator[str]:
    if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
        for name in [*mine, *(name for name in theirs if name not in mine)]:
            path = f"{where}.{name}" if where else str(name)
            if name not in theirs or name not in mine:
                held = mine.get(name, theirs.get(name))
                if not isinstance(held, bool | int | float) or name == "name":
                    yield f"{path} is {'here' if name in mine else 'in the checkpoint'} alone"
            else:
                yield from _differences(mine[name], theirs[name], path)
    elif isinstance(mine, list) and isinstance(theirs, list):
        if len(mine) != len(theirs):
            yield f"{where or 'the rule'} has {len(mine)} parts here and {len(theirs)} in the checkpoint"
        for number, (one, other) in enumerate(zip(mine, theirs, strict=False)):
            yield from _differences(one, other, f"{where}[{number}]")
    elif mine != theirs and not (isinstance(mine, bool | int | float) and isinstance(theirs, bool | int | float)):
        yield f"{where} is {mine!r} here and {theirs!r} in the checkpoint"
