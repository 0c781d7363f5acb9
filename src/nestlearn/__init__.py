"""Nested Learning for PyTorch: everything that learns is an associative memory, written by a rule at its own pace."""

from nestlearn import memory, ops, optim, targets
from nestlearn.describe import describe
from nestlearn.memory import AssociativeMemory
from nestlearn.version import __version__

__all__ = ["AssociativeMemory", "__version__", "describe", "memory", "ops", "optim", "targets"]
