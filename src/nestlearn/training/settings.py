"""What is set: settings from files and from ``--set key=value``, for every verb that has settings.

Settings are pydantic models without surprises: frozen, and unknown keys are errors (``Settings``). This file reads them
from YAML, lays one change over another, and turns every complaint into one line that names the dotted key, what was
expected, what came, and what was probably meant.

    settings = merge(settings, read_settings(Path("mine.yaml")), "optimizer.hidden=32", "seeds=0..4")
    text = to_yaml(settings)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, get_args

import torch
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from nestlearn.errors import SettingsError, did_you_mean

__all__ = ["Settings", "check_seeds", "find_device", "merge", "parse_seeds", "read_settings", "to_yaml"]

Model = TypeVar("Model", bound=BaseModel)


class Settings(BaseModel):
    """Base of all settings: frozen, unknown keys refused, defaults checked like given values."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class _Loader(yaml.SafeLoader):
    """YAML as people mean it: 1e-3 is a number, and a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
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
        plain = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise SettingsError(f"cannot read the settings {path}: {reason}") from error
    except yaml.YAMLError as error:
        raise SettingsError(f"the settings {path} are not YAML: {error}") from error
    if plain is None:
        return {}
    if not isinstance(plain, dict):
        raise SettingsError(f"expected a mapping of settings in {path}, got {_shown(plain)}")
    return plain


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
            raise SettingsError("; ".join(_complaint(kind, one) for one in error.errors())) from error
    return settings


def _assigned(assignment: str) -> dict[str, Any]:
    """``a.b=value`` as a mapping."""
    name, equals, text = assignment.partition("=")
    path = name.strip().split(".")
    if not equals or not all(path):
        raise SettingsError(f"expected key=value with a key such as optimizer.hidden, got {assignment!r}")
    try:
        value = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise SettingsError(f"{name.strip()}: expected a YAML value, got {text!r} ({reason})") from error
    for key in reversed(path[1:]):
        value = {key: value}
    return {path[0]: value}


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
    name, given, context = ".".join(map(str, path)), error["input"], error.get("ctx", MappingProxyType({}))
    if error["type"] == "extra_forbidden":
        known = sorted(_fields_at(kind, path[:-1]))
        expected = f": expected one of {', '.join(known)}." if known else "."
        return f"unknown setting {name!r}{expected}{did_you_mean(path[-1], known)}"
    if error["type"] == "missing":
        return f"{name}: expected a value, got none"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "value_error":  # one of our own checks, which says what came
        return f"{name}: {message}" if name else message
    expected = re.sub(r"^Input should be", "expected", message)
    known = re.findall(r"'([^']*)'", context["expected"]) if error["type"] == "literal_error" else []
    hint = did_you_mean(given, known)
    return f"{name}: {expected}, got {_shown(given)}{hint and '.' + hint}"


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


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def parse_seeds(text: str) -> tuple[int, ...]:
    """``"0..2"`` -> (0, 1, 2); ``"0,1"`` -> (0, 1); ``"3"`` -> (3,). ValueError says what was expected."""
    try:
        if ".." in text:
            first, last = (int(part) for part in text.split("..", 1))
            seeds = tuple(range(first, last + 1))
        else:
            seeds = tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        seeds = ()
    if not seeds or min(seeds) < 0:
        raise ValueError(f"expected seeds such as 0..2 or 0,1 (not negative, first before last), got {text!r}")
    return seeds


def check_seeds(seeds: tuple[int, ...]) -> tuple[int, ...]:
    """The seeds, if they are different and none is negative; else a ValueError."""
    if min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise ValueError(f"expected different seeds, none negative, got {list(seeds)}")
    return seeds


def find_device(name: str) -> str:
    """The device called ``name``, "auto" being the best there is; SettingsError if torch cannot use it."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise SettingsError(f"unknown device {name!r}: expected auto, cpu or cuda") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SettingsError(
            f"the device {name!r} was asked for, but torch sees no CUDA device; use --device auto or cpu"
        )
    return name
