"""What is set: settings from files and from ``--set key=value``, for every verb that has settings.

Settings are pydantic models without surprises: frozen, and unknown keys are errors (``Settings``). This file reads them
from YAML, lays one change over another, and turns every complaint into one line that names the dotted key, what was
expected, what came, and what was probably meant.

    settings = merge(settings, read_settings(Path("mine.yaml")), "optimizer.hidden=32", "seeds=0..4")
    text = to_yaml(settings)
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from nestlearn.errors import SettingsError, did_you_mean
from nestlearn.foreign import printable, read_bytes, reason, shown

__all__ = [
    "Settings",
    "check_numbers",
    "check_range",
    "check_seeds",
    "find_device",
    "merge",
    "parse_seeds",
    "read_settings",
    "to_yaml",
]

Model = TypeVar("Model", bound=BaseModel)

MOST_BYTES = 1 << 18  # of a file with settings
DEPTH, VALUES = 40, 5_000  # of a YAML document, aliases written out
COMPLAINTS = 5  # that are said at once
MOST_COUNT = 1 << 63
MOST_SEEDS = 10_000


class Settings(BaseModel):
    """Base of all settings: frozen, unknown keys refused, defaults checked like given values."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


class _Loader(yaml.SafeLoader):
    """YAML as people mean it: 1e-3 is a number, and a key given twice is an error. What it would become is bounded
    before it is made: an alias counts as all that it stands for.
    """

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth, self._values, self._count = 0, {}, 0

    _values: dict[int, int]

    def compose_node(self, parent: Any, index: Any) -> yaml.Node | None:
        self._depth, self._count = self._depth + 1, self._count + 1
        if self._depth > DEPTH:
            raise yaml.constructor.ConstructorError(None, None, f"it is nested deeper than {DEPTH} levels")
        if self._count > VALUES:
            raise yaml.constructor.ConstructorError(None, None, f"it holds more than {VALUES:,} values")
        alias = self.check_event(yaml.AliasEvent)
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        if node is not None and id(node) not in self._values:
            below = [each for pair in node.value for each in pair] if isinstance(node, yaml.MappingNode) else node.value
            held = below if isinstance(node, yaml.CollectionNode) else []
            if alias:
                raise yaml.constructor.ConstructorError(None, None, "a value holds itself", node.start_mark)
            self._values[id(node)] = 1 + sum(self._values[id(each)] for each in held)
            if self._values[id(node)] > VALUES:
                raise yaml.constructor.ConstructorError(None, None, f"it stands for more than {VALUES:,} values")
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str | int | float | bool | None):
                raise yaml.constructor.ConstructorError(None, None, f"{shown(key)} is no key", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is given twice", node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


# YAML 1.1, which PyYAML follows, asks for a point in every float and a sign in every exponent.
_FLOAT = re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


def read_settings(path: Path) -> dict[str, Any]:
    """The mapping in the YAML file ``path``; an empty file is an empty mapping.

    Raises:
        SettingsError: the file cannot be read, is not YAML, or holds something else than a mapping.
    """
    try:
        data = read_bytes(path, SettingsError, MOST_BYTES)
    except SettingsError as error:
        raise SettingsError(str(error).replace("cannot read", "cannot read the settings", 1)) from error
    try:
        plain = yaml.load(data.decode("utf-8"), _Loader)
    except UnicodeDecodeError as error:
        raise SettingsError(f"cannot read the settings {path}: it is not UTF-8 text") from error
    except Exception as error:  # what a tag makes of a text that it does not fit may be anything
        raise SettingsError(f"the settings {path} are not YAML: {_why(error)}") from error
    if plain is None:
        return {}
    if not isinstance(plain, dict):
        raise SettingsError(f"expected a mapping of settings in {path}, got {shown(plain)}")
    return plain


def _why(error: Exception) -> str:
    """What PyYAML has to say, in one line."""
    if isinstance(error, yaml.YAMLError):
        return printable(" ".join(str(error).split()), 400)
    return f"a value does not fit its tag ({reason(error)})"


def merge(settings: Model, *changes: Mapping[str, Any] | str) -> Model:
    """``settings`` with the changes laid over, one after the other.

    Mappings are merged key by key, anything else is replaced. A name alone, where the settings have a name with others
    beside it, keeps these if it is the same name.

    Args:
        changes: mappings, and assignments ``a.b=value``, whose values are YAML: ``[1, 2]`` is a list.

    Raises:
        SettingsError: an unknown key, a value that does not fit, an assignment that has another form; the message has
            the dotted key, what was expected and what came.
    """
    kind = type(settings)
    for change in changes:
        plain = _assigned(change) if isinstance(change, str) else change
        try:
            settings = kind.model_validate(_overlay(settings.model_dump(), plain))
        except ValidationError as error:
            wrong = error.errors()
            more = [f"{len(wrong) - COMPLAINTS} more like these"] if len(wrong) > COMPLAINTS else []
            raise SettingsError("; ".join([*(_complaint(kind, one) for one in wrong[:COMPLAINTS]), *more])) from error
        except (RecursionError, OverflowError, TypeError) as error:
            raise SettingsError(f"expected settings, got {shown(plain)} ({reason(error)})") from error
        check_numbers(settings.model_dump())
    return settings


def check_numbers(value: Any, name: str = "") -> None:
    """Raise SettingsError for a number that is not finite, or that no counter reaches, anywhere in settings."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            check_numbers(item, f"{name}.{printable(str(key))}" if name else printable(str(key)))
    elif isinstance(value, list | tuple):
        for item in value:
            check_numbers(item, name)
    elif isinstance(value, float) and not math.isfinite(value):
        raise SettingsError(f"{name}: expected a finite number, got {value}")
    elif isinstance(value, int) and not -MOST_COUNT < value < MOST_COUNT:
        raise SettingsError(f"{name}: expected a number below 2**63, got {shown(value)}")


def _assigned(assignment: str) -> dict[str, Any]:
    """``a.b=value`` as a mapping."""
    name, equals, text = assignment.partition("=")
    path = name.strip().split(".")
    if not equals or not all(path):
        raise SettingsError(f"expected key=value with a key such as optimizer.hidden, got {shown(assignment)}")
    if len(path) > DEPTH or len(text) > MOST_BYTES:
        raise SettingsError(f"expected key=value of a few words, got {shown(assignment)}")
    try:
        value = yaml.load(text, _Loader)
    except Exception as error:
        raise SettingsError(
            f"{printable(name.strip())}: expected a YAML value, got {shown(text)} ({_why(error)})"
        ) from error
    for key in reversed(path[1:]):
        value = {key: value}
    return {path[0]: value}


def check_range(value: Mapping[str, Any], dtype: str, name: str = "") -> None:
    """Raise SettingsError for a number that the dtype of a training cannot hold."""
    import torch  # to read settings takes none

    most = torch.finfo(getattr(torch, dtype)).max
    for key, item in value.items():
        where = f"{name}.{key}" if name else str(key)
        if isinstance(item, Mapping):
            check_range(item, dtype, where)
        elif isinstance(item, float) and abs(item) > most:
            raise SettingsError(f"{where}: expected a number that {dtype} can hold, at most {most:.3g}, got {item:g}")


def to_yaml(settings: BaseModel) -> str:
    """The settings as a YAML document that ``read_settings`` and ``merge`` turn into equal ones."""
    text: str = yaml.safe_dump(
        settings.model_dump(mode="json"), sort_keys=False, default_flow_style=None, width=110, allow_unicode=True
    )
    return text


def _overlay(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            merged[key] = _overlay(old, value)
        elif not (isinstance(old, Mapping) and isinstance(value, str) and old.get("name") == value):
            merged[key] = value
    return merged


def _complaint(kind: type[BaseModel], error: Any) -> str:
    """One error of pydantic as "key: expected ..., got ..."."""
    path: Sequence[str | int] = error["loc"]
    name, given, context = printable(".".join(map(str, path))), error["input"], error.get("ctx", MappingProxyType({}))
    if error["type"] == "extra_forbidden":
        known = sorted(_fields_at(kind, path[:-1]))
        expected = f": expected one of {', '.join(known)}." if known else "."
        return f"unknown setting {shown(name)}{expected}{did_you_mean(path[-1], known)}"
    if error["type"] == "missing":
        return f"{name}: expected a value, got none"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":  # one of our own checks, which says what came
        return f"{name}: {message}" if name else message
    expected = re.sub(r"^Input should be", "expected", message)
    known = re.findall(r"'([^']*)'", context["expected"]) if error["type"] == "literal_error" else []
    hint = did_you_mean(given, known)
    return f"{name}: {expected}, got {shown(given)}{hint and '.' + hint}"


def _fields_at(kind: type[BaseModel], path: Sequence[str | int]) -> Iterable[str]:
    """The names of the fields of the model that ``path`` leads to from ``kind``; none if it leads elsewhere."""
    here: Any = kind
    for key in path:
        if isinstance(here, type) and issubclass(here, BaseModel):
            field = here.model_fields.get(str(key))
            here = field.annotation if field else None
        models = [part for part in (here, *get_args(here)) if isinstance(part, type) and issubclass(part, BaseModel)]
        here = models[0] if models else None
    return here.model_fields if here is not None else ()


def parse_seeds(text: str) -> tuple[int, ...]:
    """``"0..2"`` -> (0, 1, 2); ``"0,1"`` -> (0, 1); ``"3"`` -> (3,). ValueError says what was expected."""
    try:
        if ".." in text:
            first, last = (int(part) for part in text.split("..", 1))
            seeds = tuple(range(first, min(last, first + MOST_SEEDS) + 1))
        else:
            seeds = tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        seeds = ()
    if not seeds or min(seeds) < 0:
        raise ValueError(f"expected seeds such as 0..2 or 0,1 (not negative, first before last), got {shown(text)}")
    return seeds


def check_seeds(seeds: tuple[int, ...]) -> tuple[int, ...]:
    """The seeds, if they are different, none is negative, and there are not too many; else a ValueError."""
    if len(seeds) > MOST_SEEDS:
        raise ValueError(f"expected at most {MOST_SEEDS:,} seeds, got more")
    if min(seeds) < 0 or len(set(seeds)) < len(seeds) or max(seeds) >= MOST_COUNT:
        size = ", each below 2**63" if max(seeds) >= MOST_COUNT else ""
        raise ValueError(f"expected different seeds, none negative{size}, got {shown(list(seeds))}")
    return seeds


def find_device(name: str) -> str:
    """The device called ``name``, "auto" being the best there is; SettingsError if torch cannot use it."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except (RuntimeError, ValueError, OverflowError) as error:
        raise SettingsError(f"unknown device {shown(name)}: expected auto, cpu or cuda") from error
    if device.type not in ("cpu", "cuda"):
        raise SettingsError(f"the device {name!r} is none to train on: expected auto, cpu or cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SettingsError(
            f"the device {name!r} was asked for, but torch sees no CUDA device; use --device auto or cpu"
        )
    return name
