"""Nested Learning for PyTorch: everything that learns is an associative memory, written by a rule at its own pace."""

from typing import TYPE_CHECKING

import nestlearn.lazy  # noqa: F401  # finds every name below at its first use
from nestlearn.version import __version__

if TYPE_CHECKING:
    from nestlearn import errors, layers, memory, models, ops, optim, rules, targets
    from nestlearn.describe import describe
    from nestlearn.errors import NestlearnError
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
    "rules",
    "targets",
]
