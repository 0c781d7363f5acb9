"""Packages that only some environments have."""

import importlib
import os
from types import ModuleType

import pytest

from benchmarks.hosts.timm import timm

__all__ = ["needs"]


def needs(*packages: str, remedy: str = "bash dev/test --hosts") -> list[ModuleType]:
    """Packages; where nobody promised to install them, the test that asks is skipped and says what brings them."""
    found = []
    for package in packages:
        try:
            found.append(timm() if package == "timm" else importlib.import_module(package))
        except ModuleNotFoundError:
            if os.environ.get("CI") or os.environ.get("NESTLEARN_HOSTS"):
                raise
            pytest.skip(f"{package} is not installed: {remedy}", allow_module_level=True)
    return found
