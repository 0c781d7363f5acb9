"""Packages that only some environments have."""

import importlib
import os
from types import ModuleType

import pytest

__all__ = ["needs"]


def needs(package: str) -> ModuleType:
    """A package; where nobody promised to install it, the test that asks is skipped."""
    if os.environ.get("CI") or os.environ.get("NESTLEARN_HOSTS"):
        return importlib.import_module(package)
    return pytest.importorskip(package, reason=f"{package} is not installed: bash dev/test --hosts")
