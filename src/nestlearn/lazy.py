"""Packages without their weight: torch is imported when a name that needs it is first used.

``nestlearn --help`` and completion in a shell import the root package too, and should not take seconds for it. So the
root binds nothing that needs torch; ``find`` is its ``__getattr__``, which Python asks for a name that it lacks.

``nestlearn report`` reads what runs left behind, and needs three folders for it of which most needs torch: ``late``
makes such a folder find its names late too.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

__all__ = ["FOLDERS", "HOMES", "find", "late", "listed"]

ROOT = "nestlearn"

FOLDERS = ("errors", "layers", "memory", "models", "ops", "optim", "rules", "targets")
"""Folders, and one file, that ``import nestlearn as nl`` promises as ``nl.memory`` and so on."""

HOMES = {
    "AssociativeMemory": "memory",
    "NestlearnError": "errors",
    "describe": "descriptions",
    "record": "integrations.recording",
}
"""The folders, and one file, where the other names of the root live; none is called like one of them."""


def find(name: str) -> Any:
    """A name of the root, which from then on is there."""
    if name in HOMES:
        value = getattr(import_module(f"{ROOT}.{HOMES[name]}"), name)
    elif name in FOLDERS:
        value = import_module(f"{ROOT}.{name}")
    else:
        raise AttributeError(f"module {ROOT!r} has no attribute {name!r}")
    setattr(sys.modules[ROOT], name, value)
    return value


def listed() -> list[str]:
    """What ``dir`` shows of the root, also before it is there."""
    root = sys.modules[ROOT]
    return sorted({*vars(root), *root.__all__})


def late(package: str, **files: str) -> None:
    """Let a package find its names at their first use: ``late(__name__, boxes="sum_box average_box")`` says that two of
    them are in ``boxes.py``.
    """
    module = sys.modules[package]
    vars(module)["_homes"] = {name: file for file, names in files.items() for name in names.split()}
    module.__class__ = _Late


class _Late(ModuleType):
    _homes: dict[str, str]

    def __getattr__(self, name: str) -> Any:
        if name not in self._homes:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{self.__name__}.{self._homes[name]}"), name)
        vars(self)[name] = value
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        """As of any module; but a file that Python has loaded does not take the name of what it holds."""
        if not (name in self._homes and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*vars(self), *self._homes} - {"_homes"})

    def __reduce__(self) -> tuple[Any, ...]:
        """By its name: what sends functions to workers pickles the modules that they use, and knows only plain ones."""
        return import_module, (self.__name__,)
