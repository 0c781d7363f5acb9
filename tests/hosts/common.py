"""Which hosts are there."""

from __future__ import annotations

import importlib
import os
from types import ModuleType

import pytest

from benchmarks.hosts.timm import timm

__all__ = ["needs"]


def needs(*packages: str) -> list[ModuleType]:
    """Packages of hosts; where nobody promised to install them, whoever asks is skipped."""
    found = []
    for package in packages:
        try:
            found.append(timm() if package == "timm" else importlib.import_module(package))
        except ModuleNotFoundError:
            if os.environ.get("CI") or os.environ.get("NESTLEARN_HOSTS"):
                raise
            pytest.skip(f"{package} is not installed: bash dev/test --hosts", allow_module_level=True)
    return found
