"""Nested Learning for PyTorch: everything that learns is an associative memory, written by a rule at its own pace."""

from typing import TYPE_CHECKING

from nestlearn.lazy import find as __getattr__  # noqa: F401  # every name below, at its first use
from nestlearn.lazy import listed as __dir__  # noqa: F401
from nestlearn.version import __version__

if TYPE_CHECKING:
    from nestlearn import errors, layers, memory, models, ops, optim, rules, targets
    from nestlearn.descriptions import describe
    from nestlearn.errors import NestlearnError
    from nestlearn.integrations.recording import record
    from nestlearn.memory import AssociativeMemory

__all__ = [
    "AssociativeMemory",
    "NestlearnError",
    "__version__",
    "describe",
    "errors",
    "layers",
    "memory",
    "models",
    "ops",
    "optim",
    "record",
    "rules",
    "targets",
]
