"""The root package without its weight: torch is imported when a name that needs it is first used.

``nestlearn --help`` and completion in a shell import the root package too, and should not take seconds for it. So the
root binds nothing that needs torch; ``find`` is its ``__getattr__``, which Python asks for a name that it lacks.
"""

import sys
from importlib import import_module
from typing import Any

__all__ = ["FOLDERS", "HOMES", "find", "listed"]

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
