"""The root package without its weight: torch is imported when a name that needs it is first used.

``nestlearn --help`` and completion in a shell import the root package too, and should not take seconds for it. So the
root binds nothing that needs torch; its module gets a class that finds each name at its first use and keeps it.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

__all__ = ["FOLDERS", "HOMES"]

FOLDERS = ("errors", "layers", "memory", "models", "ops", "optim", "rules", "targets")
"""Folders, and one file, that ``import nestlearn as nl`` promises as ``nl.memory`` and so on."""

HOMES = {
    "AssociativeMemory": "nestlearn.memory",
    "NestlearnError": "nestlearn.errors",
    "describe": "nestlearn.describe",
}
"""Where the other names of the root live."""


class _Root(ModuleType):
    __all__: list[str]

    def __getattr__(self, name: str) -> Any:
        if name in HOMES:
            value = getattr(import_module(HOMES[name]), name)
        elif name in FOLDERS:
            value = import_module(f"{self.__name__}.{name}")
        else:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        ModuleType.__setattr__(self, name, value)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        """Importing the folder ``describe`` would bind it here under a name that is that of the function in it."""
        if not (name in HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self.__all__})


sys.modules["nestlearn"].__class__ = _Root
